//! Zstandard, RFC 8878, by the reference library.

use windlass_core::{Error, Result};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::{Output, Step, ZSTD_WINDOW_LOG};

/// A zstd stream being read.
pub struct Zstd {
    context: DCtx<'static>,
    /// Between two frames.
    complete: bool,
}

impl Zstd {
    pub(super) fn new() -> Result<Self> {
        let mut context =
            DCtx::try_create().ok_or_else(|| Error::resource_exhausted("no memory for the zstd decoder"))?;
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(damaged)?;
        Ok(Self { context, complete: false })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn step(&mut self, input: &[u8], output: &mut Output) -> Result<Step> {
        if input.is_empty() && self.complete {
            return Ok(Step::default());
        }
        let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output.room()));
        // Zero means that a frame ended; the next call begins another one.
        let hint = self.context.decompress_stream(&mut to, &mut from).map_err(damaged)?;
        let step = Step { read: from.pos(), written: to.pos() };
        output.end += step.written;
        if step != Step::default() {
            self.complete = hint == 0;
        }
        Ok(step)
    }
}

fn damaged(code: usize) -> Error {
    Error::data_loss(format!("the zstd stream is damaged: {}", get_error_name(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &[u8], chunk: usize, room: usize) -> Result<(Vec<u8>, bool)> {
        let mut zstd = Zstd::new()?;
        let mut all = Vec::new();
        let mut output = Output::new(room);
        for mut input in stream.chunks(chunk) {
            loop {
                let step = zstd.step(input, &mut output)?;
                input = &input[step.read..];
                all.extend_from_slice(output.content());
                output.turn();
                if step.written == 0 && input.is_empty() {
                    break;
                }
            }
        }
        Ok((all, zstd.is_complete()))
    }

    #[test]
    fn frames_and_skippable_frames_on_end_are_one_stream() {
        let mut stream = vec![0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9];
        stream.extend(zstd::bulk::compress(b"hello, ", 3).unwrap());
        stream.extend(zstd::bulk::compress(b"world", 3).unwrap());
        stream.extend([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
        for (chunk, room) in [(1, 1), (3, 2), (10_000, 4), (10_000, 1000)] {
            assert_eq!(read(&stream, chunk, room).unwrap(), (b"hello, world".to_vec(), true), "{chunk} {room}");
        }
        for cut in 0..stream.len() {
            if let Ok((all, true)) = read(&stream[..cut], 10_000, 100) {
                assert!(all == b"hello, " || all == b"hello, world" || all.is_empty(), "cut at {cut}");
            }
        }
        assert!(read(b"\x28\xb5\x2f\xfdgarbage", 100, 100).is_err());
    }

    #[test]
    fn a_window_over_the_limit_is_refused() {
        // Magic, a descriptor without single segment, and a window descriptor of exponent 28 - 10.
        let stream = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (28 - 10) << 3, 1, 0, 0];
        assert!(read(&stream, 100, 100).is_err());
    }
}
