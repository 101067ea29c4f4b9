//! A blob opened for reading.

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::ReaderAt;
use windlass_core::{Digest, Result, ResultExt};

use crate::blocking::blocking;
use crate::disk::File;

/// An open blob. It stays readable when it is deleted meanwhile.
pub(super) struct BlobReader {
    pub(super) digest: Digest,
    pub(super) file: File,
    pub(super) size: u64,
}

#[async_trait]
impl ReaderAt for BlobReader {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let (file, digest) = (self.file.clone(), self.digest.clone());
        blocking(move || {
            let bytes = file.read_new_at(length, offset).context(|| format!("read blob {digest} at {offset}"))?;
            Ok(bytes.into())
        })
        .await
    }
}
