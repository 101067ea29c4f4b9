//! What is in front of a block with codes of its own: the codes, RFC 1951, section 3.2.7.

use super::source::{Bits, Source};
use super::table::{Incomplete, Table, bits};
use super::{Codes, Damage, symbols};

/// How many symbols there can be: those of literals and lengths, and those of distances.
const SYMBOLS: usize = 286 + 30;

/// The order in which the lengths of the codes for lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The codes of a block as far as they are known.
pub(super) struct Header {
    /// How many symbols there are for literals and lengths.
    literals: usize,
    /// How many symbols there are.
    symbols: usize,
    /// How many lengths of codes for lengths there are.
    orders: usize,
    /// How many lengths were read: of the codes for lengths, then of the symbols' codes.
    read: usize,
    state: State,
    lengths: [u8; SYMBOLS],
    /// The codes for lengths.
    table: Table<7, 256>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Counts,
    Orders,
    Lengths,
}

impl Header {
    pub(super) fn new() -> Self {
        Self {
            literals: 0,
            symbols: 0,
            orders: 0,
            read: 0,
            state: State::Counts,
            lengths: [0; SYMBOLS],
            table: Table::new(),
        }
    }

    /// Forgets what was read.
    pub(super) fn restart(&mut self) {
        self.state = State::Counts;
    }

    /// Reads on. Returns true when the codes are complete, false when there is too little input.
    pub(super) fn read(
        &mut self,
        input: &mut Bits,
        source: &mut Source<'_>,
        codes: &mut Codes,
    ) -> Result<bool, Damage> {
        if self.state == State::Counts {
            if !input.need(14, source) {
                return Ok(false);
            }
            self.literals = usize::from(input.take(5)) + 257;
            self.symbols = self.literals + usize::from(input.take(5)) + 1;
            self.orders = usize::from(input.take(4)) + 4;
            if self.literals > 286 || self.symbols - self.literals > 30 {
                return Err(Damage::TooManySymbols);
            }
            (self.state, self.read, self.lengths) = (State::Orders, 0, [0; SYMBOLS]);
        }
        if self.state == State::Orders {
            for order in ORDER.iter().take(self.orders).skip(self.read) {
                if !input.need(3, source) {
                    return Ok(false);
                }
                let length = input.take(3).to_le_bytes()[0];
                self.read += 1;
                if let Some(to) = self.lengths.get_mut(*order) {
                    *to = length;
                }
            }
            let lengths = self.lengths.first_chunk::<19>().unwrap_or(&[0; 19]);
            self.table.build(lengths, &symbols::LENGTHS_OF_CODES, Incomplete::Refused)?;
            (self.state, self.read) = (State::Lengths, 0);
        }
        while self.read < self.symbols {
            if !self.length(input, source)? {
                return Ok(false);
            }
        }
        // All that was held before is used by now.
        input.give_back(source);
        self.state = State::Counts;
        let (literals, distances) = self.lengths.split_at(self.literals);
        codes.set(literals, distances.get(..self.symbols - self.literals).unwrap_or_default())?;
        Ok(true)
    }

    /// Reads a length, or several that are the same. Returns false when there is too little input.
    fn length(&mut self, input: &mut Bits, source: &mut Source<'_>) -> Result<bool, Damage> {
        if input.count < 14 {
            input.fill(source);
        }
        let entry = loop {
            let entry = self.table.entry(input.buffer);
            if bits(entry) <= input.count {
                break entry;
            }
            if !input.need(input.count + 1, source) {
                return Ok(false);
            }
        };
        let symbol = (entry >> 16).to_le_bytes()[0];
        let (least, extra) = match symbol {
            16 => (3, 2),
            17 => (3, 3),
            18 => (11, 7),
            _ => (1, 0),
        };
        if !input.need(bits(entry) + extra, source) {
            return Ok(false);
        }
        input.skip(bits(entry));
        let count = least + usize::from(input.take(extra));
        let length = match symbol {
            16 => *self.read.checked_sub(1).and_then(|last| self.lengths.get(last)).ok_or(Damage::Repeat)?,
            17 | 18 => 0,
            length => length,
        };
        let end = self.read + count;
        let run = self.lengths.get_mut(self.read..end).filter(|_| end <= self.symbols).ok_or(Damage::Repeat)?;
        run.fill(length);
        self.read = end;
        Ok(true)
    }
}
