//! Quoted strings of header fields: RFC 9110 section 5.6.4.

/// Reads the string that the text begins with, and returns it with what is behind it; none when it begins with something else. A
/// string without an end goes on to the end of the text.
pub(crate) fn string(text: &str) -> Option<(String, &str)> {
    let mut characters = text.strip_prefix('"')?.chars();
    let mut value = String::new();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    Some((value, characters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_at_its_quote_or_with_the_text() {
        for (text, expected) in [
            (r#""a, b";c"#, Some(("a, b", ";c"))),
            (r#""a\"b\\" c"#, Some((r#"a"b\"#, " c"))),
            (r#""open"#, Some(("open", ""))),
            (r#""open\"#, Some(("open", ""))),
            (r#""""#, Some(("", ""))),
            ("token", None),
            ("", None),
        ] {
            assert_eq!(string(text), expected.map(|(value, rest)| (value.to_owned(), rest)), "{text}");
        }
    }
}
