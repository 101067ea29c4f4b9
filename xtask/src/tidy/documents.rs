//! The documents: links that lead somewhere, a changelog that is kept, decisions that are numbered.

use std::path::{Component, Path, PathBuf};

use super::Finding;
use super::tree::{File, Tree};

/// Every link of a document leads to a file of the repository, and to a heading of it where it names one.
pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.documents() {
        for (line, target) in targets(&file.text) {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let goal = if path.is_empty() { Some(file.path.clone()) } else { resolve(&file.path, path) };
            let there = goal.filter(|goal| tree.paths.contains(goal));
            let what = match there {
                None => "leads to no file",
                Some(goal) if !heading.is_empty() && !has_heading(tree.file(&goal), heading) => "leads to no heading",
                Some(_) => continue,
            };
            findings.push(Finding::new(&file.path, line, "link", format!("`{target}` {what}")));
        }
    }
    findings
}

/// Returns the targets of a document's links into the repository, with their lines.
fn targets(markdown: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (line, text) in (1..).zip(markdown.lines()) {
        if text.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        for rest in text.split("](").skip(1).filter(|_| !fenced) {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line, target));
            }
        }
    }
    found
}

/// Returns where a relative link of a file leads, or `None` when it leads out of the repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut goal = PathBuf::from(from);
    goal.pop();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => goal.push(name),
            Component::ParentDir if goal.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    goal.to_str().map(str::to_owned)
}

fn has_heading(file: Option<&File>, anchor: &str) -> bool {
    let Some(file) = file.filter(|file| file.is("md")) else { return false };
    file.text
        .lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| slug(line.trim_start_matches('#').trim()) == anchor)
}

/// Returns the anchor that a forge makes of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
    kept.flat_map(char::to_lowercase).map(|it| if it == ' ' { '-' } else { it }).collect()
}

/// The changelog has a place for what is not released yet.
pub(super) fn changelog(tree: &Tree) -> Vec<Finding> {
    const CHANGELOG: &str = "CHANGELOG.md";
    let text = tree.file(CHANGELOG).map_or("", |file| file.text.as_str());
    if text.lines().any(|line| line.starts_with("## [Unreleased]")) {
        return Vec::new();
    }
    vec![Finding::new(CHANGELOG, 1, "changelog", "there is no section `## [Unreleased]`")]
}

/// Decisions are numbered one after the other, and each says what it decided and what would reopen it.
pub(super) fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let files = tree.documents().filter(|file| file.path.starts_with("docs/adr/"));
    for (number, file) in (1..).zip(files) {
        let name = file.path.trim_start_matches("docs/adr/");
        let wanted = format!("{number:04}-");
        if !name.starts_with(&wanted) {
            findings.push(Finding::new(&file.path, 1, "decision", format!("the next number is {wanted}")));
        }
        for heading in ["## Decision", "## Revisit"] {
            if !file.text.contains(heading) {
                findings.push(Finding::new(&file.path, 1, "decision", format!("there is no section `{heading}`")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text = "[a](b.md) [c](../README.md#what-it-is)\n[d](no.md) [e](../../x) [f](#gone) [g](https://h/i)\n```\n[j](k)\n```\n";
        let tree = Tree::of(&[("docs/a.md", text), ("docs/b.md", "x"), ("README.md", "# T\n## What it is\n")]);
        let found: Vec<_> = links(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "docs/a.md:2: link: `no.md` leads to no file",
                "docs/a.md:2: link: `../../x` leads to no file",
                "docs/a.md:2: link: `#gone` leads to no heading",
            ]
        );
    }

    #[test]
    fn a_changelog_without_a_place_for_the_next_release_is_found() {
        assert_eq!(changelog(&Tree::of(&[("CHANGELOG.md", "# Changelog\n## [0.1.0]\n")])).len(), 1);
        assert!(changelog(&Tree::of(&[("CHANGELOG.md", "# Changelog\n## [Unreleased]\n")])).is_empty());
    }

    #[test]
    fn a_decision_out_of_order_or_without_its_sections_is_found() {
        let whole = "# A\n## Decision\n## Revisit when\n";
        let tree =
            Tree::of(&[("docs/adr/0001-a.md", whole), ("docs/adr/0003-b.md", whole), ("docs/adr/0003-c.md", "# C\n")]);
        assert_eq!(decisions(&tree).len(), 3);
    }
}
