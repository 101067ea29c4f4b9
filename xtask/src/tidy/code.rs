//! Looking at Rust source as text: what is code, and what only talks about code.
//!
//! Not a parser: it knows comments, strings and character literals, which is what a search for a word needs.

/// Returns the source with the insides of comments, strings and characters blanked; lines and columns (in bytes) stay.
pub(super) fn without_prose(source: &str) -> String {
    let mut left = source;
    let mut code = String::with_capacity(source.len());
    let mut previous = ' ';
    while let Some(next) = left.chars().next() {
        let prose = prose_length(left, previous);
        let (taken, rest) = left.split_at_checked(prose.unwrap_or(next.len_utf8())).unwrap_or((left, ""));
        match prose {
            Some(_) => code.extend(taken.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' })),
            None => code.push_str(taken),
        }
        previous = taken.chars().next_back().unwrap_or(' ');
        left = rest;
    }
    code
}

/// Returns how many bytes of comment or literal the text begins with, if it begins with one.
fn prose_length(text: &str, previous: char) -> Option<usize> {
    let end = |from: usize, close: &str| {
        let rest = text.get(from..).unwrap_or("");
        from + rest.find(close).map_or(rest.len(), |at| at + close.len())
    };
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    if text.starts_with('"') {
        return Some(string(text));
    }
    if text.starts_with('\'') {
        return character(text);
    }
    let in_word = previous.is_alphanumeric() || previous == '_';
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r')).filter(|_| !in_word)?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    raw.trim_start_matches('#').starts_with('"').then(|| {
        let open = text.len() - raw.len() + hashes + 1;
        end(open, &format!("\"{}", "#".repeat(hashes)))
    })
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of a character literal, or `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut inside = text.get(1..)?.char_indices();
    let (_, first) = inside.next()?;
    if first == '\\' {
        return text.get(3..)?.find('\'').map(|at| at + 4);
    }
    let (at, close) = inside.next()?;
    (close == '\'').then_some(at + 2)
}

/// Returns the part of a file before its unit tests, which by convention end it.
pub(super) fn before_tests(source: &str) -> &str {
    source.find("\n#[cfg(test)]\nmod tests").and_then(|at| source.get(..at)).unwrap_or(source)
}

/// Returns whether the word is in the line, on its own.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let in_word = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
    line.match_indices(word).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        !in_word(before.chars().next_back()) && !in_word(rest.chars().nth(word.chars().count()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        let source =
            "a(\"x // y\", 'q', '\\'', b'z'); // dbg!\n/* b /* c */ d */ e::<'f>(r#\"g \" h\"#) r\"i\" for_r\"j\"";
        let code = without_prose(source);
        assert_eq!(code.len(), source.len());
        assert_eq!(code.split_whitespace().collect::<String>(), "a(,,,b);e::<'f>()for_r");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn an_unclosed_literal_is_blanked_to_the_end() {
        for source in ["\"é", "r##\"é\"#", "/* é /* */", "'\\"] {
            assert_eq!(without_prose(source).len(), source.len());
        }
    }

    #[test]
    fn a_word_is_found_only_on_its_own() {
        assert!(has_word("x = unsafe { y }", "unsafe"));
        assert!(!has_word("deny(unsafe_code) not_unsafe", "unsafe"));
    }
}
