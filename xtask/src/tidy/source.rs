//! What a source file looks like: its opening, its length, and what must not be left in it.

use super::Finding;
use super::code::{before_tests, has_word, without_prose};
use super::tree::{File, Tree};

/// Lines of code, tests and comments apart, from which a file is said to be long.
const LONG: usize = 400;
/// Lines of code, tests and comments apart, above which a file is too long.
const TOO_LONG: usize = 500;
/// Lines from which a function is said to be long.
const LONG_FUNCTION: usize = 60;
/// Lines above which a shell script should have been Rust.
const SCRIPT: usize = 30;
/// How many lines above an `unsafe` block its reason may begin.
const SAFETY: usize = 12;

/// A source file opens with what it is for.
pub(super) fn opening(tree: &Tree) -> Vec<Finding> {
    let closed = tree.sources().filter(|file| !is_generated(file) && !file.text.starts_with("//!"));
    closed
        .map(|file| Finding::new(&file.path, 1, "opening", "the file does not open with `//!`: what is it for?"))
        .collect()
}

/// A source file is not too long: what counts is code, not comments, blank lines or the unit tests.
pub(super) fn length(tree: &Tree) -> Vec<Finding> {
    let long = tree.sources().filter(|file| !is_generated(file)).filter_map(|file| {
        let code = without_prose(before_tests(&file.text));
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        let finding = Finding::new(&file.path, 1, "length", format!("{lines} lines of code; {LONG} is a long file"));
        match lines {
            0..=LONG => None,
            _ if lines <= TOO_LONG => Some(finding.warning()),
            _ => Some(finding),
        }
    });
    long.collect()
}

/// A function is not long. This is said only: clippy fails for the very long ones.
pub(super) fn functions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.sources().filter(|file| !is_generated(file)) {
        let code = without_prose(&file.text);
        let lines: Vec<&str> = code.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| has_word(line, "fn")) {
            // Formatted code ends a function where its indentation comes back; a body on one line is not long.
            let indentation = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indentation));
            let opens = lines.iter().skip(at).position(|line| line.ends_with(['{', ';', '}']));
            let Some(opens) = opens.filter(|opens| lines.get(at + opens).is_some_and(|line| line.ends_with('{')))
            else {
                continue;
            };
            let length = lines.iter().skip(at + opens).position(|line| *line == end).unwrap_or(0);
            if length > LONG_FUNCTION {
                let what = format!("{length} lines; {LONG_FUNCTION} is a long function");
                findings.push(Finding::new(&file.path, at + 1, "function", what).warning());
            }
        }
    }
    findings
}

/// Nothing unfinished, switched off or silenced is left behind.
pub(super) fn leftovers(tree: &Tree) -> Vec<Finding> {
    const LEFTOVERS: &[(&str, &str)] = &[
        ("todo!", "unfinished code"),
        ("unimplemented!", "unfinished code"),
        ("dbg!", "debugging output"),
        ("#[ignore", "a test that never runs"),
        ("#[allow(", "a silenced lint: use `#[expect(lint, reason = \"…\")]`"),
        ("#![allow(", "a silenced lint: use `#![expect(lint, reason = \"…\")]`"),
    ];
    let mut findings = Vec::new();
    for file in tree.sources().filter(|file| !is_generated(file)) {
        let code = without_prose(&file.text);
        for (line, text) in (1..).zip(code.lines()) {
            for (what, why) in LEFTOVERS.iter().filter(|(what, _)| text.contains(what)) {
                findings.push(Finding::new(&file.path, line, "leftover", format!("`{what}`: {why}")));
            }
        }
    }
    findings
}

/// Every `unsafe` block says above it why it is sound.
pub(super) fn safety(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.sources() {
        let code = without_prose(&file.text);
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, _) in code.lines().enumerate().filter(|(_, line)| opens_unsafe(line)) {
            let above = lines.get(at.saturating_sub(SAFETY)..=at).unwrap_or_default();
            if !above.iter().any(|line| line.contains("SAFETY:")) {
                findings.push(Finding::new(&file.path, at + 1, "safety", "no `// SAFETY:` above this unsafe block"));
            }
        }
    }
    findings
}

fn opens_unsafe(line: &str) -> bool {
    has_word(line, "unsafe") && ["unsafe {", "unsafe impl"].iter().any(|it| line.contains(it))
}

/// No path of one machine is written down.
pub(super) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    const PLACES: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut findings = Vec::new();
    for file in &tree.files {
        for (line, text) in (1..).zip(file.text.lines()) {
            let begins = |place: &&&str| text.match_indices(**place).any(|(at, _)| begins_path(text, at));
            for place in PLACES.iter().filter(begins) {
                let what = format!("`{place}…` is the path of one machine");
                findings.push(Finding::new(&file.path, line, "machine path", what));
            }
        }
    }
    findings
}

