//! Committed blobs on disk: `content/blobs/<algorithm>/<hex>`, read-only, complete and verified.
//!
//! Knows nothing of records: who may see a blob, and whether it is still wanted, is decided elsewhere.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use windlass_core::digest::Algorithm;
use windlass_core::error::IoResultExt;
use windlass_core::{Digest, Error, Kind, Result};

/// The algorithms that have a directory.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

/// The directory of blobs. All of its methods block.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    directory: PathBuf,
}

impl Blobs {
    /// Opens the directory below `content`, which exists.
    pub(super) fn open(content: &Path) -> Result<Self> {
        let directory = content.join("blobs");
        make_durably(&directory, &ALGORITHMS.map(Algorithm::as_str))?;
        Ok(Self { directory })
    }

    /// Returns where a blob lies, or would.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Returns the size of a blob; `None` when it is not here.
    pub(crate) fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("look at {}", path.display()), error)),
        }
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn file(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).attempt(|| format!("open {}", path.display()))
    }

    /// Moves a file here that is complete, verified and synced, in place of the one that may be here.
    pub(crate) fn adopt(&self, file: &Path, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        std::fs::rename(file, &path).attempt(|| format!("rename {} to {}", file.display(), path.display()))
    }

    /// Makes moves of blobs of that algorithm durable.
    pub(crate) fn sync(&self, algorithm: Algorithm) -> Result<()> {
        sync_directory(&self.directory.join(algorithm.as_str()))
    }

    /// Removes a blob and returns how many bytes that freed; `None` when it was not here.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(size) = self.size(digest)? else { return Ok(None) };
        let path = self.path(digest);
        match std::fs::remove_file(&path).attempt(|| format!("remove {}", path.display())) {
            Ok(()) => Ok(Some(size)),
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Visits every blob that is here. Files whose names are no digests are not blobs, and are left alone.
    pub(crate) fn each(&self, mut visit: impl FnMut(Digest)) -> Result<()> {
        for algorithm in ALGORITHMS {
            let directory = self.directory.join(algorithm.as_str());
            let attempt = || format!("list {}", directory.display());
            for entry in std::fs::read_dir(&directory).attempt(attempt)? {
                let name = entry.attempt(attempt)?.file_name();
                let Ok(digest) = format!("{algorithm}:{}", name.to_string_lossy()).parse() else {
                    tracing::warn!(directory = %directory.display(), ?name, "a file among blobs is none");
                    continue;
                };
                visit(digest);
            }
        }
        Ok(())
    }
}

/// Makes directories in one that exists, as far as they are missing, so that they survive a power cut.
pub(super) fn make_durably(parent: &Path, names: &[&str]) -> Result<()> {
    let mut made = false;
    for directory in names.iter().map(|name| parent.join(name)) {
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => made = true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(format!("create {}", directory.display()), error)),
        }
    }
    if made { sync_directory(parent) } else { Ok(()) }
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|directory| directory.sync_all()).attempt(|| format!("sync {}", directory.display()))
}
