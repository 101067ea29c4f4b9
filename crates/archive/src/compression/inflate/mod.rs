//! Deflated data, RFC 1951, decompressed.
//!
//! ```text
//!   step ──► block header ──► stored bytes
//!                        └──► symbols: fast::run far from the edges of input and output, one at a time near them
//! ```
//!
//! Input may be cut anywhere. What is kept of it is the bits of one symbol that is not complete; whatever else is taken was used.

mod fast;
#[cfg(test)]
mod generator;
mod header;
mod source;
mod symbols;
mod table;
#[cfg(test)]
mod tests;

use super::Step;
use super::output::{Output, WINDOW};
use header::Header;
use source::{Bits, Source};
use table::{END, EXCEPTION, Incomplete, LITERAL, PART, Table, bits, code_bits};

/// What is wrong with deflated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// A block of the type that is not used.
    BlockType,
    /// The length of stored bytes differs from its complement.
    StoredLength,
    /// More symbols than there are.
    TooManySymbols,
    /// More codes of their length than there can be.
    Oversubscribed,
    /// Bits that would be no code.
    Incomplete,
    /// A block has no code for its end.
    NoEnd,
    /// A length is repeated before there was one, or too often.
    Repeat,
    /// Bits that are no literal, no length and no end.
    Symbol,
    /// Bits that are no distance.
    Distance,
    /// A distance to before the beginning.
    TooFar,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BlockType => "a block of an unknown type",
            Self::StoredLength => "the length of stored bytes is not what its check says",
            Self::TooManySymbols => "a block with too many symbols",
            Self::Oversubscribed => "codes that overlap",
            Self::Incomplete => "codes that are incomplete",
            Self::NoEnd => "a block without an end",
            Self::Repeat => "a repeated length where there can be none",
            Self::Symbol => "bits that are no symbol",
            Self::Distance => "bits that are no distance",
            Self::TooFar => "a distance to before the beginning",
        })
    }
}

impl std::error::Error for Damage {}

/// The codes of a block.
struct Codes {
    literals: Table<11, 4096>,
    distances: Table<8, 512>,
    /// They are those of fixed blocks.
    fixed: bool,
}

impl Codes {
    fn new() -> Self {
        Self { literals: Table::new(), distances: Table::new(), fixed: false }
    }

    fn set(&mut self, literals: &[u8], distances: &[u8]) -> Result<(), Damage> {
        self.fixed = false;
        if literals.get(256).is_none_or(|end| *end == 0) {
            return Err(Damage::NoEnd);
        }
        self.literals.build(literals, &symbols::LITERALS, Incomplete::OneBit)?;
        self.distances.build(distances, &symbols::DISTANCES, Incomplete::OneBitOrNone)
    }

    fn set_fixed(&mut self) -> Result<(), Damage> {
        if !self.fixed {
            self.set(&symbols::fixed_literals(), &[5; 32])?;
            self.fixed = true;
        }
        Ok(())
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The type of a block.
    Block,
    /// The length of stored bytes.
    StoredLength,
    /// So many stored bytes.
    Stored(usize),
    /// The codes of a block.
    Header,
    Symbols,
    /// The rest of a match for which there was no room.
    Match {
        distance: usize,
        length: usize,
    },
    End,
}

/// A deflated stream being read.
pub(super) struct Inflate {
    state: State,
    bits: Bits,
    /// The block that is being read is the last one.
    last: bool,
    header: Box<Header>,
    codes: Box<Codes>,
    /// How many bytes came out of this stream.
    total: u64,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self {
            state: State::Block,
            bits: Bits::default(),
            last: false,
            header: Box::new(Header::new()),
            codes: Box::new(Codes::new()),
            total: 0,
        }
    }

    /// Begins another stream.
    pub(super) fn reset(&mut self) {
        (self.state, self.bits, self.last, self.total) = (State::Block, Bits::default(), false, 0);
        self.header.restart();
    }

    /// Whether the stream has ended.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Returns how many bytes came out of the stream.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Decompresses until there is no more input or no more room, or the stream ends.
    pub(super) fn step(&mut self, input: &[u8], output: &mut Output) -> Result<Step, Damage> {
        let start = output.end;
        // Nothing from before the stream may be referred to.
        let before = usize::try_from(self.total).unwrap_or(usize::MAX);
        let mut run = Run {
            source: Source { bytes: input, read: 0 },
            floor: start.saturating_sub(before.min(WINDOW)),
            end: start,
            bytes: &mut output.bytes,
        };
        while self.advance(&mut run)? {}
        let step = Step { read: run.source.read, written: run.end - start };
        output.end = run.end;
        self.total += step.written as u64;
        Ok(step)
    }

