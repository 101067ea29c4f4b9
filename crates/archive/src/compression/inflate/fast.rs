//! The loop that most of the time is spent in: symbols far from the edges of input and output.
//!
//! What it costs is a chain: the bits that are left after one symbol are the index of the next one. So each entry is looked up
//! as early as its bits are there: before new ones are added to them, and before what was found is copied.
#![expect(
    clippy::indexing_slicing,
    reason = "the loop ends where less than INPUT and OUTPUT bytes are left; checked all the same"
)]
#![expect(clippy::inline_always, reason = "parts of the loop")]

use super::source::Bits;
use super::table::{END, EXCEPTION, LITERAL, PART, code_bits};
use super::{Codes, Damage, Run};

/// How many bytes of input one turn of the loop takes at most, and looks at beyond: three words.
const INPUT: usize = 24;

/// How many bytes of output one turn makes at most, and overwrites beyond: literals, a match, and words.
const OUTPUT: usize = 8 + 258 + 40;

/// The bits that are here, in a register.
///
/// There are more than `count` says: what is above them are those of the bytes that come, as far as they fit. Of `count` only the
/// lowest six bits mean something.
struct Register {
    buffer: u64,
    count: u32,
}

impl Register {
    /// Sees to it that there are at least 56 bits.
    #[inline(always)]
    fn fill(&mut self, input: &mut &[u8]) {
        let mut word = [0; 8];
        word.copy_from_slice(&input[..8]);
        self.buffer |= u64::from_le_bytes(word).wrapping_shl(self.count);
        *input = &input[7 - (self.count as usize >> 3 & 7)..];
        self.count |= 0b11_1000;
    }

    /// Drops the bits of an entry. What is above its number of bits changes nothing here.
    #[inline(always)]
    fn skip(&mut self, entry: u32) {
        self.buffer = self.buffer.wrapping_shr(entry);
        self.count = self.count.wrapping_sub(entry);
    }
}

/// Reads symbols as long as the edges are far. Returns true when the block ended.
pub(super) fn run(held: &mut Bits, run: &mut Run<'_>, codes: &Codes) -> Result<bool, Damage> {
    let mut input = run.source.rest();
    let all = input.len();
    // So that a distance is too far when it is more than `end`.
    let Some(out) = run.bytes.get_mut(run.floor..) else { return Ok(false) };
    let mut end = run.end - run.floor;
    let Some(last_end) = out.len().checked_sub(OUTPUT) else { return Ok(false) };
    // One turn at least, which uses what was held before.
    if input.len() < INPUT + 8 || end > last_end {
        return Ok(false);
    }
    let mut bits = Register { buffer: held.buffer, count: held.count };
    let mut ended = false;
    bits.fill(&mut input);
    let mut entry = codes.literals.entry(bits.buffer);
    while input.len() >= INPUT && end <= last_end {
        // Two literals and the longest symbol leave enough bits to look up a distance: 56 - 2 · 11 - 20.
        if entry & LITERAL != 0 {
            literal(&mut bits, out, &mut end, entry);
            entry = codes.literals.entry(bits.buffer);
            if entry & LITERAL != 0 {
                literal(&mut bits, out, &mut end, entry);
                entry = codes.literals.entry(bits.buffer);
                if entry & LITERAL != 0 {
                    literal(&mut bits, out, &mut end, entry);
                    entry = codes.literals.entry(bits.buffer);
                    bits.fill(&mut input);
                    continue;
                }
            }
        }
        let mut before = bits.buffer;
        bits.skip(entry);
        if entry & EXCEPTION != 0 {
            if entry & PART != 0 {
                entry = codes.literals.entry_of(entry, bits.buffer);
                if entry & LITERAL != 0 {
                    literal(&mut bits, out, &mut end, entry);
                    entry = codes.literals.entry(bits.buffer);
                    bits.fill(&mut input);
                    continue;
                }
                before = bits.buffer;
                bits.skip(entry);
            }
            if entry & EXCEPTION != 0 {
                if entry & END == 0 {
                    return Err(Damage::Symbol);
                }
                ended = true;
                break;
            }
        }
        let length = value(before, entry);

        let distance = distance(&mut bits, &mut input, codes)?;
        if distance > end {
            return Err(Damage::TooFar);
        }
        entry = codes.literals.entry(bits.buffer);
        bits.fill(&mut input);
        copy(out, end, distance, length);
        end += length;
    }
    run.end = run.floor + end;
    // Whole bytes that are left came from this input: what was held before was less than the first symbol and a byte.
    let count = bits.count & 63;
    run.source.read += all - input.len() - (count >> 3) as usize;
    held.count = count & 7;
    held.buffer = bits.buffer & ((1 << held.count) - 1);
    Ok(ended)
}

/// Takes a distance. Its entry can be looked up with the bits that are here.
#[inline(always)]
fn distance(bits: &mut Register, input: &mut &[u8], codes: &Codes) -> Result<usize, Damage> {
    let mut entry = codes.distances.entry(bits.buffer);
    bits.fill(input);
    let mut before = bits.buffer;
    bits.skip(entry);
    if entry & EXCEPTION != 0 {
        if entry & PART != 0 {
            entry = codes.distances.entry_of(entry, bits.buffer);
            before = bits.buffer;
            bits.skip(entry);
        }
        if entry & EXCEPTION != 0 {
            return Err(Damage::Distance);
        }
    }
    Ok(value(before, entry))
}

/// Takes a literal.
#[inline(always)]
fn literal(bits: &mut Register, out: &mut [u8], end: &mut usize, entry: u32) {
    bits.skip(entry);
    out[*end] = entry.to_le_bytes()[2];
    *end += 1;
}

/// Returns the length or the distance that an entry and the bits it takes are.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "less than 2²⁸")]
fn value(before: u64, entry: u32) -> usize {
    // The mask is another one than that of `skip`, or the compiler shares it, and the chain is longer by one.
    let bits = before & ((1 << (entry & 31)) - 1);
    (entry >> 16) as usize + (bits >> code_bits(entry)) as usize
}

/// Copies a match, and up to 31 bytes more.
#[inline(always)]
fn copy(out: &mut [u8], end: usize, distance: usize, length: usize) {
    let (mut from, mut to, last) = (end - distance, end, end + length);
    if distance >= 16 {
        word::<16>(out, from, to);
        word::<16>(out, from + 16, to + 16);
        if length > 32 {
            (from, to) = (from + 32, to + 32);
            while to < last {
                word::<16>(out, from, to);
                (from, to) = (from + 16, to + 16);
            }
        }
    } else if distance == 1 {
        let value = [out[from]; 16];
        while to < last {
            out[to..to + 16].copy_from_slice(&value);
            to += 16;
        }
    } else if distance >= 8 {
        while to < last {
            word::<8>(out, from, to);
            (from, to) = (from + 8, to + 8);
        }
    } else {
        // A word that begins before its source is complete is copied as far as that is, and the rest again.
        while to < last {
            word::<8>(out, from, to);
            (from, to) = (from + distance, to + distance);
        }
    }
}

#[inline(always)]
fn word<const N: usize>(out: &mut [u8], from: usize, to: usize) {
    let mut word = [0; N];
    word.copy_from_slice(&out[from..from + N]);
    out[to..to + N].copy_from_slice(&word);
}
