//! Finding an entry by its directory and name: a table of entries' numbers, four bytes each, at most three quarters full.

use std::hash::{BuildHasher as _, RandomState};

/// The place of an entry that is none.
const FREE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two of places.
    places: Vec<u32>,
    used: usize,
    hash: RandomState,
}

impl Index {
    /// Returns the number of the entry; `key` says what directory and name a number stands for.
    pub(super) fn find<'a>(&self, parent: u32, name: &[u8], key: impl Fn(u32) -> (u32, &'a [u8])) -> Option<u32> {
        let mut at = self.start(parent, name)?;
        loop {
            let found = *self.places.get(at)?;
            if found == FREE {
                return None;
            }
            if key(found) == (parent, name) {
                return Some(found);
            }
            at = (at + 1) & (self.places.len() - 1);
        }
    }

    /// Takes a number in whose key is not there yet.
    pub(super) fn insert<'a>(&mut self, number: u32, key: impl Fn(u32) -> (u32, &'a [u8])) {
        if (self.used + 1) * 4 > self.places.len() * 3 {
            let wider = (self.places.len() * 2).max(64);
            let old = std::mem::replace(&mut self.places, vec![FREE; wider]);
            for number in old.into_iter().filter(|number| *number != FREE) {
                self.put(number, key(number));
            }
        }
        self.put(number, key(number));
        self.used += 1;
    }

    pub(super) fn memory(&self) -> u64 {
        (self.places.len() * size_of::<u32>()) as u64
    }

    fn put(&mut self, number: u32, (parent, name): (u32, &[u8])) {
        let Some(mut at) = self.start(parent, name) else { return };
        loop {
            match self.places.get_mut(at) {
                Some(place) if *place == FREE => {
                    *place = number;
                    return;
                }
                Some(_) => at = (at + 1) & (self.places.len() - 1),
                None => return,
            }
        }
    }

    fn start(&self, parent: u32, name: &[u8]) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let hash = self.hash.hash_one((parent, name)) as usize;
        Some(hash & self.places.len().checked_sub(1)?)
    }
}
