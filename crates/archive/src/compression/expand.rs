//! Whatever a stream is compressed with, as it was before.

use windlass_core::Result;

use super::{Decompressor, MAGIC_LEN, Output, detect};

/// How much comes out at once, at most.
const ROOM: usize = 256 << 10;

/// Expands a stream that is compressed with gzip, zstd or nothing, which its first bytes tell.
///
/// ```
/// use windlass_archive::compression::Expander;
///
/// let mut all = Vec::new();
/// let mut take = |bytes: &[u8]| -> windlass_core::Result<()> { all.extend_from_slice(bytes); Ok(()) };
/// let mut expander = Expander::default();
/// expander.push(b"plain", &mut take).unwrap();
/// expander.finish(&mut take).unwrap();
/// assert_eq!(all, b"plain");
/// ```
#[derive(Debug, Default)]
pub struct Expander {
    /// The first bytes, until there are enough to tell.
    start: Vec<u8>,
    state: Option<State>,
}

#[derive(Debug)]
enum State {
    Plain,
    Compressed(Decompressor, Output),
}

impl Expander {
    /// Takes some of the stream, and hands out what is known of the expanded one.
    ///
    /// # Errors
    /// `DataLoss` for a damaged stream; those of whoever takes what comes out.
    pub fn push(&mut self, input: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.state.is_some() {
            return self.expand(input, take);
        }
        self.start.extend_from_slice(input);
        if self.start.len() < MAGIC_LEN { Ok(()) } else { self.begin(take) }
    }

    /// Takes the end of the stream.
    ///
    /// # Errors
    /// `DataLoss` for one that is cut off; those of whoever takes what comes out.
    pub fn finish(mut self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.state.is_none() {
            self.begin(take)?;
        }
        match &self.state {
            Some(State::Compressed(decompressor, _)) => decompressor.finish(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.state = Some(match Decompressor::new(detect(&self.start))? {
            None => State::Plain,
            Some(decompressor) => State::Compressed(decompressor, Output::new(ROOM)),
        });
        let start = std::mem::take(&mut self.start);
        self.expand(&start, take)
    }

    fn expand(&mut self, mut input: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(State::Compressed(decompressor, output)) = &mut self.state else { return take(input) };
        loop {
            let step = decompressor.step(input, output)?;
            input = input.get(step.read..).unwrap_or_default();
            if !output.content().is_empty() {
                take(output.content())?;
                output.turn();
            }
            if step.read == 0 && step.written == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use windlass_core::media_type::Compression;

    use super::super::Compressor;
    use super::*;

    fn expanded(stream: &[u8], part: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut take = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            Ok(())
        };
        let mut expander = Expander::default();
        for part in stream.chunks(part) {
            expander.push(part, &mut take)?;
        }
        expander.finish(&mut take)?;
        Ok(all)
    }

    #[test]
    fn every_compression_is_told_and_undone_however_the_stream_is_cut() {
        let data: Vec<u8> = (0..500_000_u32).flat_map(|n| (n / 5).to_le_bytes()).collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut compressor = Compressor::new(compression, Vec::new()).unwrap();
            compressor.write_all(&data).unwrap();
            let stream = compressor.finish().unwrap();
            for part in [1 << 20, 1009, 3] {
                assert!(expanded(&stream, part).unwrap() == data, "{compression:?} in parts of {part}");
            }
            if compression != Compression::None {
                assert!(expanded(&stream[..stream.len() - 1], 1009).is_err(), "{compression:?}");
            }
        }
        assert_eq!(expanded(b"", 1).unwrap(), b"");
        assert_eq!(expanded(b"ab", 1).unwrap(), b"ab");
    }
}
