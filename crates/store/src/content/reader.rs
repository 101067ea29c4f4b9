//! A blob opened for reading.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::{InFile, ReaderAt};
use windlass_core::{Digest, Result, ResultExt};

use crate::blocking::blocking;
use crate::disk::File;

/// How many bytes are read at once without being handed over to a thread that may wait, when they are in memory.
const AT_ONCE: usize = 64 << 10;

/// An open blob. It stays readable when it is deleted meanwhile.
pub(super) struct BlobReader {
    digest: Digest,
    file: File,
    size: u64,
}

impl BlobReader {
    pub(super) fn new(digest: Digest, file: File) -> Result<Self> {
        let size = file.look()?.length;
        Ok(Self { digest, file, size })
    }
}

#[async_trait]
impl ReaderAt for BlobReader {
    fn size(&self) -> u64 {
        self.size
    }

    fn in_file(&self) -> Option<InFile> {
        self.file.duplicate().map(|file| InFile { file: Arc::new(file), begin: 0 })
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        if length == 0 {
            return Ok(Bytes::new());
        }
        if length <= AT_ONCE
            && let Some(bytes) = self.file.read_new_at_once(length, offset)
        {
            return Ok(bytes.into());
        }
        let (file, digest) = (self.file.clone(), self.digest.clone());
        blocking(move || {
            let bytes = file.read_new_at(length, offset).context(|| format!("read blob {digest} at {offset}"))?;
            Ok(bytes.into())
        })
        .await
    }
}
