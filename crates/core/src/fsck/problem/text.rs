//! Problems in words.

use std::fmt;

use super::Problem;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DatabaseDamaged { file, detail } => write!(f, "the database {file} is damaged: {detail}"),
            Self::DatabaseMissing { file } => write!(f, "the database {file} is gone"),
            Self::RecordDamaged { file, table, key, detail } => {
                write!(f, "record {key} of {table} in {file} is damaged: {detail}")
            }
            Self::WrittenWithoutSyncs => {
                f.write_str("the root was written without syncs, and the machine has been restarted since")
            }
            Self::BlobMissing { digest, .. } => write!(f, "blob {digest} is recorded and not on the disk"),
            Self::BlobSize { digest, size, found } => {
                write!(f, "blob {digest} has {found} bytes on disk, {size} were stored")
            }
            Self::BlobDigest { digest, found, .. } => write!(f, "blob {digest} has bytes of digest {found}"),
            Self::BlobUnreadable { digest, detail, .. } => write!(f, "blob {digest} cannot be read: {detail}"),
            Self::RecordSize { namespace, digest, recorded, found } => {
                write!(f, "the record of blob {digest} in namespace {namespace} says {recorded} bytes, it has {found}")
            }
            Self::BlobUnrecorded { digest, .. } => write!(f, "blob {digest} has no record"),
            Self::ForeignFile { path, .. } => write!(f, "{path} is not one of our files"),
            Self::TemporaryFile { path, .. } => write!(f, "{path} was left by a crash"),
            Self::IngestUnowned { id, .. } => write!(f, "ingest directory {id} does not say whose it is"),
            Self::IngestAbandoned { namespace, ingest, .. } => {
                write!(f, "ingest {ingest} of namespace {namespace} is held by nobody and older than a day")
            }
            Self::NamespaceUnrecorded { namespace } => write!(f, "namespace {namespace} has records and none itself"),
            Self::TargetMissing { namespace, name, target, .. } => {
                write!(f, "image {name} points at {target}, which is not in namespace {namespace}")
            }
            Self::ReferenceMissing { namespace, digest, labels } => {
                write!(f, "{digest} in namespace {namespace} lacks the labels {}", labels.join(", "))
            }
            Self::LinksWrong { namespace, node } => {
                write!(f, "what {node} of namespace {namespace} refers to is not written down right")
            }
            Self::LinksDangling { namespace, node } => {
                write!(f, "references are written down of {node}, which is not in namespace {namespace}")
            }
            Self::ResourceDangling { namespace, lease, node } => {
                write!(f, "{node} is said to be held by lease {lease}, which is not in namespace {namespace}")
            }
            _ => self.fmt_of_snapshots(f),
        }
    }
}

impl Problem {
    /// Writes what is wrong with snapshots and their mounts.
    fn fmt_of_snapshots(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChildMissing { namespace, snapshotter, parent, key } => {
                write!(
                    f,
                    "snapshot {key} of {snapshotter} is no child of {parent} in namespace {namespace}, and should be"
                )
            }
            Self::ChildDangling { namespace, snapshotter, parent, key } => {
                write!(
                    f,
                    "snapshot {key} of {snapshotter} is a child of {parent} in namespace {namespace}, and should not"
                )
            }
            Self::SnapshotMissing { namespace, snapshotter, key } => {
                write!(f, "snapshot {key} of {snapshotter} is wanted by an image and not in namespace {namespace}")
            }
            Self::ParentMissing { namespace, snapshotter, key, parent } => {
                write!(f, "snapshot {key} of {snapshotter} stands on {parent}, which is not in namespace {namespace}")
            }
            Self::SnapshotLost { namespace, snapshotter, key, .. } => {
                write!(f, "snapshotter {snapshotter} has lost snapshot {key} of namespace {namespace}")
            }
            Self::SnapshotUnrecorded { snapshotter, inner, .. } => {
                write!(f, "snapshotter {snapshotter} has {inner}, which no record refers to")
            }
            Self::InnerParentMissing { snapshotter, inner, parent } => {
                write!(f, "snapshotter {snapshotter} has {inner} on {parent}, which it has not")
            }
            Self::DirectoryMissing { snapshotter, inner, id, .. } => {
                write!(f, "snapshotter {snapshotter} has lost directory {id} of {inner}")
            }
            Self::TreeChanged { snapshotter, inner, id, recorded, found } => write!(
                f,
                "directory {id} of {inner} in {snapshotter} has {} inodes and {} bytes, it was committed with {} and {}",
                found.inodes, found.bytes, recorded.inodes, recorded.bytes
            ),
            Self::DirectoryUnrecorded { snapshotter, directory, .. } => {
                write!(f, "directory {directory} of snapshotter {snapshotter} belongs to no snapshot")
            }
            Self::IndexWrong { snapshotter, detail } => {
                write!(f, "the records of snapshotter {snapshotter} contradict each other: {detail}")
            }
            Self::MountStale { target, snapshotter } => {
                write!(f, "the mount on {target} shows layers of {snapshotter} that no snapshot keeps")
            }
            Self::ViewUnmounted { namespace, key, .. } => {
                write!(f, "view {key:?} of namespace {namespace} is not mounted any more")
            }
            // Written by the caller.
            _ => Ok(()),
        }
    }
}
