//! Committed blobs on disk: `content/blobs/<algorithm>/<hex>`, read-only, complete and verified.
//!
//! Knows nothing of records: who may see a blob, and whether it is still wanted, is decided elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_core::digest::Algorithm;
use windlass_core::{Digest, Result};

use crate::db::Barrier;
use crate::disk::{Disk, File, How};

/// The algorithms that have a directory.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];
/// The mode of the directories below a root.
const DIRECTORY_MODE: u32 = 0o700;

/// The directory of blobs. All of its methods block, but those that say so.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    disk: Disk,
    directory: PathBuf,
    /// Whether the directories on the way here are durable.
    rooted: Arc<AtomicBool>,
}

impl Blobs {
    /// Opens the directory below `content`, which exists.
    pub(super) fn open(disk: &Disk, content: &Path) -> Result<Self> {
        let directory = content.join("blobs");
        make_directories(disk, &directory, &ALGORITHMS.map(Algorithm::as_str))?;
        Ok(Self { disk: disk.clone(), directory, rooted: Arc::default() })
    }

    /// Returns where a blob lies, or would.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Returns the size of a blob; `None` when it is not here.
    pub(crate) fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.disk.look(&self.path(digest))?.map(|look| look.length))
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn file(&self, digest: &Digest) -> Result<File> {
        self.disk.open(&self.path(digest), How::Read)
    }

    /// Opens a blob without waiting for the disk: none when that cannot be done.
    pub(crate) fn file_at_once(&self, digest: &Digest) -> Option<File> {
        self.disk.open_at_once(&self.path(digest))
    }

    /// Moves a file here that is complete, verified and synced, in place of the one that may be here.
    pub(crate) fn adopt(&self, file: &Path, digest: &Digest) -> Result<()> {
        self.disk.rename(file, &self.path(digest))
    }

    /// Returns what makes moves of blobs of that algorithm durable: those before it is passed.
    ///
    /// The first time also the directories on the way: this process may have made them, or one that died right after.
    pub(crate) fn barrier(&self, algorithm: Algorithm) -> Barrier {
        let blobs = self.clone();
        Barrier::new(algorithm.as_str(), move || {
            if !blobs.rooted.load(Ordering::Acquire) {
                // `blobs`, `content` and the root: what is above them was synced when the database was made.
                for directory in blobs.directory.ancestors().take(3) {
                    blobs.disk.sync_dir(directory)?;
                }
                blobs.rooted.store(true, Ordering::Release);
            }
            blobs.disk.sync_dir(&blobs.directory.join(algorithm.as_str()))
        })
    }

    /// Removes a blob and returns how many bytes that freed; `None` when it was not here.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(size) = self.size(digest)? else { return Ok(None) };
        Ok(self.disk.remove_file(&self.path(digest))?.then_some(size))
    }

    /// Visits every blob that is here. Files whose names are no digests are not blobs, and are left alone.
    pub(crate) fn each(&self, mut visit: impl FnMut(Digest)) -> Result<()> {
        for algorithm in ALGORITHMS {
            let directory = self.directory.join(algorithm.as_str());
            self.disk.list(&directory, |name| {
                let Ok(digest) = format!("{algorithm}:{name}").parse() else {
                    tracing::warn!(directory = %directory.display(), name, "a file among blobs is none");
                    return;
                };
                visit(digest);
            })?;
        }
        Ok(())
    }
}

/// Makes directories in one that exists, as far as they are missing. That they survive a power cut is seen to when
/// something comes into them: [`Blobs::barrier`].
pub(super) fn make_directories(disk: &Disk, parent: &Path, names: &[&str]) -> Result<()> {
    names.iter().try_for_each(|name| disk.create_dir(&parent.join(name), DIRECTORY_MODE).map(drop))
}
