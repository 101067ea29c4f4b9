//! The kinds of problems: one variant each, with what identifies the object.

use serde::Serialize;

use crate::digest::Digest;
use crate::image;
use crate::namespace::Namespace;
use crate::snapshot::{State, Usage};

mod meaning;
mod text;

/// What is wrong, with which object. `docs/fsck.md` lists the kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// A database cannot be read, or not in full.
    DatabaseDamaged {
        /// The file, relative to the root.
        file: String,
        /// What was found.
        detail: String,
    },
    /// The records of a snapshotter that has directories are gone.
    DatabaseMissing {
        /// The file, relative to the root.
        file: String,
    },
    /// A record does not decode.
    RecordDamaged {
        /// The file, relative to the root.
        file: String,
        /// The table.
        table: String,
        /// The key, its parts joined by `/`.
        key: String,
        /// What was found.
        detail: String,
    },
    /// The root was written without syncs, and the machine has been restarted since.
    WrittenWithoutSyncs,
    /// A blob that is recorded is not on the disk.
    BlobMissing {
        /// The blob.
        digest: Digest,
        /// The size that was recorded.
        size: u64,
    },
    /// A blob has another size than was recorded.
    BlobSize {
        /// The blob.
        digest: Digest,
        /// The size that was recorded.
        size: u64,
        /// The size on disk.
        found: u64,
    },
    /// The bytes of a blob have another digest.
    BlobDigest {
        /// The blob.
        digest: Digest,
        /// The size that was recorded.
        size: u64,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The bytes of a blob cannot be read.
    BlobUnreadable {
        /// The blob.
        digest: Digest,
        /// The size that was recorded.
        size: u64,
        /// What the system says.
        detail: String,
    },
    /// The record of a good blob has a wrong size.
    RecordSize {
        /// The namespace.
        namespace: Namespace,
        /// The blob.
        digest: Digest,
        /// The size that was recorded.
        recorded: u64,
        /// The size on disk.
        found: u64,
    },
    /// A blob has no record.
    BlobUnrecorded {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
    },
    /// A file lies where none of that name belongs.
    ForeignFile {
        /// The path, relative to the root.
        path: String,
        /// Its size.
        size: u64,
    },
    /// A temporary file was left behind.
    TemporaryFile {
        /// The path, relative to the root.
        path: String,
        /// Its size.
        size: u64,
    },
    /// An ingest does not say whose it is.
    IngestUnowned {
        /// The name of its directory.
        id: String,
        /// How much was written.
        size: u64,
    },
    /// Nobody holds an ingest, and nobody has touched it for a day.
    IngestAbandoned {
        /// The namespace.
        namespace: Namespace,
        /// The ref.
        #[serde(rename = "ref")]
        ingest: String,
        /// The name of its directory.
        id: String,
        /// How much was written.
        size: u64,
    },
    /// Records lie in a namespace that has no record itself.
    NamespaceUnrecorded {
        /// The namespace.
        namespace: Namespace,
    },
    /// What an image points at is not in its namespace.
    TargetMissing {
        /// The namespace.
        namespace: Namespace,
        /// The image.
        name: image::Name,
        /// What it points at.
        target: Digest,
        /// Its size.
        size: u64,
    },
    /// A manifest or an index does not keep what it refers to alive.
    ReferenceMissing {
        /// The namespace.
        namespace: Namespace,
        /// The document.
        digest: Digest,
        /// The labels that it lacks.
        labels: Vec<String>,
    },
    /// What a record refers to is not written down as it should be.
    LinksWrong {
        /// The namespace.
        namespace: Namespace,
        /// The object, as `kind/name`.
        node: String,
    },
    /// References are written down of an object that is not here.
    LinksDangling {
        /// The namespace.
        namespace: Namespace,
        /// The object, as `kind/name`.
        node: String,
    },
    /// That a snapshot stands on another is not written down.
    ChildMissing {
        /// The namespace.
        namespace: Namespace,
        /// The snapshotter.
        snapshotter: String,
        /// The parent.
        parent: String,
        /// The child.
        key: String,
    },
    /// A snapshot is said to stand on another, and does not.
    ChildDangling {
        /// The namespace.
        namespace: Namespace,
        /// The snapshotter.
        snapshotter: String,
        /// The parent.
        parent: String,
        /// The child.
        key: String,
    },
    /// A lease that is not here is said to hold something.
    ResourceDangling {
        /// The namespace.
        namespace: Namespace,
        /// The lease.
        lease: String,
        /// The object, as `kind/name`.
        node: String,
    },
    /// An image config says that its layers are unpacked, and they are not.
    SnapshotMissing {
        /// The namespace.
        namespace: Namespace,
        /// The snapshotter.
        snapshotter: String,
        /// The name of the snapshot.
        key: String,
    },
    /// A snapshot's parent has no record.
    ParentMissing {
        /// The namespace.
        namespace: Namespace,
        /// The snapshotter.
        snapshotter: String,
        /// The snapshot.
        key: String,
        /// The parent.
        parent: String,
    },
    /// A snapshot has a record in the store, and the snapshotter does not know it.
    SnapshotLost {
        /// The namespace.
        namespace: Namespace,
        /// The snapshotter.
        snapshotter: String,
        /// The snapshot.
        key: String,
        /// Its name in the snapshotter.
        inner: String,
        /// Its state.
        state: Kept,
    },
    /// The snapshotter has a snapshot that no record refers to.
    SnapshotUnrecorded {
        /// The snapshotter.
        snapshotter: String,
        /// Its name in the snapshotter.
        inner: String,
        /// What it takes up.
        size: u64,
    },
    /// A snapshot of a snapshotter stands on one that is not there.
    InnerParentMissing {
        /// The snapshotter.
        snapshotter: String,
        /// Its name in the snapshotter.
        inner: String,
        /// The parent's.
        parent: String,
    },
    /// A snapshot has no directory.
    DirectoryMissing {
        /// The snapshotter.
        snapshotter: String,
        /// Its name in the snapshotter.
        inner: String,
        /// The number of the directory.
        id: u64,
        /// Its state.
        state: Kept,
    },
    /// The tree of a committed snapshot is not what it was when it was committed.
    TreeChanged {
        /// The snapshotter.
        snapshotter: String,
        /// Its name in the snapshotter.
        inner: String,
        /// The number of the directory.
        id: u64,
        /// What was measured at the commit.
        recorded: Measured,
        /// What is there.
        found: Measured,
    },
    /// A snapshotter has a directory that belongs to no record.
    DirectoryUnrecorded {
        /// The snapshotter.
        snapshotter: String,
        /// The name of the directory.
        directory: String,
        /// What it takes up.
        size: u64,
    },
    /// The tables that a snapshotter derives from its records do not fit them.
    IndexWrong {
        /// The snapshotter.
        snapshotter: String,
        /// Which, and how.
        detail: String,
    },
    /// A mount shows layers that no snapshot keeps.
    MountStale {
        /// Where it is mounted.
        target: String,
        /// The snapshotter whose layers it shows.
        snapshotter: String,
    },
    /// The view of an image that was mounted is there, and the mount is not.
    ViewUnmounted {
        /// The namespace.
        namespace: Namespace,
        /// The snapshotter.
        snapshotter: String,
        /// The view.
        key: String,
    },
}

/// The state of a snapshot, in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Read-only layers.
    Committed,
    /// Something that is being written.
    Active,
    /// A read-only look at others.
    View,
}

impl From<State> for Kept {
    fn from(state: State) -> Self {
        match state {
            State::Active => Self::Active,
            State::View => Self::View,
            State::Committed => Self::Committed,
        }
    }
}

/// How much there is of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Measured {
    /// Inodes.
    pub inodes: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

impl From<Usage> for Measured {
    fn from(usage: Usage) -> Self {
        Self { inodes: usage.inodes, bytes: usage.bytes }
    }
}
