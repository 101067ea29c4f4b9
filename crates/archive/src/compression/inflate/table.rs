//! Huffman codes as tables: the next bits of the stream are the index of what they mean.
//!
//! A code that is longer than the bits of the index is found in two steps: the first entry says which part of the table, behind
//! the first 2ⁿ entries, the bits after these are the index of.
//!
//! ```text
//!   bit        31  30      25  24  23     16  15        8  7       0
//!   literal     1          literal, to bit 16 0 0 0  code    bits
//!   length      0  base, to bit 16            0 0 0  code    bits       "bits" includes the extra ones, "code" does not
//!   end         0                             1 0 1  code    bits
//!   part        0  start, to bit 16           1 1 0  width   bits
//!   no code     0                             1 0 0  code    bits
//! ```

#![expect(
    clippy::indexing_slicing,
    reason = "indices are lengths of codes, symbols, and codes of lengths whose sum was checked"
)]
#![expect(clippy::cast_possible_truncation, reason = "a table has less than 2¹⁶ entries")]

use super::Damage;

/// The longest code, RFC 1951, section 3.2.7.
const MAX_BITS: usize = 15;

/// The entry is a literal.
pub(super) const LITERAL: u32 = 1 << 31;
/// The entry is no literal and no base.
pub(super) const EXCEPTION: u32 = 1 << 15;
/// The code is longer than the index.
pub(super) const PART: u32 = 1 << 14;
/// The block ends.
pub(super) const END: u32 = 1 << 13;

/// What bits mean that no code begins with.
const UNUSED: u32 = EXCEPTION | 1;

/// How many bits an entry takes from the stream.
pub(super) const fn bits(entry: u32) -> u32 {
    entry & 0xff
}

/// How many of them are the code.
pub(super) const fn code_bits(entry: u32) -> u32 {
    entry >> 8 & 15
}

/// What an incomplete code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incomplete {
    /// Damage.
    Refused,
    /// Fine when there is one code, of one bit.
    OneBit,
    /// That, or no code at all.
    OneBitOrNone,
}

/// A table of `SIZE` entries, a power of two, whose index has `WIDTH` bits.
pub(super) struct Table<const WIDTH: u32, const SIZE: usize> {
    entries: [u32; SIZE],
}

impl<const WIDTH: u32, const SIZE: usize> Table<WIDTH, SIZE> {
    pub(super) const fn new() -> Self {
        Self { entries: [UNUSED; SIZE] }
    }

    /// Returns the entry that the next bits are the index of.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the loop around it was measured with it")]
    pub(super) fn entry(&self, stream: u64) -> u32 {
        const { assert!(SIZE.is_power_of_two() && SIZE > 1 << WIDTH) };
        self.entries[low(stream, WIDTH)]
    }

    /// Returns the entry that the next bits are the index of, when those before were the code of `part`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the loop around it was measured with it")]
    pub(super) fn entry_of(&self, part: u32, stream: u64) -> u32 {
        self.entries[((part >> 16) as usize + low(stream, code_bits(part))) & (SIZE - 1)]
    }

    /// Makes the table of a code: for each symbol how long its code is, or 0, and its entry without that.
    pub(super) fn build(&mut self, lengths: &[u8], symbols: &[u32], incomplete: Incomplete) -> Result<(), Damage> {
        let mut counts = [0_u16; MAX_BITS + 1];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        counts[0] = 0;
        if !is_complete(&counts)? {
            let [_, one, longer @ ..] = counts;
            let codes = one + longer.iter().sum::<u16>();
            let fine = match incomplete {
                Incomplete::Refused => false,
                Incomplete::OneBit => (one, codes) == (1, 1),
                Incomplete::OneBitOrNone => one == codes,
            };
            if !fine {
                return Err(Damage::Incomplete);
            }
            self.entries[..1 << WIDTH].fill(UNUSED);
        }
        self.fill(&counts, lengths, symbols)
    }

