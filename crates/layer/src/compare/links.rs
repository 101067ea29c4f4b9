//! Files with several names: whose names are others in the upper tree.
//!
//! A layer can say that a name is one of a file that it has itself, and nothing of what is below it. So when the names of
//! a file are not those that it had, it is written with all of them.

use std::collections::{HashMap, HashSet};

use super::walk::Pair;

type File = (u64, u64);

/// What is to be known of one name.
struct Name {
    path: Vec<u8>,
    lower: Option<File>,
    upper: Option<File>,
}

/// Collects names of files that have several.
#[derive(Default)]
pub(super) struct Links {
    names: Vec<Name>,
}

impl Links {
    /// Takes note of a pair.
    pub(super) fn see(&mut self, pair: &Pair) {
        // What is gone leaves no name behind.
        let Some(upper) = pair.upper.as_ref().filter(|node| !node.is_directory()) else { return };
        let lower = pair.lower.as_ref().filter(|node| !node.is_directory());
        if upper.stat.st_nlink > 1 || lower.is_some_and(|node| node.stat.st_nlink > 1) {
            let (lower, upper) = (lower.map(super::stack::Node::file), Some(upper.file()));
            self.names.push(Name { path: pair.path.clone(), lower, upper });
        }
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
        let (lower, upper) = (groups(|name| name.lower), groups(|name| name.upper));
        let changed = |name: &&Name| {
            let had = name.lower.and_then(|file| lower.get(&file));
            let has = name.upper.and_then(|file| upper.get(&file));
            name.lower != name.upper && had != has
        };
        self.names.iter().filter(changed).map(|name| name.path.clone()).collect()
    }
}
