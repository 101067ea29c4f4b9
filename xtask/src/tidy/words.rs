//! Words: a module is named after what it serves.

use std::path::Path;

use super::Finding;
use super::tree::Tree;

/// Names that say nothing, for modules and folders.
const EMPTY: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "types"];

/// No module is called what any module could be called.
pub(super) fn modules(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.sources() {
        let parts = Path::new(&file.path).with_extension("");
        let empty = parts.iter().filter_map(|part| part.to_str()).find(|part| EMPTY.contains(part));
        if let Some(name) = empty {
            findings.push(Finding::new(
                &file.path,
                1,
                "words",
                format!("`{name}` could be anything: say what it serves"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_name_is_found_for_files_and_folders() {
        let tree = Tree::of(&[("a/src/utils.rs", ""), ("a/tests/it/common/mod.rs", ""), ("a/src/media_type.rs", "")]);
        assert_eq!(modules(&tree).len(), 2);
    }
}