    fn fill(&mut self, counts: &[u16; 16], lengths: &[u8], symbols: &[u32]) -> Result<(), Damage> {
        let mut sorted = [0_u16; 320];
        let used = sort(lengths, counts, &mut sorted);
        let mut sorted = sorted.iter().take(used).map(|symbol| usize::from(*symbol));
        // The next code, from its last bit to its first, as the stream has it.
        let mut code = 0_usize;
        // So many entries are filled, and the rest of the index repeats them.
        let mut filled = 1_usize;
        for length in 1..=WIDTH {
            // With codes of one bit only, the second entry stays what it was.
            if length > 1 || used > 1 {
                self.entries.copy_within(..filled, filled);
            }
            filled *= 2;
            for _ in 0..counts[length as usize] {
                let Some(symbol) = sorted.next() else { return Ok(()) };
                self.entries[code] = complete(symbols[symbol], length);
                code = next_code(code, length);
            }
        }
        let mut free = filled;
        let mut prefix = usize::MAX;
        let (mut start, mut width) = (0, 0);
        for length in WIDTH + 1..=MAX_BITS as u32 {
            for left in (1..=counts[length as usize]).rev() {
                let Some(symbol) = sorted.next() else { return Ok(()) };
                if code & (filled - 1) != prefix {
                    prefix = code & (filled - 1);
                    width = part_width(counts, length, length - WIDTH, left);
                    start = free;
                    free += 1 << width;
                    if free > SIZE {
                        return Err(Damage::Incomplete);
                    }
                    self.entries[prefix] = (start as u32) << 16 | EXCEPTION | PART | width << 8 | WIDTH;
                }
                let entry = complete(symbols[symbol], length - WIDTH);
                for index in (start + (code >> WIDTH)..start + (1 << width)).step_by(1 << (length - WIDTH)) {
                    self.entries[index] = entry;
                }
                code = next_code(code, length);
            }
        }
        Ok(())
    }
}

/// Whether there is a code for whatever comes.
fn is_complete(counts: &[u16; 16]) -> Result<bool, Damage> {
    let mut left = 1_i32;
    for count in counts.iter().skip(1) {
        left = left * 2 - i32::from(*count);
        if left < 0 {
            return Err(Damage::Oversubscribed);
        }
    }
    Ok(left == 0)
}

/// Puts the symbols that have a code into the order of their codes; returns how many they are.
fn sort(lengths: &[u8], counts: &[u16; 16], sorted: &mut [u16; 320]) -> usize {
    let mut offsets = [0_u16; 16];
    let mut sum = 0;
    for (offset, count) in offsets.iter_mut().zip(counts) {
        *offset = sum;
        sum += count;
    }
    for (symbol, length) in (0_u16..).zip(lengths) {
        if *length > 0 {
            let offset = &mut offsets[usize::from(*length)];
            sorted[usize::from(*offset)] = symbol;
            *offset += 1;
        }
    }
    usize::from(sum)
}

/// How many bits are the index of a part that begins with a code which is so much longer than the main index, when `left` codes
/// of that length are to come.
fn part_width(counts: &[u16; 16], length: u32, longer: u32, left: u16) -> u32 {
    let (mut width, mut length) = (longer, length as usize);
    let mut used = u32::from(left);
    while used < 1 << width && length < MAX_BITS {
        width += 1;
        length += 1;
        used = used * 2 + u32::from(counts[length]);
    }
    width
}

/// The code after this one, both with their first bit last.
fn next_code(code: usize, length: u32) -> usize {
    // The highest bit that is not set, of those the code has, is the lowest of the number that the code is.
    let unset = !code & ((1 << length) - 1);
    let Some(highest) = unset.checked_ilog2() else { return code };
    code & ((1 << highest) - 1) | 1 << highest
}

/// Adds the length of its code to a symbol's entry.
fn complete(symbol: u32, length: u32) -> u32 {
    symbol + (length << 8 | length)
}

fn low(stream: u64, bits: u32) -> usize {
    (stream & ((1 << bits) - 1)) as usize
}
