//! A stream cut into parts, for whoever takes them one by one.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};

/// How large a part is, at least, in bytes; only the last one may be smaller.
pub const PART: usize = 256 << 10;

/// Collects what is written, and gives it on in parts of [`PART`] bytes and what one write brought beyond that.
///
/// ```
/// use std::io::Write as _;
/// use windlass_archive::parts::Parts;
///
/// let mut taken = Vec::new();
/// let mut parts = Parts::new(|part: bytes::Bytes| {
///     taken.push(part.len());
///     Ok(())
/// });
/// parts.write_all(&vec![0; 300_000]).unwrap();
/// parts.write_all(b"rest").unwrap();
/// parts.finish().unwrap();
/// assert_eq!(taken, [300_000, 4]);
/// ```
pub struct Parts<T> {
    take: T,
    buffer: BytesMut,
}

impl<T: FnMut(Bytes) -> io::Result<()>> Parts<T> {
    /// Gives parts to whoever takes them.
    pub fn new(take: T) -> Self {
        Self { take, buffer: BytesMut::new() }
    }

    /// Gives on what is left, if anything is.
    ///
    /// # Errors
    /// That of whoever takes the parts.
    pub fn finish(mut self) -> io::Result<()> {
        self.give()
    }

    fn give(&mut self) -> io::Result<()> {
        let part = self.buffer.split().freeze();
        if part.is_empty() { Ok(()) } else { (self.take)(part) }
    }
}

impl<T: FnMut(Bytes) -> io::Result<()>> Write for Parts<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART {
            self.give()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
