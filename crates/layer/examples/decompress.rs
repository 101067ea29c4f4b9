//! Decompresses files and says how fast that was: `cargo run --release -p windlass-layer --example decompress -- FILE...`.
//!
//! What is told is the time of the processor, not of the clock, and all of the file has to be in memory already for it to mean something.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};
use windlass_layer::compression::{Decompressor, Output, Step, detect};
use windlass_layer::pipeline::PART;

/// As large as the pipeline's.
const ROOM: usize = 256 << 10;

fn main() -> Result<()> {
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        let before = processor_time();
        let (compressed, size) = decompress(&path)?;
        let micros = processor_time().saturating_sub(before).as_micros().max(1);
        let rate = u128::from(size) / micros;
        println!("{rate:6} MB/s: {compressed} bytes to {size} in {micros} us: {}", path.display());
    }
    Ok(())
}

/// Returns the sizes of a file before and after.
fn decompress(path: &PathBuf) -> Result<(u64, u64)> {
    let mut file = File::open(path).attempt(|| format!("open {}", path.display()))?;
    let mut part = vec![0; PART];
    let mut output = Output::new(ROOM);
    let mut decompressor = None;
    let (mut compressed, mut size) = (0, 0);
    loop {
        let count = file.read(&mut part).attempt(|| format!("read {}", path.display()))?;
        let mut input = part.get(..count).unwrap_or_default();
        if count == 0 {
            break;
        }
        if decompressor.is_none() {
            decompressor = Decompressor::new(detect(input))?;
        }
        let Some(decompressor) = &mut decompressor else {
            return Err(Error::invalid_argument(format!("{} is not compressed", path.display())));
        };
        compressed += count as u64;
        loop {
            let Step { read, written } = decompressor.step(input, &mut output)?;
            input = input.get(read..).unwrap_or_default();
            size += written as u64;
            if output.is_full() {
                output.turn();
            } else if read == 0 && written == 0 {
                break;
            }
        }
    }
    decompressor.as_ref().map_or(Ok(()), Decompressor::finish)?;
    Ok((compressed, size))
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
