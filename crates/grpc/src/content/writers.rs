//! The open writers of a client, so that it sees what it did itself: a writer does not wait for the answers to what it sends, so a
//! call about its ingest could overtake it, and a writer that is dropped cannot wait at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tonic::Status;
use windlass_core::Namespace;
use windlass_core::content::IngestRef;
use windlass_proto::containerd::services::content::v1 as wire;

/// The open writers of a client, by what they write. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Writers(Arc<Mutex<List>>);

/// Whose each conversation is.
type Key = (Namespace, IngestRef);
type List = BTreeMap<Key, Arc<Conversation>>;

/// What is known of a conversation with a daemon about one ingest.
pub(super) struct Conversation {
    /// How many messages were sent.
    sent: AtomicU64,
    /// Whether the writer is gone: its ref is free when the conversation has ended.
    left: AtomicBool,
    progress: watch::Sender<Progress>,
}

/// How far the daemon is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// How many messages were answered.
    pub(super) answered: u64,
    /// What the last answer says.
    pub(super) last: wire::WriteContentResponse,
    /// How it ended, when it has.
    pub(super) end: Option<Result<(), Status>>,
}

impl Conversation {
    /// Begins with the answer to the first message.
    pub(super) fn begin(first: wire::WriteContentResponse) -> Arc<Self> {
        let progress = Progress { answered: 1, last: first, end: None };
        Arc::new(Self { sent: AtomicU64::new(1), left: AtomicBool::new(false), progress: watch::Sender::new(progress) })
    }

    /// Notes that a message was sent, and returns how many that makes.
    pub(super) fn send_one(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub(super) fn answered(&self, answer: wire::WriteContentResponse) {
        self.progress.send_modify(|progress| {
            progress.answered += 1;
            progress.last = answer;
        });
    }

    fn ended(&self, end: Result<(), Status>) {
        self.progress.send_modify(|progress| progress.end = Some(end));
    }

    /// Waits until something holds of the progress, or the conversation has ended.
    pub(super) async fn until(&self, holds: impl Fn(&Progress) -> bool) -> Progress {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.end.is_some() || holds(progress)).await;
        // The sender is this value's own, and lives.
        reached.map(|progress| progress.clone()).unwrap_or_default()
    }

    /// Waits until all that was sent so far is answered, and for the end when there is no more to come.
    async fn settled(&self) {
        let sent = self.sent();
        self.until(|progress| progress.answered >= sent && !self.left.load(Ordering::SeqCst)).await;
    }

    /// Notes that the writer is gone.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
    }
}

/// A conversation in the list, until it has ended.
pub(super) struct Listed {
    writers: Writers,
    key: Key,
    conversation: Arc<Conversation>,
}

impl Listed {
    /// Notes how the conversation ended, and takes it out of the list.
    pub(super) fn end(self, end: Result<(), Status>) {
        self.conversation.ended(end);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut writers = self.writers.lock();
        if writers.get(&self.key).is_some_and(|listed| Arc::ptr_eq(listed, &self.conversation)) {
            writers.remove(&self.key);
        }
        drop(writers);
        // Also when the runtime ends before the conversation does.
        let unended = self.conversation.progress.borrow().end.is_none();
        if unended {
            self.conversation.ended(Err(Status::cancelled("the runtime is shutting down")));
        }
    }
}

impl Writers {
    // A panic while the lock was held cannot leave a half-made state behind: every change is one call.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(&self, namespace: Namespace, ingest: IngestRef, conversation: Arc<Conversation>) -> Listed {
        let key = (namespace, ingest);
        self.lock().insert(key.clone(), conversation.clone());
        Listed { writers: self.clone(), key, conversation }
    }

    /// Waits until the daemon has done what the writers of one ingest, or of a namespace, sent so far.
    pub(super) async fn settled(&self, namespace: &Namespace, ingest: Option<&IngestRef>) {
        let concerned: Vec<_> = self
            .lock()
            .iter()
            .filter(|((of, name), _)| of == namespace && ingest.is_none_or(|ingest| ingest == name))
            .map(|(_, conversation)| conversation.clone())
            .collect();
        for conversation in concerned {
            conversation.settled().await;
        }
    }
}
