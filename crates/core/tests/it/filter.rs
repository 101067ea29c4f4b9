//! Filters: no text makes the parser panic, and quoting finds every value.

use proptest::prelude::*;
use windlass_core::Labels;
use windlass_core::filter::{Fields, Filter, any_matches};

struct Record {
    name: String,
    labels: Labels,
}

impl Fields for Record {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => Some(self.name.clone()),
            ["labels", key @ ..] => self.labels.field(key),
            _ => None,
        }
    }
}

/// Writes text as a Go string literal.
fn quote(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\U{:08x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// Text that is often a filter, and often nearly one.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("name".to_owned()),
        Just("labels.".to_owned()),
        prop_oneof![Just("=="), Just("!="), Just("~="), Just("="), Just(","), Just(".")].prop_map(str::to_owned),
        Just("\"".to_owned()),
        Just("|".to_owned()),
        Just("/".to_owned()),
        Just("\\".to_owned()),
        "\\\\[abfnrtvxuU0-7\"|/]",
        "[a-z0-9]{0,4}",
        "[(\\[{*+?^$|)\\]}.]{0,3}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn check(text: &str) {
    match text.parse::<Filter>() {
        Ok(filter) => {
            assert_eq!(filter.to_string(), text);
            let record = Record { name: "redis".into(), labels: Labels::new() };
            let _ = filter.matches(&record);
        }
        Err(error) => {
            assert_eq!(error.kind(), windlass_core::Kind::InvalidArgument);
            let message = error.to_string();
            let position = message.split("at byte ").nth(1).and_then(|rest| rest.split(':').next());
            let position: usize = position.unwrap().parse().unwrap();
            assert!(text.is_char_boundary(position) && position <= text.len(), "{text:?}: {message}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_a_filter_or_refused(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn what_looks_like_a_filter_is_one_or_refused(text in nearly()) {
        check(&text);
    }

    #[test]
    fn a_quoted_value_is_found(name in any::<String>()) {
        let record = Record { name: name.clone(), labels: Labels::new() };
        let equal: Filter = format!("name=={}", quote(&name)).parse().unwrap();
        let unequal: Filter = format!("name!={}", quote(&name)).parse().unwrap();
        prop_assert!(equal.matches(&record));
        prop_assert!(!unequal.matches(&record));
    }

    #[test]
    fn a_quoted_label_is_found(key in any::<String>(), value in any::<String>()) {
        let record = Record { name: String::new(), labels: Labels::new().with(key.clone(), value.clone()) };
        let text = format!("labels.{}=={}", quote(&key), quote(&value));
        prop_assert!(text.parse::<Filter>().unwrap().matches(&record), "{}", text);
        let present: Filter = format!("labels.{}", quote(&key)).parse().unwrap();
        prop_assert!(present.matches(&record));
    }

    #[test]
    fn several_filters_are_or_and_commas_are_and(name in "[a-c]", one in "[a-c]", two in "[a-c]") {
        let record = Record { name: name.clone(), labels: Labels::new() };
        let (first, second) = (format!("name=={one}"), format!("name=={two}"));
        let either = Filter::parse_all([first.as_str(), &second]).unwrap();
        prop_assert_eq!(any_matches(&either, &record), name == one || name == two);
        let both: Filter = format!("{first},{second}").parse().unwrap();
        prop_assert_eq!(both.matches(&record), name == one && name == two);
    }
}

/// What a selector asks, as a test sees it.
#[derive(Debug, Clone)]
enum Asked {
    Present,
    Equal(String),
    NotEqual(String),
    Contains(String),
}

/// How a value is written.
#[derive(Debug, Clone, Copy)]
enum Written {
    Plain,
    Quoted,
    Between(char),
}

fn asked() -> impl Strategy<Value = (&'static str, Asked, Written)> {
    let path = prop_oneof![Just("name"), Just("labels.a"), Just("labels.\"b.c\""), Just("labels.b.c"), Just("absent")];
    let value = "[ab]{1,2}";
    let test = prop_oneof![
        Just(Asked::Present),
        value.prop_map(Asked::Equal),
        value.prop_map(Asked::NotEqual),
        value.prop_map(Asked::Contains),
    ];
    let written = prop_oneof![
        Just(Written::Plain),
        Just(Written::Quoted),
        Just(Written::Between('|')),
        Just(Written::Between('/'))
    ];
    (path, test, written)
}

/// Writes a selector.
fn write((path, asked, written): &(&str, Asked, Written)) -> String {
    let value = |value: &str, pattern: bool| match written {
        Written::Quoted => quote(value),
        Written::Between(delimiter) if pattern => format!("{delimiter}{value}{delimiter}"),
        _ => value.to_owned(),
    };
    match asked {
        Asked::Present => (*path).to_owned(),
        Asked::Equal(to) => format!("{path}=={}", value(to, false)),
        Asked::NotEqual(to) => format!("{path}!={}", value(to, false)),
        Asked::Contains(part) => format!("{path}~={}", value(part, true)),
    }
}

/// Says whether a selector holds, without the parser.
fn holds((path, asked, _): &(&str, Asked, Written), record: &Record) -> bool {
    let value = match *path {
        "name" => Some(record.name.as_str()),
        "labels.a" => record.labels.get("a"),
        "absent" => None,
        _ => record.labels.get("b.c"),
    };
    match asked {
        Asked::Present => value.is_some(),
        Asked::Equal(to) => value == Some(to),
        Asked::NotEqual(to) => value != Some(to),
        Asked::Contains(part) => value.is_some_and(|value| value.contains(part.as_str())),
    }
}

proptest! {
    #[test]
    fn filters_mean_what_they_say(
        filters in proptest::collection::vec(proptest::collection::vec(asked(), 1..4), 0..4),
        name in "[ab]{1,3}",
        first in proptest::option::of("[ab]{1,3}"),
        second in proptest::option::of("[ab]{1,3}"),
    ) {
        let labels = [("a", first), ("b.c", second)];
        let labels = labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        let record = Record { name, labels };
        let texts: Vec<String> =
            filters.iter().map(|filter| filter.iter().map(write).collect::<Vec<_>>().join(",")).collect();
        let parsed = Filter::parse_all(texts.iter().map(String::as_str)).unwrap();
        let expected =
            filters.is_empty() || filters.iter().any(|filter| filter.iter().all(|asked| holds(asked, &record)));
        prop_assert_eq!(any_matches(&parsed, &record), expected, "{:?}", texts);
    }

    #[test]
    fn an_error_stands_where_a_good_filter_was_spoilt(
        filter in proptest::collection::vec(asked(), 1..4),
        spoil in prop_oneof![Just(","), Just(",,x"), Just(",=="), Just(",name=x"), Just(",name==")],
    ) {
        let good = filter.iter().map(write).collect::<Vec<_>>().join(",");
        let text = format!("{good}{spoil}");
        let message = text.parse::<Filter>().unwrap_err().to_string();
        let position = message.rsplit("at byte ").next().and_then(|rest| rest.split(':').next()).unwrap();
        let position: usize = position.parse().unwrap();
        prop_assert!(position > good.len() && position <= text.len(), "{}", message);
    }
}
