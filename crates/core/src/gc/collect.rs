//! Collections: what one removed, what the next one would remove, and what keeps the rest.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::Serialize;

use super::Node;
use crate::error::Result;
use crate::namespace::Namespace;
use crate::{lease, timestamp};

/// How much of one kind was collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many objects.
    pub count: u64,
    /// How many bytes on disk they took up.
    pub bytes: u64,
}

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Leases that had expired.
    pub leases: u64,
    /// Images that had expired.
    pub images: u64,
    /// Records of blobs, of all namespaces.
    pub contents: u64,
    /// Blobs.
    pub blobs: Tally,
    /// Snapshots of all snapshotters.
    pub snapshots: Tally,
    /// Ingests that were given up.
    pub ingests: Tally,
    /// How long it took to read the graph and to mark, which nobody waits for.
    pub marking: Duration,
    /// How long writers had to wait, all in all.
    pub pause: Duration,
    /// How long they had to wait at a time.
    pub longest_pause: Duration,
    /// When the next thing expires by itself: a lease, an image, a blob that is held until then, an ingest.
    pub next_expiry: Option<SystemTime>,
}

impl Collected {
    /// Returns how many bytes were freed.
    pub fn bytes(&self) -> u64 {
        self.blobs.bytes + self.snapshots.bytes + self.ingests.bytes
    }
}

impl Tally {
    /// Adds one object of that size.
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Something that a collection would remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doomed {
    /// What it is.
    pub kind: DoomedKind,
    /// The namespace whose record goes; none for bytes that have no record.
    pub namespace: Option<Namespace>,
    /// Which one: a digest, a key, a name, an id or an ingest ref; `snapshotter/key` for a snapshot.
    pub id: String,
    /// How many bytes on disk go with it; none when another namespace keeps them.
    pub bytes: u64,
}

/// What a collection removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DoomedKind {
    /// A lease that has expired.
    Lease,
    /// An image that has expired.
    Image,
    /// A blob.
    Content,
    /// A snapshot.
    Snapshot,
    /// An ingest that was given up.
    Ingest,
}

/// What keeps an object alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Why the first node of the path needs nothing that refers to it.
    pub reason: PinReason,
    /// From the root to the object; each keeps the next alive.
    pub path: Vec<Node>,
}

/// Why something is a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinReason {
    /// It is an image or a container.
    Record,
    /// It has the label `containerd.io/gc.root`.
    RootLabel,
    /// The label `containerd.io/gc.expire` holds it until then.
    Until(#[serde(with = "timestamp")] SystemTime),
    /// The lease holds it.
    Lease(lease::Id),
}

/// Removes what nothing refers to, in all namespaces, and explains itself.
#[async_trait]
pub trait Collector: Send + Sync {
    /// Removes what nothing refers to, and says what that was. Who asks while a collection runs shares the one after it.
    ///
    /// # Errors
    /// What went wrong first and how often, after everything that could be collected was.
    ///
    /// # Cancel safety
    /// A collection goes on when the call is dropped.
    async fn collect(&self) -> Result<Collected>;

    /// Says what [`Collector::collect`] would remove now, and changes nothing.
    async fn plan(&self) -> Result<Vec<Doomed>>;

    /// Finds what keeps an object of a namespace from being collected; `None` when nothing does.
    ///
    /// # Errors
    /// `NotFound` when the object is not there.
    async fn why(&self, namespace: &Namespace, object: &Node) -> Result<Option<Pin>>;
}
