//! Which ingests have a writer: the lock of an ingest ref within the process.
//!
//! Between processes the root lock excludes; should a root be shared one day, a lock file in the ingest's directory is
//! taken in [`OpenRefs::claim`] and nowhere else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use windlass_core::content::{IngestRef, Status};
use windlass_core::{Namespace, Scope, lease};

/// The table of ingests that have a writer, by the name of their directory.
#[derive(Clone, Default)]
pub(super) struct OpenRefs(Arc<Inner>);

#[derive(Default)]
struct Inner {
    writers: Mutex<HashMap<String, Entry>>,
    changed: Notify,
}

struct Entry {
    since: Instant,
    offset: Arc<AtomicU64>,
    /// The writer was dropped, and what it had in memory is being written.
    closing: bool,
    /// What is said of an ingest of which nothing is on the disk yet.
    announced: Option<Announced>,
}

/// An ingest of which nothing is on the disk yet.
#[derive(Clone)]
struct Announced {
    /// Who opened it: the lease holds it, and has no record of that.
    scope: Scope,
    status: Status,
}

/// Whose an ingest is, and where it stands.
pub(super) type Owned = (Namespace, Status);

/// The lock of one ingest; dropping it unlocks.
pub(crate) struct Held {
    id: String,
    offset: Arc<AtomicU64>,
    table: OpenRefs,
}

/// What is known of a writer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) age: Duration,
    pub(super) offset: u64,
}

impl OpenRefs {
    /// Locks an ingest, or says who has it. A writer that is closing is waited for.
    pub(super) async fn claim(&self, id: &str) -> Result<Held, Holder> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.try_claim(id) {
                Err(None) => changed.await,
                Err(Some(holder)) => return Err(holder),
                Ok(held) => return Ok(held),
            }
        }
    }

    /// Locks an ingest; `Err(None)` while a writer is closing.
    fn try_claim(&self, id: &str) -> Result<Held, Option<Holder>> {
        let mut writers = self.writers();
        if let Some(entry) = writers.get(id) {
            return Err((!entry.closing).then(|| entry.holder()));
        }
        let offset = Arc::new(AtomicU64::new(0));
        let entry = Entry { since: Instant::now(), offset: offset.clone(), closing: false, announced: None };
        writers.insert(id.to_owned(), entry);
        Ok(Held { id: id.to_owned(), offset, table: self.clone() })
    }

    /// Returns what is known of the writer of an ingest, after one that is closing has closed.
    pub(super) async fn holder(&self, id: &str) -> Option<Holder> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.writers().get(id) {
                None => return None,
                Some(entry) if !entry.closing => return Some(entry.holder()),
                Some(_) => {}
            }
            changed.await;
        }
    }

    /// Returns what is said of an ingest that has a writer and of which nothing is on the disk yet.
    pub(super) fn announced(&self, id: &str) -> Option<Owned> {
        self.writers().get(id).and_then(Entry::announced)
    }

    /// Returns what is said of all of them, by the name that their directory will have.
    pub(super) fn all_announced(&self) -> Vec<(String, Owned)> {
        self.writers().iter().filter_map(|(id, entry)| Some((id.clone(), entry.announced()?))).collect()
    }

    /// Returns those of them that a lease holds.
    pub(super) fn announced_for(&self, namespace: &Namespace, lease: &lease::Id) -> Vec<IngestRef> {
        let writers = self.writers();
        let all = writers.values().filter_map(|entry| entry.announced.as_ref());
        let held = all.filter(|it| it.scope.namespace == *namespace && it.scope.lease.as_ref() == Some(lease));
        held.map(|it| it.status.ingest.clone()).collect()
    }

    fn writers(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Every change of the table is one insertion or removal: it is whole whatever panicked.
        self.0.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn holder(&self) -> Holder {
        Holder { age: self.since.elapsed(), offset: self.offset.load(Ordering::Relaxed) }
    }

    fn announced(&self) -> Option<Owned> {
        let Announced { scope, mut status } = self.announced.clone()?;
        status.offset = self.offset.load(Ordering::Relaxed);
        Some((scope.namespace, status))
    }
}

impl Held {
    /// Tells others how far the writer is.
    pub(super) fn set_offset(&self, offset: u64) {
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Returns what [`Held::set_offset`] sets, for whoever gets further without the lock in hand.
    pub(super) fn offset(&self) -> Arc<AtomicU64> {
        self.offset.clone()
    }

    /// Tells others of an ingest of which nothing is on the disk yet.
    pub(super) fn announce(&self, scope: Scope, status: Status) {
        if let Some(entry) = self.table.writers().get_mut(&self.id) {
            entry.announced = Some(Announced { scope, status });
        }
    }

    /// Tells others that the lock will be free in a moment.
    pub(super) fn closing(&self) {
        if let Some(entry) = self.table.writers().get_mut(&self.id) {
            entry.closing = true;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.table.writers().remove(&self.id);
        self.table.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_claim_learns_about_the_first_and_waits_only_for_one_that_is_closing() {
        let table = OpenRefs::default();
        let held = table.claim("a").await.unwrap_or_else(|_| panic!("free"));
        held.set_offset(7);
        assert_eq!(table.claim("a").await.err().unwrap().offset, 7);
        held.closing();
        let waiting = tokio::spawn({
            let table = table.clone();
            async move { table.claim("a").await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
