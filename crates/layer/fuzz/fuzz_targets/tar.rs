//! An archive, cut into buffers of any size, gives the same entries and data, or an error each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_core::Result;
use windlass_layer::tar::{BLOCK, Entry, Event, Parser};

/// What an archive has: entries, and of each the bytes with where they belong.
type Content = Vec<(Entry, Vec<(u64, u8)>)>;

fn read(archive: &[u8], part: usize) -> Result<Content> {
    let mut parser = Parser::new();
    let mut content: Content = Vec::new();
    for mut input in archive.chunks(part) {
        loop {
            match parser.next(&mut input)? {
                Event::NeedInput => break,
                Event::Entry(entry) => content.push((*entry, Vec::new())),
                Event::Data { offset, bytes } => {
                    assert!(!bytes.is_empty());
                    let (_, data) = content.last_mut().unwrap();
                    assert!(data.last().is_none_or(|(before, _)| *before < offset));
                    data.extend((offset..).zip(bytes.iter().copied()));
                }
                Event::EndOfEntry => {}
                Event::End => {
                    parser.finish()?;
                    return Ok(content);
                }
            }
        }
        assert!(input.is_empty());
    }
    parser.finish()?;
    Ok(content)
}

/// Makes the checksum of a block right, as that of a header.
fn sum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fuzz_target!(|data: (u8, u16, &[u8])| {
    let (mode, part, data) = data;
    let mut archive = data.to_vec();
    // By chance no checksum is ever right. Headers are found by their magic or stand at every so many blocks.
    for (number, block) in archive.chunks_exact_mut(BLOCK).enumerate() {
        let is_header = match mode & 3 {
            0 => false,
            1 => block[257..262] == *b"ustar",
            2 => number % 2 == 0,
            _ => true,
        };
        if is_header {
            sum(block);
        }
    }
    let whole = read(&archive, archive.len().max(1));
    let parts = read(&archive, usize::from(part).max(1));
    match (whole, parts) {
        (Ok(whole), Ok(parts)) => assert!(whole == parts),
        (Err(whole), Err(parts)) => assert_eq!(whole.kind(), parts.kind()),
        (whole, parts) => panic!("{:?} / {:?}", whole.map(|all| all.len()), parts.map(|all| all.len())),
    }
});
