//! Where the bytes of committed blobs are: in files of the root, or in a content store of somebody else.
//!
//! Everything before and around that is the same for both: ingests are files here, and records are in the database.

use std::fmt::{self, Display};
use std::sync::Arc;

use bytes::Bytes;
use windlass_core::content::ReaderAt;
use windlass_core::digest::Algorithm;
use windlass_core::{Digest, Result};

use super::behind::Behind;
use super::reader::BlobReader;
use super::{Blobs, SmallBlobs};
use crate::blocking::blocking;
use crate::db::Barrier;
use crate::disk::File;

/// The place of blobs. Who may see them, and whether they are still wanted, is decided elsewhere.
pub(crate) enum Depot {
    Here { blobs: Blobs, small: SmallBlobs },
    Elsewhere(Behind),
}

/// What bytes are that may be in the place of a blob already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Old {
    Right,
    Wrong,
}

impl Depot {
    /// Returns the size of a blob; `None` when it is not there.
    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self {
            Self::Here { blobs, .. } => blobs.size(digest),
            Self::Elsewhere(behind) => behind.size(digest).await,
        }
    }

    /// As [`Depot::size`]. Blocking.
    pub(crate) fn look(&self, digest: &Digest) -> Result<Option<u64>> {
        match self {
            Self::Here { blobs, .. } => blobs.size(digest),
            Self::Elsewhere(behind) => behind.wait(behind.size(digest)),
        }
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn reader(&self, digest: &Digest) -> Result<Box<dyn ReaderAt>> {
        let blobs = match self {
            Self::Here { blobs, .. } => blobs,
            Self::Elsewhere(behind) => return behind.reader(digest).await,
        };
        // What is known to the kernel is opened here: handing that over to another thread takes longer than doing it.
        let reader = if let Some(file) = blobs.file_at_once(digest) {
            BlobReader::new(digest.clone(), file)?
        } else {
            let (blobs, digest) = (blobs.clone(), digest.clone());
            blocking(move || BlobReader::new(digest.clone(), blobs.file(&digest)?)).await?
        };
        Ok(Box::new(reader))
    }

    /// Brings the file of an ingest to its place that is complete, verified and synced. That it came there is durable behind
    /// [`Depot::barrier`].
    pub(super) async fn place(&self, file: File, digest: &Digest, old: Old) -> Result<()> {
        match self {
            Self::Here { blobs, .. } => {
                let (blobs, digest) = (blobs.clone(), digest.clone());
                blocking(move || blobs.adopt(file.path(), &digest)).await
            }
            Self::Elsewhere(behind) => {
                let mut file: Arc<dyn ReaderAt> = Arc::new(BlobReader::new(digest.clone(), file)?);
                behind.bring(digest, file.size(), &mut file, old).await
            }
        }
    }

    /// Brings verified bytes to their place of which nothing is on the disk yet. That they came there is durable behind
    /// [`Depot::barrier`].
    pub(super) async fn place_small(&self, mut bytes: Bytes, digest: &Digest, old: Old) -> Result<()> {
        match self {
            Self::Here { small, .. } => small.place(digest.clone(), bytes).await,
            Self::Elsewhere(behind) => behind.bring(digest, bytes.len() as u64, &mut bytes, old).await,
        }
    }

    /// Returns what makes it durable that blobs of that algorithm came to their places; `None` when it is already.
    pub(super) fn barrier(&self, algorithm: Algorithm) -> Option<Barrier> {
        match self {
            Self::Here { blobs, .. } => Some(blobs.barrier(algorithm)),
            Self::Elsewhere(_) => None,
        }
    }

    /// Removes a blob and returns how many bytes that freed; `None` when it was not there.
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<Option<u64>> {
        match self {
            Self::Here { blobs, .. } => {
                let (blobs, digest) = (blobs.clone(), digest.clone());
                blocking(move || blobs.remove(&digest)).await
            }
            Self::Elsewhere(behind) => behind.remove(digest).await,
        }
    }

    /// Visits every blob that is there. Blocking.
    pub(crate) fn each(&self, mut visit: impl FnMut(Digest)) -> Result<()> {
        match self {
            Self::Here { blobs, .. } => blobs.each(visit),
            Self::Elsewhere(behind) => behind.each(|digest, _| visit(digest)),
        }
    }
}

impl Display for Depot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here { .. } => f.write_str("the disk"),
            Self::Elsewhere(behind) => behind.fmt(f),
        }
    }
}
