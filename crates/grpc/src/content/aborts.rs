//! Aborting an ingest under its writer, as containerd lets its clients do it.
//!
//! They also abort right behind closing a writer, whose end may not have been seen here yet. In the contract a writer keeps what it
//! writes, so a writer of that is not in the table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_core::Namespace;
use windlass_core::content::IngestRef;

/// How long a conversation may take to end: one whose client reads no answers does not go on.
const PATIENCE: Duration = Duration::from_secs(5);

type Key = (Namespace, IngestRef);

/// The conversations that another call may end.
#[derive(Clone, Default)]
pub(super) struct Aborts(Arc<Table>);

#[derive(Default)]
struct Table {
    open: Mutex<HashMap<Key, Arc<Notify>>>,
    closed: Notify,
}

/// A conversation that another call may end; dropping it says that it has ended.
pub(super) struct Abortable {
    key: Key,
    asked: Arc<Notify>,
    table: Arc<Table>,
}

impl Aborts {
    /// Enters a conversation, which has the writer of that ingest.
    pub(super) fn enter(&self, namespace: Namespace, ingest: IngestRef) -> Abortable {
        let (key, asked) = ((namespace, ingest), Arc::new(Notify::new()));
        self.0.open().insert(key.clone(), asked.clone());
        Abortable { key, asked, table: self.0.clone() }
    }

    /// Asks the conversation about an ingest to end, if there is one, and waits for that; not for ever.
    pub(super) async fn end(&self, namespace: Namespace, ingest: IngestRef) {
        let key = (namespace, ingest);
        let Some(asked) = self.0.open().get(&key).cloned() else { return };
        asked.notify_one();
        let ended = async {
            loop {
                let closed = self.0.closed.notified();
                tokio::pin!(closed);
                closed.as_mut().enable();
                if !self.0.is_open(&key, &asked) {
                    return;
                }
                closed.await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }
}

impl Abortable {
    /// Waits until somebody wants the conversation to end.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }
}

impl Drop for Abortable {
    fn drop(&mut self) {
        let mut open = self.table.open();
        // The ref may be in another conversation already.
        if open.get(&self.key).is_some_and(|there| Arc::ptr_eq(there, &self.asked)) {
            open.remove(&self.key);
        }
        drop(open);
        self.table.closed.notify_waiters();
    }
}

impl Table {
    fn open(&self) -> MutexGuard<'_, HashMap<Key, Arc<Notify>>> {
        // Every change is one insertion or removal: it is whole whatever panicked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self, key: &Key, asked: &Arc<Notify>) -> bool {
        self.open().get(key).is_some_and(|there| Arc::ptr_eq(there, asked))
    }
}
