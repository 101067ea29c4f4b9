//! `cargo xtask tidy`: the conventions that the compiler cannot check, as a test.
//!
//! A rule is a pure function from the [`Tree`] to findings, and each has a test that shows that it can fail. Rules read the
//! tree and `cargo metadata`; they never build anything and change nothing.

mod code;
mod direction;
mod documents;
mod map;
mod source;
mod tree;
mod words;

use std::fmt;

use anyhow::{Result, bail};

use self::tree::Tree;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Said, and no more.
    Warning,
    /// The check fails.
    Error,
}

/// A place where a rule is not followed.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    path: String,
    /// Counted from one.
    line: usize,
    rule: &'static str,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Error, path: path.to_owned(), line, rule, what: what.into() }
    }

    fn warning(self) -> Self {
        Self { level: Level::Warning, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.level == Level::Warning { "warning: " } else { "" };
        write!(f, "{}:{}: {}: {warning}{}", self.path, self.line, self.rule, self.what)
    }
}

/// Every rule.
const RULES: &[fn(&Tree) -> Vec<Finding>] = &[
    direction::layers,
    direction::confined,
    direction::testkit,
    direction::lints,
    map::crates,
    map::unsafe_files,
    source::opening,
    source::length,
    source::functions,
    source::leftovers,
    source::safety,
    source::machine_paths,
    source::scripts,
    words::modules,
    documents::links,
    documents::changelog,
    documents::decisions,
];

/// Runs every rule on the workspace and prints the findings.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::read()?;
    let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.level == Level::Error).count();
    println!(
        "tidy: {} files, {} rules, {} warnings, {errors} errors",
        tree.files.len(),
        RULES.len(),
        findings.len() - errors
    );
    if errors > 0 {
        bail!("the tree is not tidy: {errors} findings above");
    }
    Ok(())
}