fn begins_path(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|before| before.chars().next_back());
    before.is_none_or(|it| !it.is_alphanumeric() && !"._-/}*$".contains(it))
}

/// A shell script is short.
pub(super) fn scripts(tree: &Tree) -> Vec<Finding> {
    let is_script = |file: &&File| {
        let first = file.text.lines().next().unwrap_or_default();
        file.is("sh") || (first.starts_with("#!") && !first.starts_with("#![") && first.ends_with("sh"))
    };
    let long = tree.files.iter().filter(is_script).filter(|file| file.text.lines().count() > SCRIPT);
    long.map(|file| Finding::new(&file.path, SCRIPT + 1, "script", "longer work is a `cargo xtask`")).collect()
}

/// Whether a file was written by a program, which says so in its first lines.
fn is_generated(file: &File) -> bool {
    file.text.lines().take(5).any(|line| line.contains(concat!("@gener", "ated")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Level;

    #[test]
    fn a_generated_file_need_not_say_what_it_is_for() {
        let text = concat!("// This file is @gener", "ated by a program.\npub struct S;\n");
        assert!(opening(&Tree::of(&[("crates/x/src/generated/a.rs", text)])).is_empty());
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_for_is_found() {
        let tree = Tree::of(&[("a.rs", "use std::fs;\n"), ("b.rs", "//! B.\n"), ("c.md", "C\n")]);
        let found: Vec<_> = opening(&tree).into_iter().map(|it| it.path).collect();
        assert_eq!(found, ["a.rs"]);
    }

    #[test]
    fn a_long_file_is_a_warning_and_a_too_long_one_an_error() {
        let lines = |count: usize| "x();\n".repeat(count);
        let tests = |count| format!("//! A.\n\n{}\n#[cfg(test)]\nmod tests {{\n{}}}\n", lines(count), lines(600));
        let texts = [tests(LONG), tests(LONG + 1), tests(TOO_LONG), tests(TOO_LONG + 1)];
        let names = ["short.rs", "long.rs", "longer.rs", "longest.rs"];
        let files: Vec<_> = names.into_iter().zip(texts.iter().map(String::as_str)).collect();
        let found: Vec<_> = length(&Tree::of(&files)).into_iter().map(|it| (it.path, it.level)).collect();
        let of = |path: &str, level| (path.to_owned(), level);
        assert_eq!(
            found,
            [of("long.rs", Level::Warning), of("longer.rs", Level::Warning), of("longest.rs", Level::Error)]
        );
    }

    #[test]
    fn a_long_function_is_a_warning() {
        let function = |lines: usize| {
            format!("    pub fn f(\n        x: u8,\n    ) {{\n{}    }}\n", "        x();\n".repeat(lines))
        };
        let text =
            format!("mod a {{\n{}{}    fn g() {{}}\n}}\n", function(LONG_FUNCTION - 1), function(LONG_FUNCTION + 1));
        let found = functions(&Tree::of(&[("a.rs", &text)]));
        let found: Vec<_> = found.into_iter().map(|it| (it.line, it.level)).collect();
        assert_eq!(found, [(2 + LONG_FUNCTION + 3, Level::Warning)]);
    }

    #[test]
    fn what_is_left_over_is_found_in_code_and_not_in_prose() {
        let code = "//! todo!\ntodo!();\nlet a = \"dbg!\"; dbg!(a);\nunimplemented!()\n#[ignore = \"x\"]\n#[allow(x)]\n#![allow(y)]\n";
        let found: Vec<_> = leftovers(&Tree::of(&[("a.rs", code)])).into_iter().map(|it| it.line).collect();
        assert_eq!(found, [2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn an_unsafe_block_without_its_reason_is_found() {
        let code = "// SAFETY: alone.\nunsafe { f() };\n".to_owned() + &"\n".repeat(SAFETY) + "unsafe { g() };\n";
        let found: Vec<_> = safety(&Tree::of(&[("a.rs", &code)])).into_iter().map(|it| it.line).collect();
        assert_eq!(found, [SAFETY + 3]);
    }

    #[test]
    fn the_path_of_one_machine_is_found_and_a_path_that_only_has_such_a_name_is_not() {
        let text = [concat!("see ", "/wo", "rk/x"), concat!("a/wo", "rk/y"), concat!("\"/ro", "ot/z\""), "/workspace"]
            .join("\n");
        let found: Vec<_> = machine_paths(&Tree::of(&[("a.md", &text)])).into_iter().map(|it| it.line).collect();
        assert_eq!(found, [1, 3]);
    }

    #[test]
    fn a_long_script_is_found() {
        let script = "#!/usr/bin/env bash\n".to_owned() + &"true\n".repeat(SCRIPT);
        assert_eq!(scripts(&Tree::of(&[("run", &script), ("a.rs", "#![deny(x)]")])).len(), 1);
    }
}
