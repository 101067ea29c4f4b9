//! Where the bytes of files go in the data: each file begins with a block, in the order in which they come.

use crate::error::{Result, too_large};
use crate::format::BLOCK_BITS;
use crate::tree::{Data, Run, chunk_bits, whole_bits};

const BLOCK: u64 = 1 << BLOCK_BITS;

/// Gives out places in the data. Nothing is written here.
///
/// A file without holes lies in one piece. One with holes is cut into chunks, and those chunks that have bytes lie
/// somewhere; what of them has no bytes is zero, and is left out by the writer.
#[derive(Debug, Default)]
pub struct Packer {
    /// The first block that is free.
    next: u64,
    current: Current,
}

/// The file whose bytes come.
#[derive(Debug, Default)]
enum Current {
    #[default]
    None,
    Whole {
        block: u64,
        size: u64,
    },
    Sparse {
        bits: u8,
        runs: Vec<Run>,
    },
}

/// A place for the first bytes of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where in the data.
    pub at: u64,
    /// How many bytes of the piece go there; the rest needs to be placed again.
    pub length: usize,
}

impl Packer {
    /// Begins at the beginning of the data.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a file.
    ///
    /// # Errors
    /// `TooLarge` when the data has no more room.
    pub fn begin(&mut self, size: u64, sparse: bool) -> Result<()> {
        if sparse {
            self.current = Current::Sparse { bits: chunk_bits(size), runs: Vec::new() };
            return Ok(());
        }
        let block = self.take(size.div_ceil(BLOCK))?;
        self.current = Current::Whole { block, size };
        Ok(())
    }

    /// Places bytes that belong at `offset` of the file. They come in order.
    ///
    /// # Errors
    /// `TooLarge` when the data has no more room.
    pub fn place(&mut self, offset: u64, length: usize) -> Result<Place> {
        let Self { next, current } = self;
        let (bits, runs) = match current {
            Current::None => return Ok(Place { at: 0, length: 0 }),
            Current::Whole { block, size } => {
                let room = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
                return Ok(Place { at: *block * BLOCK + offset, length: length.min(room) });
            }
            Current::Sparse { bits, runs } => (*bits, runs),
        };
        let chunk = BLOCK << bits;
        let (number, within) = (offset / chunk, offset % chunk);
        let length = length.min(usize::try_from(chunk - within).unwrap_or(usize::MAX));
        let end = |run: &Run| run.first + u64::from(run.count);
        let known = runs.last().is_some_and(|run| number < end(run));
        if !known {
            let blocks = 1u64 << bits;
            let block = number_of(*next, blocks)?;
            *next += blocks;
            match runs.last_mut() {
                // Nothing else was placed meanwhile: what follows in the file follows in the data.
                Some(run) if end(run) == number && run.count < u32::MAX => run.count += 1,
                _ => runs.push(Run { first: number, count: 1, block }),
            }
        }
        let run = runs.last().copied().unwrap_or(Run { first: number, count: 1, block: 0 });
        Ok(Place { at: u64::from(run.block) * BLOCK + (number - run.first) * chunk + within, length })
    }

    /// Ends the file and returns where it is.
    pub fn end(&mut self) -> Data {
        match std::mem::take(&mut self.current) {
            Current::Whole { block, size: 1.. } => Data::Blocks(u32::try_from(block).unwrap_or(u32::MAX)),
            Current::None | Current::Whole { .. } => Data::Nothing,
            Current::Sparse { runs, .. } if runs.is_empty() => Data::Nothing,
            Current::Sparse { bits, runs } => Data::Chunks { bits, runs },
        }
    }

    /// Tells whether a run is all there is of a file without holes.
    pub(crate) fn is_whole(size: u64, bits: u8, run: Run) -> bool {
        run.first == 0 && bits == whole_bits(size) && u64::from(run.count) == size.div_ceil(BLOCK << bits)
    }

    /// Returns how many blocks the data has so far.
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.next).unwrap_or(u32::MAX)
    }

    fn take(&mut self, blocks: u64) -> Result<u64> {
        number_of(self.next, blocks)?;
        let block = self.next;
        self.next += blocks;
        Ok(block)
    }
}

/// The most blocks: addresses have 32 bits, and a quarter of them is kept for the metadata.
const MAX_BLOCKS: u64 = 3 << 30;

fn number_of(block: u64, more: u64) -> Result<u32> {
    let full = || too_large("the files of the layer have more bytes than an image can hold");
    let end = block.checked_add(more).filter(|end| *end <= MAX_BLOCKS).ok_or_else(full)?;
    u32::try_from(end.min(block)).map_err(|_| full())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_begin_with_blocks() {
        let mut packer = Packer::new();
        let mut pack = |size: u64| {
            packer.begin(size, false).unwrap();
            let place = packer.place(0, usize::try_from(size).unwrap()).unwrap();
            assert_eq!(u64::try_from(place.length).unwrap(), size);
            packer.end()
        };
        assert_eq!(
            [pack(1), pack(4096), pack(0), pack(4097)],
            [Data::Blocks(0), Data::Blocks(1), Data::Nothing, Data::Blocks(2)]
        );
        assert_eq!(packer.blocks(), 4);
    }

    #[test]
    fn holes_take_no_place() {
        let mut packer = Packer::new();
        packer.begin(1 << 20, true).unwrap();
        for (offset, length, at, placed) in
            [(0, 5000, 0, 4096), (4096, 904, 4096, 904), (5000, 10, 5000, 10), (100_000, 10, 8192 + 1696, 10)]
        {
            assert_eq!(packer.place(offset, length).unwrap(), Place { at, length: placed }, "{offset}");
        }
        let runs = vec![Run { first: 0, count: 2, block: 0 }, Run { first: 24, count: 1, block: 2 }];
        assert_eq!(packer.end(), Data::Chunks { bits: 0, runs });
        packer.begin(1 << 50, true).unwrap();
        assert_eq!(packer.end(), Data::Nothing);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut packer = Packer::new();
        packer.begin(MAX_BLOCKS * BLOCK, false).unwrap();
        packer.end();
        assert!(packer.begin(1, false).is_err());
        packer.begin(u64::MAX, true).unwrap();
        assert!(packer.place(0, 1).is_err());
    }
}
