//! Blobs whose bytes are known to be wrong: the next writer brings them again, in place of what is there.
//!
//! What is there stays until the new bytes are verified and renamed over it, so that the only copy is never lost.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_core::Digest;

/// The blobs that are not to be believed. Kept in memory: it is the repair that knows, while it runs.
#[derive(Default)]
pub(crate) struct Condemned(Mutex<HashSet<Digest>>);

impl Condemned {
    /// Says that a blob's bytes are wrong.
    pub(crate) fn add(&self, digest: &Digest) {
        self.digests().insert(digest.clone());
    }

    /// Tells whether they are.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.digests().contains(digest)
    }

    /// Says that the right ones have come.
    pub(crate) fn remove(&self, digest: &Digest) {
        self.digests().remove(digest);
    }

    fn digests(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
