//! What a server asks for when it answers 401: the header `WWW-Authenticate`, RFC 9110 section 11.6.1.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::quoted;

/// One way to authenticate that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The scheme, lower case.
    pub(crate) scheme: String,
    /// The parameters, their names lower case.
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// Returns a parameter that is not empty.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Returns every challenge of an answer, in order.
pub(crate) fn of_headers(headers: &HeaderMap) -> Vec<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).flat_map(parse).collect()
}

/// Parses the value of one header. What is malformed is left out: a challenge that cannot be read is one that cannot be
/// answered.
pub(crate) fn parse(value: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            // Not the beginning of anything: skip one character, or be done.
            let mut characters = rest.chars();
            if characters.next().is_none() {
                return challenges;
            }
            rest = characters.as_str();
            continue;
        }
        let Some(after_equals) = after.trim_start().strip_prefix('=') else {
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
            rest = after;
            continue;
        };
        let (value, after) = parameter_value(after_equals.trim_start());
        if let Some(challenge) = challenges.last_mut() {
            challenge.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
        }
        rest = after;
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t', ',', '=', '"']).unwrap_or(text.len());
    text.split_at(end)
}

/// Reads a token or a quoted string.
fn parameter_value(text: &str) -> (String, &str) {
    quoted::string(text).unwrap_or_else(|| {
        let (value, rest) = token(text);
        (value.to_owned(), rest)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flat(value: &str) -> Vec<(String, Vec<(String, String)>)> {
        parse(value).into_iter().map(|c| (c.scheme, c.parameters.into_iter().collect())).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_challenges_of_real_registries_are_read() {
        let hub =
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        let expected = [
            ("realm", "https://auth.docker.io/token"),
            ("scope", "repository:a/b:pull"),
            ("service", "registry.docker.io"),
        ];
        assert_eq!(flat(hub), [("bearer".to_owned(), pairs(&expected))]);
        assert_eq!(flat(r#"Basic realm="basic-realm""#), [("basic".to_owned(), pairs(&[("realm", "basic-realm")]))]);
    }

    #[test]
    fn several_challenges_in_one_header_are_told_apart() {
        assert_eq!(
            flat(r#"Negotiate abc==, Basic realm="a, \"b\"" , BEARER Realm = x"#),
            [
                ("negotiate".to_owned(), pairs(&[("abc", "")])),
                ("basic".to_owned(), pairs(&[("realm", "a, \"b\"")])),
                ("bearer".to_owned(), pairs(&[("realm", "x")])),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_fail(value in ".{0,200}") {
            parse(&value);
        }

        #[test]
        fn any_parameter_value_survives_quoting(value in "[ -~]{1,40}") {
            let quoted = value.replace('\\', r"\\").replace('"', "\\\"");
            let parsed = parse(&format!("Bearer realm=\"{quoted}\",service=s"));
            prop_assert_eq!(parsed[0].parameter("realm"), Some(value.as_str()));
            prop_assert_eq!(parsed[0].parameter("service"), Some("s"));
        }
    }
}
