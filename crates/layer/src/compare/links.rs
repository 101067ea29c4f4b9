//! Files with several names: whose names are others in the upper tree.
//!
//! A layer can say that a name is one of a file that it has itself, and nothing of what is below it. So when the names of
//! a file are not those that it had, it is written with all of them. A name that is gone, or is another file's now, is said by
//! the layer in any case, and no reason to write those that are left.

use std::collections::{HashMap, HashSet};

use super::stack::Node;
use super::walk::Pair;

type File = (u64, u64);

/// What is to be known of one name.
struct Name {
    path: Vec<u8>,
    lower: Option<File>,
    upper: Option<File>,
    /// Whether it is not written for its own sake.
    kept: bool,
}

/// Collects names of files that have several.
#[derive(Default)]
pub(super) struct Links {
    names: Vec<Name>,
}

impl Links {
    /// Tells whether a pair is a matter of names at all.
    pub(super) fn concern(pair: &Pair) -> bool {
        let has_several =
            |node: &Option<Node>| node.as_ref().is_some_and(|node| !node.is_directory() && node.stat.st_nlink > 1);
        // What is gone leaves no name behind.
        pair.upper.as_ref().is_some_and(|node| !node.is_directory())
            && (has_several(&pair.upper) || has_several(&pair.lower))
    }

    /// Takes note of a pair, and whether the file is what it was.
    pub(super) fn see(&mut self, pair: Pair, kept: bool) {
        let file = |node: Option<Node>| node.filter(|node| !node.is_directory()).map(|node| node.file());
        self.names.push(Name { path: pair.path, lower: file(pair.lower), upper: file(pair.upper), kept });
    }

    /// Returns the names of all files that have not the names that they had.
    pub(super) fn changed(self) -> HashSet<Vec<u8>> {
        let groups = |file: fn(&Name) -> Option<File>| {
            let mut groups: HashMap<File, Vec<usize>> = HashMap::new();
            for (number, name) in self.names.iter().enumerate() {
                if let Some(file) = file(name) {
                    groups.entry(file).or_default().push(number);
                }
            }
            groups
        };
        let (lower, upper) = (groups(|name| name.lower.filter(|_| name.kept)), groups(|name| name.upper));
        let changed = |name: &&Name| {
            let had = name.lower.and_then(|file| lower.get(&file));
            let has = name.upper.and_then(|file| upper.get(&file));
            name.lower != name.upper && had != has
        };
        self.names.iter().filter(changed).map(|name| name.path.clone()).collect()
    }
}
