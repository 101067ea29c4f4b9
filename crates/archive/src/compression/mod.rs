//! Compression: buffers in, buffers out, without any I/O.
//!
//! What a layer is compressed with is told by its first bytes, as every engine does it, because media types lie.

mod compress;
mod expand;
mod gzip;
mod inflate;
mod output;
mod zstd;

use windlass_core::media_type::Compression;
use windlass_core::{Error, Result};

pub use compress::Compressor;
pub use expand::Expander;
pub use output::Output;

/// How many bytes [`detect`] needs to be sure.
pub const MAGIC_LEN: usize = 4;

/// The largest window of a zstd frame, as a power of two: 128 MiB, the limit of the `zstd` command.
pub const ZSTD_WINDOW_LOG: u32 = 27;

/// Tells a layer's compression from its first [`MAGIC_LEN`] bytes, or all of them if it is shorter.
///
/// ```
/// use windlass_core::media_type::Compression;
/// use windlass_archive::compression::detect;
///
/// assert_eq!(detect(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
/// assert_eq!(detect(b"etc/"), Compression::None);
/// ```
pub fn detect(start: &[u8]) -> Compression {
    match start {
        // RFC 1952, section 2.3.1.
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // RFC 8878, sections 3.1.1 and 3.1.2: a frame, or a skippable frame before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// How far one step got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of input that were used.
    pub read: usize,
    /// Bytes of output that were made.
    pub written: usize,
}

/// A compressed stream being read.
pub enum Decompressor {
    /// Several members on end, RFC 1952.
    Gzip(gzip::Gzip),
    /// Several frames on end, RFC 8878.
    Zstd(zstd::Zstd),
}

impl Decompressor {
    /// Makes one for a compression; nothing when there is nothing to do.
    ///
    /// # Errors
    /// `ResourceExhausted` when there is no memory.
    pub fn new(compression: Compression) -> Result<Option<Self>> {
        Ok(match compression {
            Compression::None => None,
            Compression::Gzip => Some(Self::Gzip(gzip::Gzip::new())),
            Compression::Zstd => Some(Self::Zstd(zstd::Zstd::new()?)),
        })
    }

    /// Decompresses some of `input` into `output`, behind what is there. Neither read nor written means that more input is
    /// needed, provided that there is room.
    ///
    /// Each output has to be empty at first, then the same one as before, or one that [follows](Output::follow) it.
    ///
    /// # Errors
    /// `DataLoss` for a damaged stream, or bytes after its end that are not part of it.
    pub fn step(&mut self, input: &[u8], output: &mut Output) -> Result<Step> {
        match self {
            Self::Gzip(gzip) => gzip.step(input, output),
            Self::Zstd(zstd) => zstd.step(input, output),
        }
    }

    /// Tells that there is no more input.
    ///
    /// # Errors
    /// `DataLoss` when the stream stops in the middle.
    pub fn finish(&self) -> Result<()> {
        let (complete, what) = match self {
            Self::Gzip(gzip) => (gzip.is_complete(), "gzip"),
            Self::Zstd(zstd) => (zstd.is_complete(), "zstd"),
        };
        if complete { Ok(()) } else { Err(Error::data_loss(format!("the {what} stream is cut off"))) }
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Decompressor(gzip)",
            Self::Zstd(_) => "Decompressor(zstd)",
        })
    }
}
