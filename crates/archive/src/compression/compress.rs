//! Compressing: the same bytes in, the same bytes out, whenever and wherever it is done.

use std::io::{self, Write};

use flate2::GzBuilder;
use flate2::write::GzEncoder;
use windlass_core::media_type::Compression;
use windlass_core::{Error, Result};

/// The level of gzip, which is everybody's default.
const GZIP_LEVEL: u32 = 6;

/// The level of zstd, which is the default of its command.
const ZSTD_LEVEL: i32 = 3;

/// RFC 1952, section 2.3.1: the operating system is unknown.
const UNKNOWN_SYSTEM: u8 = 255;

/// Compresses what is written to it into another writer.
///
/// ```
/// use std::io::Write as _;
/// use windlass_archive::compression::{Compressor, detect};
/// use windlass_core::media_type::Compression;
///
/// let mut gzip = Compressor::new(Compression::Gzip, Vec::new()).unwrap();
/// gzip.write_all(b"the same, again and again and again").unwrap();
/// assert_eq!(detect(&gzip.finish().unwrap()), Compression::Gzip);
/// ```
pub struct Compressor<W: Write>(Kind<W>);

enum Kind<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Makes one for a compression. The header of gzip has neither a time nor a name.
    ///
    /// # Errors
    /// `ResourceExhausted` when there is no memory.
    pub fn new(compression: Compression, into: W) -> Result<Self> {
        Ok(Self(match compression {
            Compression::None => Kind::None(into),
            Compression::Gzip => {
                let header = GzBuilder::new().mtime(0).operating_system(UNKNOWN_SYSTEM);
                Kind::Gzip(header.write(into, flate2::Compression::new(GZIP_LEVEL)))
            }
            Compression::Zstd => Kind::Zstd(
                zstd::stream::write::Encoder::new(into, ZSTD_LEVEL)
                    .map_err(|error| Error::resource_exhausted("no memory for the zstd encoder").source(error))?,
            ),
        }))
    }

    /// Writes what is left, and returns the writer behind.
    ///
    /// # Errors
    /// Those of the writer behind.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::None(into) => Ok(into),
            Kind::Gzip(gzip) => gzip.finish(),
            Kind::Zstd(zstd) => zstd.finish(),
        }
    }

    /// Returns the writer behind.
    pub fn get_mut(&mut self) -> &mut W {
        match &mut self.0 {
            Kind::None(into) => into,
            Kind::Gzip(gzip) => gzip.get_mut(),
            Kind::Zstd(zstd) => zstd.get_mut(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::None(into) => into.write(bytes),
            Kind::Gzip(gzip) => gzip.write(bytes),
            Kind::Zstd(zstd) => zstd.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::None(into) => into.flush(),
            Kind::Gzip(gzip) => gzip.flush(),
            Kind::Zstd(zstd) => zstd.flush(),
        }
    }
}

impl<W: Write> std::fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::None(_) => "Compressor(none)",
            Kind::Gzip(_) => "Compressor(gzip)",
            Kind::Zstd(_) => "Compressor(zstd)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decompressor, Output};
    use super::*;

    fn compressed(compression: Compression, parts: &[&[u8]]) -> Vec<u8> {
        let mut compressor = Compressor::new(compression, Vec::new()).unwrap();
        for part in parts {
            compressor.write_all(part).unwrap();
        }
        compressor.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_is_read_back() {
        let data: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let bytes = compressed(compression, &[&data]);
            assert!(bytes.len() < data.len() / 2);
            let mut decompressor = Decompressor::new(compression).unwrap().unwrap();
            let (mut output, mut all, mut input) = (Output::new(64 << 10), Vec::new(), &bytes[..]);
            loop {
                let step = decompressor.step(input, &mut output).unwrap();
                input = &input[step.read..];
                all.extend_from_slice(output.content());
                output.turn();
                if (step.read, step.written) == (0, 0) {
                    break;
                }
            }
            decompressor.finish().unwrap();
            assert!(all == data, "{compression:?}");
        }
        assert_eq!(compressed(Compression::None, &[b"as ", b"it is"]), b"as it is");
    }

    #[test]
    fn the_same_bytes_come_out_whenever_it_is_done() {
        let gzip = compressed(Compression::Gzip, &[b"a layer"]);
        // RFC 1952, section 2.3: deflate, no flags, no time, nothing about the effort, an unknown system.
        assert_eq!(gzip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        assert_eq!(gzip, compressed(Compression::Gzip, &[b"a layer"]));
    }
}
