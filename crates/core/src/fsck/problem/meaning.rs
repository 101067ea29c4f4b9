//! What a problem means: how bad it is, what is done about it, what follows from it.

use super::{Kept, Problem};
use crate::fsck::{Remedy, Severity};

impl Problem {
    /// Returns how bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::DatabaseDamaged { .. }
            | Self::DatabaseMissing { .. }
            | Self::RecordDamaged { .. }
            | Self::BlobMissing { .. }
            | Self::BlobSize { .. }
            | Self::BlobDigest { .. }
            | Self::BlobUnreadable { .. }
            | Self::TargetMissing { .. }
            | Self::SnapshotMissing { .. }
            | Self::SnapshotLost { .. }
            | Self::InnerParentMissing { .. }
            | Self::DirectoryMissing { .. }
            | Self::TreeChanged { .. } => Severity::Damage,
            Self::RecordSize { .. }
            | Self::NamespaceUnrecorded { .. }
            | Self::ReferenceMissing { .. }
            | Self::LinksWrong { .. }
            | Self::ChildMissing { .. }
            | Self::ParentMissing { .. }
            | Self::WrittenWithoutSyncs
            | Self::IndexWrong { .. } => Severity::Inconsistency,
            Self::BlobUnrecorded { .. }
            | Self::ForeignFile { .. }
            | Self::TemporaryFile { .. }
            | Self::IngestUnowned { .. }
            | Self::IngestAbandoned { .. }
            | Self::LinksDangling { .. }
            | Self::ChildDangling { .. }
            | Self::ResourceDangling { .. }
            | Self::SnapshotUnrecorded { .. }
            | Self::DirectoryUnrecorded { .. }
            | Self::MountStale { .. }
            | Self::ViewUnmounted { .. } => Severity::Leftover,
        }
    }

    /// Returns what is usually done about it.
    pub(in crate::fsck) fn remedy(&self) -> Remedy {
        match self {
            Self::DatabaseDamaged { .. } | Self::DatabaseMissing { .. } => Remedy::Rebuild,
            Self::BlobMissing { .. }
            | Self::BlobSize { .. }
            | Self::BlobDigest { .. }
            | Self::BlobUnreadable { .. }
            | Self::TargetMissing { .. } => Remedy::Fetch,
            Self::SnapshotLost { state, .. } | Self::DirectoryMissing { state, .. } if *state != Kept::Committed => {
                Remedy::Remove
            }
            Self::SnapshotMissing { .. }
            | Self::SnapshotLost { .. }
            | Self::InnerParentMissing { .. }
            | Self::DirectoryMissing { .. }
            | Self::TreeChanged { .. } => Remedy::Unpack,
            Self::RecordDamaged { .. }
            | Self::RecordSize { .. }
            | Self::NamespaceUnrecorded { .. }
            | Self::ReferenceMissing { .. }
            | Self::LinksWrong { .. }
            | Self::ChildMissing { .. }
            | Self::ParentMissing { .. }
            | Self::IndexWrong { .. } => Remedy::Rewrite,
            Self::WrittenWithoutSyncs => Remedy::Acknowledge,
            Self::ForeignFile { .. } => Remedy::SetAside,
            // A whole one; others were never finished, or are half deleted.
            Self::DirectoryUnrecorded { directory, .. } if directory.parse::<u64>().is_ok() => Remedy::SetAside,
            Self::MountStale { .. } => Remedy::Unmount,
            Self::BlobUnrecorded { .. }
            | Self::TemporaryFile { .. }
            | Self::IngestUnowned { .. }
            | Self::IngestAbandoned { .. }
            | Self::LinksDangling { .. }
            | Self::ChildDangling { .. }
            | Self::ResourceDangling { .. }
            | Self::SnapshotUnrecorded { .. }
            | Self::DirectoryUnrecorded { .. }
            | Self::ViewUnmounted { .. } => Remedy::Remove,
        }
    }

    /// Returns how many bytes it is about.
    pub(in crate::fsck) fn bytes(&self) -> u64 {
        match self {
            Self::BlobMissing { size, .. }
            | Self::BlobSize { size, .. }
            | Self::BlobDigest { size, .. }
            | Self::BlobUnreadable { size, .. }
            | Self::BlobUnrecorded { size, .. }
            | Self::ForeignFile { size, .. }
            | Self::TemporaryFile { size, .. }
            | Self::IngestUnowned { size, .. }
            | Self::IngestAbandoned { size, .. }
            | Self::TargetMissing { size, .. }
            | Self::SnapshotUnrecorded { size, .. }
            | Self::DirectoryUnrecorded { size, .. } => *size,
            Self::TreeChanged { recorded, .. } => recorded.bytes,
            _ => 0,
        }
    }

    /// Says in one sentence what it means.
    pub(in crate::fsck) fn consequence(&self) -> String {
        let text = match self {
            Self::DatabaseDamaged { .. } => "the root cannot be opened, or what is read from it may be wrong",
            Self::DatabaseMissing { file } if file.starts_with("snapshots/") => "none of its snapshots can be mounted",
            Self::DatabaseMissing { .. } => "nothing that is here can be used",
            Self::RecordDamaged { .. } => "whatever lists or reads the record fails",
            Self::BlobMissing { .. } | Self::BlobSize { .. } => "whatever reads the blob fails",
            Self::BlobDigest { .. } => "whoever reads the blob gets wrong bytes",
            Self::BlobUnreadable { .. } => "whatever reads the blob fails, and the disk may be failing",
            Self::WrittenWithoutSyncs => {
                "what was recorded last may be lost, and files of snapshots may have wrong bytes, which nothing tells"
            }
            Self::RecordSize { .. } => "the blob is good, and whoever reads it is told that it is damaged",
            Self::ForeignFile { .. } => "nothing uses it, and nothing else will remove it",
            Self::TemporaryFile { .. } => "it takes up space",
            Self::IngestUnowned { .. } => "nobody can continue it, and it takes up space",
            Self::NamespaceUnrecorded { .. } => "a collection may take what is in the namespace for garbage",
            Self::TargetMissing { .. } => "the image cannot be used",
            Self::ReferenceMissing { .. } | Self::LinksWrong { .. } => {
                "a collection may remove what is needed, or keep what is not"
            }
            Self::LinksDangling { .. } => "it may keep what nobody needs",
            Self::ChildMissing { .. } => "the parent may be removed below the snapshot",
            Self::ChildDangling { .. } => "the parent cannot be removed",
            Self::ResourceDangling { .. } => "it says nothing, and takes up space",
            Self::SnapshotMissing { .. } => "the image cannot be mounted until it is unpacked again",
            Self::ParentMissing { .. } => "a collection may remove the layers below the snapshot",
            Self::SnapshotLost { state, .. } | Self::DirectoryMissing { state, .. } => match state {
                Kept::Committed => "what stands on the layer cannot be mounted",
                Kept::Active => "what was written into the snapshot is lost",
                Kept::View => "the view cannot be mounted",
            },
            Self::InnerParentMissing { .. } => "what stands on the missing layer cannot be mounted",
            Self::TreeChanged { .. } => "files are missing from what is mounted, or are not those of the image",
            Self::BlobUnrecorded { .. }
            | Self::IngestAbandoned { .. }
            | Self::SnapshotUnrecorded { .. }
            | Self::DirectoryUnrecorded { .. } => "it takes up space until the next collection",
            Self::IndexWrong { .. } => "snapshots may be taken for garbage, or garbage kept",
            Self::MountStale { .. } => "what it shows may vanish at any time",
            Self::ViewUnmounted { .. } => "it keeps layers that nobody looks at",
        };
        text.to_owned()
    }
}
