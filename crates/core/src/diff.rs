//! Layers as differences: applying one to a snapshot, and making one of two snapshots.

use async_trait::async_trait;

use crate::content::{IngestRef, Provider};
use crate::descriptor::Descriptor;
use crate::digest::DiffId;
use crate::error::Result;
use crate::label::Labels;
use crate::media_type::MediaType;
use crate::progress::Task;
use crate::snapshot::Mount;

/// The label of a layer's blob that says its diff id, as containerd has it.
pub const UNCOMPRESSED_LABEL: &str = "containerd.io/uncompressed";

/// How a deletion is written down in the directory that a layer is applied to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// As the mounts tell: an overlay's upper directory gets overlayfs' own, anything else has the file removed.
    #[default]
    AsMounted,
    /// As overlayfs wants them (character device 0/0, `trusted.overlay.opaque`), whatever the mounts look like: the
    /// directory will be put onto its parent later.
    Overlay,
}

/// What came of applying a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The directory holds the layer.
    Complete {
        /// The digest of the uncompressed tar, to be compared with the config's.
        diff_id: DiffId,
        /// The size of the uncompressed tar in bytes.
        size: u64,
    },
    /// The layer cannot be applied without what is below it: a hard link points there, or a directory it leaves out
    /// must have the properties it has there. What was written so far is of no use; apply it onto its parent.
    NeedsParent {
        /// The entry that needs it.
        path: String,
    },
}

/// Applies layers to mounted snapshots.
#[async_trait]
pub trait Applier: Send + Sync {
    /// Applies the layer that `content` has under the descriptor, decompressed as its media type and its first bytes
    /// say, to the root of the mounts.
    ///
    /// The task, when given, is told how many compressed bytes have been used.
    ///
    /// # Errors
    /// `DataLoss` for a damaged archive; `FailedPrecondition` for an entry that would leave the root, or a media type
    /// that is no layer; `ResourceExhausted` for a full disk. What was written until then stays in the directory: the
    /// caller removes the snapshot.
    ///
    /// # Cancel safety
    /// A call that is dropped stops soon and leaves what was written.
    async fn apply(
        &self,
        content: &dyn Provider,
        layer: &Descriptor,
        mounts: &[Mount],
        whiteouts: Whiteouts,
        task: Option<&Task>,
    ) -> Result<Applied>;
}

/// What is wanted of a comparison, as containerd's `DiffRequest` carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompareOptions {
    /// The media type of the layer, which says its compression.
    pub media_type: MediaType,
    /// The ingest that the layer is written through; one that nobody else has when absent. What it has is given up.
    pub ingest: Option<IngestRef>,
    /// Labels of the new blob.
    pub labels: Labels,
    /// Seconds since 1970: nothing in the layer was modified later, and deletions have this time. They have none (1970)
    /// when absent. <https://reproducible-builds.org/specs/source-date-epoch/>.
    pub source_date_epoch: Option<i64>,
}

impl CompareOptions {
    /// Wants a layer of that media type, and nothing beyond it.
    pub fn new(media_type: impl Into<MediaType>) -> Self {
        Self { media_type: media_type.into(), ingest: None, labels: Labels::new(), source_date_epoch: None }
    }
}

/// Makes layers of the differences between mounted snapshots.
#[async_trait]
pub trait Comparer: Send + Sync {
    /// Writes what changed from `lower` to `upper` as a layer into the content store that the comparer is bound to. No
    /// mounts at all are an empty filesystem.
    ///
    /// The same trees make the same bytes. The blob has the label [`UNCOMPRESSED_LABEL`].
    ///
    /// # Errors
    /// `Unimplemented` for a media type that is none of a layer; `Aborted` when something changes while it is read;
    /// `Unavailable` when somebody else has the ingest.
    ///
    /// # Cancel safety
    /// A call that is dropped stops soon. It leaves at most an ingest, which is of no use.
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor>;
}
