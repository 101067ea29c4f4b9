//! The way of a layer's bytes from the tar to whoever stores them.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_archive::parts::Parts;
use windlass_core::digest::{Algorithm, Hasher};
use windlass_core::media_type::Compression;
use windlass_core::{DiffId, Error, Result};

use crate::compression::Compressor;

/// How many parts may wait.
pub(super) const PARTS_AT_MOST: usize = 4;

/// Takes a part to where it is stored.
type Take = Box<dyn FnMut(Bytes) -> io::Result<()> + Send>;

/// Takes a tar, hashes it, and sends it on compressed.
pub(super) struct Output {
    hasher: Hasher,
    compressor: Compressor<Parts<Take>>,
}

impl Output {
    pub(super) fn new(compression: Compression, sender: mpsc::Sender<Bytes>) -> Result<Self> {
        let gone = |_| io::Error::other(Error::aborted("nobody takes the layer any more"));
        let parts = Parts::new(Box::new(move |part| sender.blocking_send(part).map_err(gone)) as Take);
        Ok(Self { hasher: Algorithm::Sha256.hasher(), compressor: Compressor::new(compression, parts)? })
    }

    /// Sends what is left, and returns the digest of the tar.
    pub(super) fn finish(self) -> Result<DiffId> {
        let finished = self.compressor.finish().and_then(Parts::finish);
        finished.map_err(|error| Error::io("compress a layer", error))?;
        Ok(DiffId(self.hasher.finish()))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.compressor.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
