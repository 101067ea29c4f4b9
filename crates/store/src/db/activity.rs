//! What goes on in the database, for garbage collection: how much changed, what became referred to, what ends when.
//!
//! A collection marks what is reachable in the last commit while writers go on. Whatever becomes reachable meanwhile does
//! so by a write, and every such write notes its nodes here: [`Activity::watch`] begins to keep them, and the collection
//! takes them before each of its removals, in the same order as everybody's changes (that of the writer thread).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

/// The activity of one database.
#[derive(Default)]
pub(crate) struct Activity {
    /// Changes and deletions since the store was opened.
    mutations: AtomicU64,
    deletions: AtomicU64,
    changed: Notify,
    /// The nodes that became referred to since a collection began to watch.
    noted: Mutex<Option<Vec<String>>>,
    /// The earliest time at which something that was written since the last look ends.
    ends: Mutex<Option<SystemTime>>,
}

/// How much has happened since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) mutations: u64,
    pub(crate) deletions: u64,
}

impl Activity {
    /// Begins to keep the nodes that become referred to, until the guard is dropped.
    pub(crate) fn watch(&self) -> Watch<'_> {
        *lock(&self.noted) = Some(Vec::new());
        Watch(self)
    }

    /// Notes that a node, `namespace \0 node`, becomes referred to or is written.
    pub(crate) fn touch(&self, node: impl FnOnce() -> String) {
        if let Some(noted) = &mut *lock(&self.noted) {
            noted.push(node());
        }
    }

    /// Takes the nodes that were noted since the last call.
    pub(crate) fn take_noted(&self) -> Vec<String> {
        lock(&self.noted).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Notes that something was written that ends at a time.
    pub(crate) fn ends(&self, at: SystemTime) {
        let mut ends = lock(&self.ends);
        *ends = Some(ends.map_or(at, |earlier| earlier.min(at)));
    }

    /// Returns the earliest end that was noted since the last call.
    pub(crate) fn take_ends(&self) -> Option<SystemTime> {
        lock(&self.ends).take()
    }

    /// Counts changes that were committed.
    pub(super) fn committed(&self, mutations: u64, deletions: u64) {
        self.mutations.fetch_add(mutations, Ordering::Relaxed);
        self.deletions.fetch_add(deletions, Ordering::Relaxed);
        if mutations > 0 {
            self.changed.notify_one();
        }
    }

    /// Returns how much has happened.
    pub(crate) fn count(&self) -> Count {
        Count { mutations: self.mutations.load(Ordering::Relaxed), deletions: self.deletions.load(Ordering::Relaxed) }
    }

    /// Returns when something has changed since the last time somebody waited.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A collection that keeps what becomes referred to; one at a time.
pub(crate) struct Watch<'a>(&'a Activity);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        *lock(&self.0.noted) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one assignment: the value is whole whatever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
