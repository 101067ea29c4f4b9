//! The way of a layer's bytes from the tar to whoever stores them.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use windlass_core::digest::{Algorithm, Hasher};
use windlass_core::media_type::Compression;
use windlass_core::{DiffId, Error, Result};

use crate::compression::Compressor;

/// How large the parts are.
const PART: usize = 256 << 10;

/// How many parts may wait.
pub(super) const PARTS_AT_MOST: usize = 4;

/// Takes a tar, hashes it, and sends it on compressed.
pub(super) struct Output {
    hasher: Hasher,
    compressor: Compressor<Parts>,
}

impl Output {
    pub(super) fn new(compression: Compression, sender: mpsc::Sender<Bytes>) -> Result<Self> {
        let parts = Parts { sender, buffer: BytesMut::with_capacity(PART) };
        Ok(Self { hasher: Algorithm::Sha256.hasher(), compressor: Compressor::new(compression, parts)? })
    }

    /// Sends what is left, and returns the digest of the tar.
    pub(super) fn finish(self) -> Result<DiffId> {
        let finished = self.compressor.finish().and_then(|mut parts| parts.send());
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

/// Cuts a stream into parts.
struct Parts {
    sender: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Parts {
    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(PART)).freeze();
        if part.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(part).map_err(|_| io::Error::other(Error::aborted("nobody takes the layer any more")))
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
