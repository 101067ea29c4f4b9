//! The times that directories get when nothing is made in them any more.
//!
//! They are set at the end. Of a layer with very many directories they are set before, whenever there are enough: what is
//! remembered of those directories is a number each. One that is opened again, so that something may be made in it, has its
//! time, and it is noted again.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use crate::path::LayerPath;
use crate::tar::Timestamp;

/// How many times are remembered.
const REMEMBERED: usize = 1 << 14;

/// The times of directories.
#[derive(Debug, Default)]
pub(super) struct Times {
    root: Option<Timestamp>,
    remembered: BTreeMap<LayerPath, Timestamp>,
    /// Directories that have theirs, by a hash of their paths. One too many does no harm.
    set: HashSet<u64>,
    hash: RandomState,
}

impl Times {
    /// Notes what time a directory gets.
    pub(super) fn note(&mut self, path: &LayerPath, time: Timestamp) {
        if path.is_root() {
            self.root = Some(time);
        } else {
            self.remembered.insert(path.clone(), time);
        }
    }

    /// Notes it if nothing was noted before.
    pub(super) fn note_first(&mut self, path: &LayerPath, time: Timestamp) {
        if !path.is_root() && !self.remembered.contains_key(path) {
            self.remembered.insert(path.clone(), time);
        }
    }

    /// Tells whether there are directories that have their times already: whoever makes or removes something in a directory
    /// then has to say so before ([`Times::opened`]).
    pub(super) fn some_are_set(&self) -> bool {
        !self.set.is_empty()
    }

    /// Takes note of a directory in which something may change, and of the time that it has.
    pub(super) fn opened(&mut self, path: &LayerPath, time: Timestamp) {
        if self.some_are_set() && self.set.remove(&self.hash.hash_one(path)) {
            self.note_first(path, time);
        }
    }

    /// Forgets a directory that is gone.
    pub(super) fn forget(&mut self, path: &LayerPath) {
        self.remembered.remove(path);
        self.set.remove(&self.hash.hash_one(path));
    }

    /// Tells whether there are so many that they should be set.
    pub(super) fn are_many(&self) -> bool {
        self.remembered.len() >= REMEMBERED
    }

    /// Takes the time of the root.
    pub(super) fn take_root(&mut self) -> Option<Timestamp> {
        self.root.take()
    }

    /// Takes all others, to be set now.
    pub(super) fn take(&mut self) -> BTreeMap<LayerPath, Timestamp> {
        std::mem::take(&mut self.remembered)
    }

    /// Takes note that these are set, although more may come.
    pub(super) fn are_set<'a>(&mut self, paths: impl Iterator<Item = &'a LayerPath>) {
        self.set.extend(paths.map(|path| self.hash.hash_one(path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> LayerPath {
        LayerPath::clean(name.as_bytes()).unwrap()
    }

    fn time(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanoseconds: 0 }
    }

    #[test]
    fn what_was_set_is_noted_again_when_the_directory_is_opened_and_nothing_else_is() {
        let mut times = Times::default();
        times.note(&path("a"), time(1));
        times.note(&path(""), time(9));
        times.opened(&path("a"), time(5));
        times.note_first(&path("a"), time(2));
        let taken = times.take();
        assert_eq!(taken, [(path("a"), time(1))].into());
        times.are_set(taken.keys());
        times.opened(&path("b"), time(6));
        times.opened(&path("a"), time(1));
        times.opened(&path("a"), time(7));
        assert_eq!(times.take(), [(path("a"), time(1))].into());
        assert_eq!((times.take_root(), times.take().len()), (Some(time(9)), 0));
    }

    #[test]
    fn there_are_many_at_a_number() {
        let mut times = Times::default();
        for number in 0..REMEMBERED {
            assert!(!times.are_many());
            times.note(&path(&number.to_string()), time(0));
        }
        assert!(times.are_many());
        times.take();
        assert!(!times.are_many());
    }
}
