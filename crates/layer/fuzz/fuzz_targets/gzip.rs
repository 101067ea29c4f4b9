//! A gzip stream, cut into parts of any size, gives what flate2 makes of it, or an error where that gives one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_core::Result;
use windlass_core::media_type::Compression;
use windlass_layer::compression::{Decompressor, Output, Step};

/// No stream may make more than this here.
const LIMIT: usize = 4 << 20;

fn ours(stream: &[u8], part: usize, room: usize) -> Result<Vec<u8>> {
    let mut decompressor = Decompressor::new(Compression::Gzip)?.unwrap();
    let mut output = Output::new(room);
    let mut all = Vec::new();
    for mut input in stream.chunks(part) {
        loop {
            let Step { read, written } = decompressor.step(input, &mut output)?;
            input = &input[read..];
            if output.is_full() {
                all.extend_from_slice(output.content());
                output.turn();
            } else if read == 0 && written == 0 {
                break;
            }
            if all.len() > LIMIT {
                return Ok(all);
            }
        }
        assert!(input.is_empty());
    }
    decompressor.finish()?;
    all.extend_from_slice(output.content());
    Ok(all)
}

/// What flate2 makes of deflated data.
enum Theirs {
    Sound(Vec<u8>),
    Damaged,
    /// Something follows, or there is too much of it.
    Other,
}

fn theirs(data: &[u8]) -> Theirs {
    let mut inflate = flate2::Decompress::new(false);
    let mut all = Vec::new();
    loop {
        let (from, out) = (usize::try_from(inflate.total_in()).unwrap(), all.len());
        all.reserve(64 << 10);
        match inflate.decompress_vec(&data[from..], &mut all, flate2::FlushDecompress::None) {
            Ok(flate2::Status::StreamEnd) if inflate.total_in() == data.len() as u64 => return Theirs::Sound(all),
            Ok(flate2::Status::StreamEnd) => return Theirs::Other,
            Err(_) => return Theirs::Damaged,
            _ if all.len() > LIMIT => return Theirs::Other,
            _ if from as u64 == inflate.total_in() && out == all.len() => return Theirs::Damaged,
            _ => {}
        }
    }
}

fuzz_target!(|data: (u8, u16, &[u8])| {
    let (mode, part, data) = data;
    let (part, room) = match mode & 3 {
        0 => (1, 1),
        1 => (usize::from(part).max(1), 1 << 16),
        2 => (usize::from(part & 63).max(1), 300),
        _ => (usize::MAX, 1 << 18),
    };
    if mode & 4 == 0 {
        // The framing: nothing panics, and however it is cut, it is the same.
        let whole = ours(data, usize::MAX, 1 << 18);
        let parts = ours(data, part, room);
        assert_eq!(whole.is_ok(), parts.is_ok());
        if let (Ok(whole), Ok(parts)) = (whole, parts)
            && whole.len() <= LIMIT
        {
            assert!(whole == parts);
        }
        return;
    }
    // The deflated data of a member whose header and trailer are right.
    let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    stream.extend_from_slice(data);
    let theirs = theirs(data);
    let mut crc = flate2::Crc::new();
    if let Theirs::Sound(all) = &theirs {
        crc.update(all);
    }
    stream.extend_from_slice(&crc.sum().to_le_bytes());
    stream.extend_from_slice(&crc.amount().to_le_bytes());
    match (ours(&stream, part, room), theirs) {
        (Ok(ours), Theirs::Sound(theirs)) => assert!(ours == theirs),
        (Ok(ours), Theirs::Damaged) => assert!(ours.len() > LIMIT, "ours takes what flate2 refuses"),
        (Err(error), Theirs::Sound(_)) => panic!("ours refuses what flate2 takes: {error}"),
        (_, Theirs::Other) | (Err(_), Theirs::Damaged) => {}
    }
});