    /// Does what comes next. Returns false when that is not possible.
    fn advance(&mut self, run: &mut Run<'_>) -> Result<bool, Damage> {
        match self.state {
            State::Block => {
                if !self.bits.need(3, &mut run.source) {
                    return Ok(false);
                }
                self.last = self.bits.take(1) == 1;
                self.state = match self.bits.take(2) {
                    0 => State::StoredLength,
                    1 => {
                        self.codes.set_fixed()?;
                        State::Symbols
                    }
                    2 => State::Header,
                    _ => return Err(Damage::BlockType),
                };
                if self.state == State::StoredLength {
                    self.bits.align();
                }
            }
            State::StoredLength => {
                if !self.bits.need(32, &mut run.source) {
                    return Ok(false);
                }
                let (length, check) = (self.bits.take(16), self.bits.take(16));
                if length != !check {
                    return Err(Damage::StoredLength);
                }
                self.state = State::Stored(usize::from(length));
            }
            State::Stored(0) => self.end_of_block(),
            State::Stored(left) => {
                let count = run.store(left);
                self.state = State::Stored(left - count);
                return Ok(count > 0);
            }
            State::Header => {
                if !self.header.read(&mut self.bits, &mut run.source, &mut self.codes)? {
                    return Ok(false);
                }
                self.state = State::Symbols;
            }
            State::Symbols => return self.symbols(run),
            State::Match { length: 0, .. } => self.state = State::Symbols,
            State::Match { distance, length } => {
                let count = run.copy(distance, length);
                self.state = State::Match { distance, length: length - count };
                return Ok(count > 0);
            }
            State::End => return Ok(false),
        }
        Ok(true)
    }

    fn end_of_block(&mut self) {
        self.state = if self.last { State::End } else { State::Block };
        if self.last {
            self.bits.align();
        }
    }

    /// Reads the symbols of a block.
    fn symbols(&mut self, run: &mut Run<'_>) -> Result<bool, Damage> {
        loop {
            if fast::run(&mut self.bits, run, &self.codes)? {
                self.end_of_block();
                return Ok(true);
            }
            if !self.symbol(run)? {
                return Ok(false);
            }
            if self.state != State::Symbols {
                return Ok(true);
            }
        }
    }

    /// Reads one symbol. Returns false when there is too little input or no room.
    fn symbol(&mut self, run: &mut Run<'_>) -> Result<bool, Damage> {
        if run.end == run.bytes.len() {
            return Ok(false);
        }
        let Some(symbol) = find(&self.codes.literals, &mut self.bits, &mut run.source, 0) else { return Ok(false) };
        if symbol.entry & LITERAL != 0 {
            self.bits.skip(symbol.end);
            run.push(symbol.entry.to_le_bytes()[2]);
            return Ok(true);
        }
        if symbol.entry & EXCEPTION != 0 {
            if symbol.entry & END == 0 {
                return Err(Damage::Symbol);
            }
            self.bits.skip(symbol.end);
            self.end_of_block();
            return Ok(true);
        }
        let Some(back) = find(&self.codes.distances, &mut self.bits, &mut run.source, symbol.end) else {
            return Ok(false);
        };
        if back.entry & EXCEPTION != 0 {
            return Err(Damage::Distance);
        }
        let (length, distance) = (symbol.value(self.bits), back.value(self.bits));
        if distance > run.end - run.floor {
            return Err(Damage::TooFar);
        }
        self.bits.skip(back.end);
        self.state = State::Match { distance, length };
        Ok(true)
    }
}

/// A symbol in the bits that are here.
struct Found {
    entry: u32,
    /// Where the bits of the entry begin.
    start: u32,
    /// Where they end.
    end: u32,
}

impl Found {
    /// Returns the length or the distance.
    fn value(&self, bits: Bits) -> usize {
        let code = code_bits(self.entry);
        let extra = bits.buffer >> (self.start + code) & ((1 << (self.end - self.start - code)) - 1);
        (self.entry >> 16) as usize + usize::try_from(extra).unwrap_or_default()
    }
}

/// Finds the symbol that begins after so many bits.  Nothing when there is too little input.
///
/// Bits that are not here yet are 0. What is found with them counts only when it is complete without them; and where it is not,
/// no shorter code fits those that are here, so that another byte is needed in any case.
fn find<const WIDTH: u32, const SIZE: usize>(
    table: &Table<WIDTH, SIZE>,
    input: &mut Bits,
    source: &mut Source<'_>,
    from: u32,
) -> Option<Found> {
    loop {
        let mut start = from;
        let mut entry = table.entry(input.buffer >> start);
        if entry & PART != 0 {
            start += bits(entry);
            entry = table.entry_of(entry, input.buffer >> start);
        }
        let end = start + bits(entry);
        if end <= input.count {
            return Some(Found { entry, start, end });
        }
        if !input.need(input.count + 1, source) {
            return None;
        }
    }
}

/// Input and output of a step.
struct Run<'a> {
    source: Source<'a>,
    bytes: &'a mut [u8],
    /// Where the content of `bytes` ends.
    end: usize,
    /// From where on a distance may lead into it.
    floor: usize,
}

impl Run<'_> {
    fn push(&mut self, byte: u8) {
        if let Some(to) = self.bytes.get_mut(self.end) {
            *to = byte;
            self.end += 1;
        }
    }

    /// Copies stored bytes, as far as there are any and there is room; returns how many.
    fn store(&mut self, count: usize) -> usize {
        let from = self.source.rest();
        let to = self.bytes.get_mut(self.end..).unwrap_or_default();
        let count = count.min(from.len()).min(to.len());
        if let (Some(to), Some(from)) = (to.get_mut(..count), from.get(..count)) {
            to.copy_from_slice(from);
        }
        self.end += count;
        self.source.read += count;
        count
    }

    /// Copies a match, as far as there is room; returns how many bytes.
    fn copy(&mut self, distance: usize, length: usize) -> usize {
        let count = length.min(self.bytes.len() - self.end);
        for _ in 0..count {
            let byte = self.end.checked_sub(distance).and_then(|from| self.bytes.get(from));
            self.push(byte.copied().unwrap_or_default());
        }
        count
    }
}
