//! ARCHITECTURE.md says what there is; here it is held to it.

use std::collections::BTreeSet;

use super::Finding;
use super::code::{has_word, without_prose};
use super::tree::Tree;

const MAP: &str = "ARCHITECTURE.md";
/// The heading below which the files with `unsafe` are listed.
const UNSAFE: &str = "Unsafe";

/// Every folder of a package is on the map, and every crate on the map is there.
pub(super) fn crates(tree: &Tree) -> Vec<Finding> {
    let Some(map) = tree.file(MAP) else { return vec![Finding::new(MAP, 1, "map", "there is no map")] };
    let named: BTreeSet<&str> = map.text.split('`').skip(1).step_by(2).map(|path| path.trim_end_matches('/')).collect();
    let missing = tree.packages.iter().filter(|package| !named.contains(package.folder.as_str()));
    let missing = missing.map(|package| {
        Finding::new(
            &format!("{}/Cargo.toml", package.folder),
            1,
            "map",
            format!("`{}` is not in {MAP}", package.folder),
        )
    });
    let gone = |path: &&&str| {
        path.strip_prefix("crates/").is_some_and(|rest| !rest.contains('<')) && !tree.paths.contains(**path)
    };
    let gone = named.iter().filter(gone).map(|path| {
        Finding::new(MAP, line_of(&map.text, path), "map", format!("`{path}` is on the map and not there"))
    });
    missing.chain(gone).collect()
}

/// `unsafe` is only in the files that the map lists, and the list has no others.
pub(super) fn unsafe_files(tree: &Tree) -> Vec<Finding> {
    let map = tree.file(MAP).map_or("", |file| file.text.as_str());
    let listed: BTreeSet<&str> =
        section(map, UNSAFE).split('`').skip(1).step_by(2).filter(|path| path.contains(".rs")).collect();
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for file in tree.sources() {
        let code = without_prose(&file.text);
        let Some(at) = code.lines().position(|line| has_word(line, "unsafe")) else { continue };
        used.insert(file.path.as_str());
        if !listed.contains(file.path.as_str()) {
            let what = format!("unsafe in a file that {MAP} does not list for it");
            findings.push(Finding::new(&file.path, at + 1, "unsafe", what));
        }
    }
    for path in listed.difference(&used) {
        findings.push(Finding::new(MAP, line_of(map, path), "unsafe", format!("`{path}` is listed and has no unsafe")));
    }
    findings
}

/// Returns the text below a heading of that name, up to the next heading.
fn section<'a>(markdown: &'a str, name: &str) -> &'a str {
    let mut rest = markdown;
    while let Some((_, after)) = rest.split_once("\n#") {
        let (heading, body) = after.split_once('\n').unwrap_or((after, ""));
        if heading.trim_start_matches('#').trim().starts_with(name) {
            return body.split("\n#").next().unwrap_or(body);
        }
        rest = after;
    }
    ""
}

fn line_of(text: &str, what: &str) -> usize {
    text.lines().position(|line| line.contains(what)).map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_is_not_on_the_map_is_found_and_one_that_is_not_there_too() {
        let tree = Tree::of(&[(MAP, "# Map\n`crates/store/` and\n`crates/gone`\n"), ("crates/store/Cargo.toml", "")])
            .package("windlass-store", "crates/store", &[])
            .package("windlass-layer", "crates/layer", &[]);
        let found: Vec<_> = crates(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "crates/layer/Cargo.toml:1: map: `crates/layer` is not in ARCHITECTURE.md",
                "ARCHITECTURE.md:3: map: `crates/gone` is on the map and not there",
            ]
        );
        assert_eq!(crates(&Tree::default()).len(), 1);
    }

    #[test]
    fn unsafe_is_found_outside_of_the_list_and_the_list_is_held_to_be_short() {
        let map = "# Map\n### Unsafe code\n- `a.rs`: why\n- `b.rs`: why\n## Next\n`c.rs`\n";
        let tree =
            Tree::of(&[(MAP, map), ("a.rs", "unsafe {}"), ("b.rs", "// unsafe\n"), ("c.rs", "\nunsafe fn f() {}")]);
        let found: Vec<_> = unsafe_files(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "c.rs:2: unsafe: unsafe in a file that ARCHITECTURE.md does not list for it",
                "ARCHITECTURE.md:4: unsafe: `b.rs` is listed and has no unsafe",
            ]
        );
    }
}
