//! Where in a text of JSON a key stands, so that whoever has to correct it finds it.

/// Returns the line of a key, given with those that it is below, in a text that is JSON; none when there is no such key. Of one that is
/// there twice, the last counts.
pub(super) fn line(text: &str, keys: &[&str]) -> Option<usize> {
    // The key at hand in each object around; none in a list.
    let mut around: Vec<Option<String>> = Vec::new();
    let (mut at, mut found) = (0, None);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'{' | b'[' => around.push(None),
            b'}' | b']' => drop(around.pop()),
            b'"' => {
                let end = end_of_string(text.as_bytes(), at);
                if text.get(end..)?.trim_start().starts_with(':') {
                    *around.last_mut()? = serde_json::from_str(text.get(at..end)?).ok();
                    if around.iter().map(Option::as_deref).eq(keys.iter().copied().map(Some)) {
                        found = Some(text.get(..at)?.bytes().filter(|byte| *byte == b'\n').count() + 1);
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Returns where a string ends that begins there.
fn end_of_string(text: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_is_and_not_where_something_looks_like_it() {
        let text = r#"{
            "x": ["auths", {"auths": 1}, "\"auths\":"],
            "auth": 1,
            "auths": { "b.test": {"auth": 1},
                "\u0061.test" :
                    {"username": "auth", "auth"
                     : 7}}
        }"#;
        assert_eq!(line(text, &["auths"]), Some(4));
        assert_eq!(line(text, &["auths", "a.test"]), Some(5));
        assert_eq!(line(text, &["auths", "a.test", "auth"]), Some(6));
        assert_eq!(line(text, &["auths", "b.test", "auth"]), Some(4));
        assert_eq!(line(text, &["auth"]), Some(3));
        for missing in [&["auths", "c.test"][..], &["b.test"], &[]] {
            assert_eq!(line(text, missing), None);
        }
        for no_json in ["", "\"", "\"a\":", "}}}", "{\"a\\"] {
            assert_eq!(line(no_json, &["a"]), None);
        }
    }
}
