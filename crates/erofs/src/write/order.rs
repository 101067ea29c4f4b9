//! The names of a tree, directory by directory in the order of their bytes.

use std::ops::Range;

use crate::tree::{Entry, NONE, Tree};

/// The entries that stand for something, sorted.
pub(super) struct Order {
    entries: Vec<u32>,
}

impl Order {
    pub(super) fn of(tree: &Tree) -> Self {
        let numbers = 0..u32::try_from(tree.entries.len()).unwrap_or(NONE);
        let key = |at: &u32| tree.entries.get(*at as usize).map(|entry| (entry.parent, tree.name(entry)));
        let live = |at: &u32| tree.entries.get(*at as usize).is_some_and(|entry| entry.inode != NONE);
        let mut entries: Vec<u32> = numbers.filter(live).collect();
        entries.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        Self { entries }
    }

    /// Returns which of the entries are in a directory.
    pub(super) fn range(&self, tree: &Tree, directory: u32) -> Range<usize> {
        let parent = |at: &u32| tree.entries.get(*at as usize).map_or(NONE, |entry| entry.parent);
        let start = self.entries.partition_point(|at| parent(at) < directory);
        let rest = self.entries.get(start..).unwrap_or_default();
        start..start + rest.partition_point(|at| parent(at) == directory)
    }

    /// Returns entries of a range.
    pub(super) fn entries<'t>(&self, tree: &'t Tree, range: Range<usize>) -> impl Iterator<Item = &'t Entry> {
        let numbers = self.entries.get(range).unwrap_or_default();
        numbers.iter().filter_map(|at| tree.entries.get(*at as usize))
    }
}

/// What a directory lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'t> {
    pub(super) name: &'t [u8],
    pub(super) inode: u32,
}

/// Lists a directory with `.` and `..`, which have no place of their own in the order.
pub(super) fn listing<'a>(
    tree: &'a Tree,
    order: &'a Order,
    directory: u32,
    range: Range<usize>,
) -> impl Iterator<Item = Listed<'a>> {
    let parent = tree.inodes.get(directory as usize).map_or(0, |record| u32::try_from(record.size).unwrap_or(0));
    let mut own =
        [Listed { name: b".", inode: directory }, Listed { name: b"..", inode: parent }].into_iter().peekable();
    let mut names =
        order.entries(tree, range).map(|entry| Listed { name: tree.name(entry), inode: entry.inode }).peekable();
    std::iter::from_fn(move || match (own.peek(), names.peek()) {
        (Some(one), Some(other)) if other.name < one.name => names.next(),
        (Some(_), _) => own.next(),
        (None, _) => names.next(),
    })
}
