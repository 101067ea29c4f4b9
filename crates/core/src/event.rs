//! Events: what happened to which object, for whoever subscribes. Topics are containerd's.

use std::time::SystemTime;

use async_trait::async_trait;

use crate::any::Any;
use crate::digest::Digest;
use crate::error::Result;
use crate::filter::{Fields, Filter};
use crate::label::Labels;
use crate::namespace::Namespace;
use crate::{Listing, image, snapshot};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A blob was committed.
    ContentCreate {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A blob's record was deleted.
    ContentDelete {
        /// The blob.
        digest: Digest,
    },
    /// An image was recorded.
    ImageCreate {
        /// The image.
        name: image::Name,
        /// Its labels.
        labels: Labels,
    },
    /// An image's record changed.
    ImageUpdate {
        /// The image.
        name: image::Name,
        /// Its labels.
        labels: Labels,
    },
    /// An image's record was deleted.
    ImageDelete {
        /// The image.
        name: image::Name,
    },
    /// A namespace was created.
    NamespaceCreate {
        /// The namespace.
        name: Namespace,
        /// Its labels.
        labels: Labels,
    },
    /// A namespace's labels changed.
    NamespaceUpdate {
        /// The namespace.
        name: Namespace,
        /// Its labels.
        labels: Labels,
    },
    /// A namespace was deleted.
    NamespaceDelete {
        /// The namespace.
        name: Namespace,
    },
    /// A snapshot was begun.
    SnapshotPrepare {
        /// The snapshotter.
        snapshotter: String,
        /// The snapshot.
        key: snapshot::Key,
        /// What it stands on.
        parent: Option<snapshot::Name>,
    },
    /// A snapshot was committed.
    SnapshotCommit {
        /// The snapshotter.
        snapshotter: String,
        /// What it was.
        key: snapshot::Key,
        /// What it is now.
        name: snapshot::Name,
    },
    /// A snapshot was removed.
    SnapshotRemove {
        /// The snapshotter.
        snapshotter: String,
        /// The snapshot.
        key: snapshot::Key,
    },
    /// Something else, from a client or a shim.
    Other {
        /// The topic.
        topic: String,
        /// The payload.
        payload: Any,
    },
}

impl Event {
    /// Returns the topic that the event is published under.
    pub fn topic(&self) -> &str {
        match self {
            Self::ContentCreate { .. } => "/content/create",
            Self::ContentDelete { .. } => "/content/delete",
            Self::ImageCreate { .. } => "/images/create",
            Self::ImageUpdate { .. } => "/images/update",
            Self::ImageDelete { .. } => "/images/delete",
            Self::NamespaceCreate { .. } => "/namespaces/create",
            Self::NamespaceUpdate { .. } => "/namespaces/update",
            Self::NamespaceDelete { .. } => "/namespaces/delete",
            Self::SnapshotPrepare { .. } => "/snapshot/prepare",
            Self::SnapshotCommit { .. } => "/snapshot/commit",
            Self::SnapshotRemove { .. } => "/snapshot/remove",
            Self::Other { topic, .. } => topic,
        }
    }
}

/// An event with when and where it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// When.
    pub timestamp: SystemTime,
    /// In which namespace.
    pub namespace: Namespace,
    /// What.
    pub event: Event,
}

impl Fields for Envelope {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["namespace"] => Some(self.namespace.to_string()),
            ["topic"] => Some(self.event.topic().to_owned()),
            _ => None,
        }
    }
}

/// Takes events; never waits for a subscriber.
pub trait Publisher: Send + Sync {
    /// Publishes an event to whoever subscribes now.
    fn publish(&self, envelope: Envelope);
}

/// Gives events.
#[async_trait]
pub trait Subscriber: Send + Sync {
    /// Returns the events from now on that match any of the filters. A subscriber that is too slow gets an error that
    /// says how many it missed, and the stream goes on.
    async fn subscribe(&self, filters: &[Filter]) -> Result<Listing<Envelope>>;
}
