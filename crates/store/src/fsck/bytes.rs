//! The bytes of blobs, as a check reads them: from the files of the root, or from the content store that has them. All of it
//! blocks.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;
use windlass_core::content::ReaderAt;
use windlass_core::fsck::Finding;
use windlass_core::{Digest, Result};

use super::blobs::{self, Stored};
use crate::content::{Behind, Depot};
use crate::disk::Disk;
use crate::elsewhere::{self, Elsewhere};
use crate::store::Store;

/// Where the blobs of a root are read. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bytes {
    root: PathBuf,
    behind: Option<Behind>,
}

impl Bytes {
    /// Finds out where they are.
    ///
    /// # Errors
    /// `FailedPrecondition` when they are elsewhere, and nobody says where that is.
    pub(super) fn of(root: &Path, elsewhere: Option<&Elsewhere>) -> Result<Self> {
        elsewhere::require(&Disk::real(), root, elsewhere)?;
        let behind = elsewhere.map(|elsewhere| Behind::new(elsewhere.clone(), Handle::current()));
        Ok(Self { root: root.to_owned(), behind })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Tells whether they are in a store of somebody else.
    pub(super) fn are_elsewhere(&self) -> bool {
        self.behind.is_some()
    }

    /// Lists the blobs; files of the root that are none are findings.
    pub(super) fn list(&self, findings: &mut Vec<Finding>) -> Result<Stored> {
        let Some(behind) = &self.behind else { return blobs::list(&self.root, findings) };
        let mut stored = Stored::new();
        behind.each(|digest, size| stored.extend([(digest, size)]))?;
        Ok(stored)
    }

    /// Returns the size of a blob; `None` when it is not there, or nobody can tell.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        match &self.behind {
            None => std::fs::metadata(self.path(digest)).ok().map(|metadata| metadata.len()),
            Some(behind) => behind.wait(behind.size(digest)).ok().flatten(),
        }
    }

    /// Opens a blob, to be read from its beginning.
    pub(super) fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read>> {
        match &self.behind {
            None => Ok(Box::new(File::open(self.path(digest))?)),
            Some(behind) => {
                let reader = behind.wait(behind.reader(digest)).map_err(io::Error::other)?;
                Ok(Box::new(There { behind: behind.clone(), reader, at: 0 }))
            }
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("content/blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }
}

impl Store {
    /// Returns where the blobs of the store are read.
    pub(super) fn bytes(&self) -> Bytes {
        let behind = match &self.shared().depot {
            Depot::Here { .. } => None,
            Depot::Elsewhere(behind) => Some(behind.clone()),
        };
        Bytes { root: self.root().to_owned(), behind }
    }
}

/// A blob that is read from the content store that has it.
struct There {
    behind: Behind,
    reader: Box<dyn ReaderAt>,
    at: u64,
}

impl Read for There {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.behind.wait(self.reader.read_at(self.at, buffer.len())).map_err(io::Error::other)?;
        let room = buffer.get_mut(..read.len()).ok_or_else(|| io::Error::other("more was read than was asked for"))?;
        room.copy_from_slice(&read);
        self.at += read.len() as u64;
        Ok(read.len())
    }
}
