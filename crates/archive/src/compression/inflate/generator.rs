//! Deflated streams that no compressor would make.

use super::symbols;
use super::table::{EXCEPTION, bits};

/// A sequence of numbers that looks like chance.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Returns a number below the limit.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Bits as deflate orders them.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    bit: u32,
}

impl Writer {
    /// Writes a number, its lowest bit first.
    fn number(&mut self, value: usize, count: u32) {
        for index in 0..count {
            if self.bit == 0 {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= u8::try_from(value >> index & 1).unwrap() << self.bit;
            self.bit = (self.bit + 1) % 8;
        }
    }

    /// Writes a code, its highest bit first.
    fn code(&mut self, code: (usize, u32)) {
        for index in (0..code.1).rev() {
            self.number(code.0 >> index & 1, 1);
        }
    }
}

/// Returns the codes for such lengths, RFC 1951, section 3.2.2.
fn codes(lengths: &[u8]) -> Vec<(usize, u32)> {
    let mut next = [0_usize; 17];
    for length in 1..=15 {
        let shorter = lengths.iter().filter(|it| usize::from(**it) == length - 1 && **it > 0).count();
        next[length] = (next[length - 1] + shorter) << 1;
    }
    let mut code = |length: &u8| {
        let code = next[usize::from(*length)];
        next[usize::from(*length)] += 1;
        (code, u32::from(*length))
    };
    lengths.iter().map(|length| if *length == 0 { (0, 0) } else { code(length) }).collect()
}

/// Gives `count` of the symbols codes of random lengths that leave nothing unused, up to `longest`.
fn lengths(random: &mut Random, symbols: usize, count: usize, longest: u8, wanted: Option<usize>) -> Vec<u8> {
    let mut leaves: Vec<u8> = vec![u8::from(count < 2)];
    while leaves.len() < count {
        let at = if random.one_in(3) { leaves.len() - 1 } else { random.below(leaves.len()) };
        if leaves[at] < longest {
            leaves[at] += 1;
            leaves.push(leaves[at]);
        }
    }
    let mut lengths = vec![0; symbols];
    if let Some(wanted) = wanted {
        lengths[wanted] = leaves.pop().unwrap();
    }
    for leaf in leaves {
        let free: Vec<usize> = (0..symbols).filter(|it| lengths[*it] == 0 && Some(*it) != wanted).collect();
        lengths[free[random.below(free.len())]] = leaf;
    }
    lengths
}

/// Writes the codes of a block, sometimes wrong ones.
fn header(random: &mut Random, writer: &mut Writer, literals: &[u8], distances: &[u8]) {
    let all = [literals, distances].concat();
    writer.number(literals.len() - 257, 5);
    writer.number(distances.len() - 1, 5);
    let count = 4 + random.below(16);
    let orders = if random.one_in(80) {
        (0..19).map(|_| u8::try_from(random.below(8)).unwrap()).collect()
    } else {
        lengths(random, 19, 19, 7, None)
    };
    let count = if random.one_in(80) { count } else { 19 };
    writer.number(count - 4, 4);
    for order in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15].iter().take(count) {
        writer.number(usize::from(orders[*order]), 3);
    }
    let codes = codes(&orders);
    let mut at = 0;
    while at < all.len() {
        let same = all[at..].iter().take_while(|length| **length == all[at]).count();
        let before = at > 0 && all[at - 1] == all[at];
        let run = if random.one_in(20_000) { 138 } else { same };
        at += match (all[at], run) {
            (0, 11..) => {
                writer.code(codes[18]);
                writer.number(run.min(138) - 11, 7);
                run.min(138)
            }
            (0, 3..) => {
                writer.code(codes[17]);
                writer.number(run.min(10) - 3, 3);
                run.min(10)
            }
            (_, 3..) if before => {
                writer.code(codes[16]);
                writer.number(run.min(6) - 3, 2);
                run.min(6)
            }
            (length, _) => {
                writer.code(codes[usize::from(length)]);
                1
            }
        };
    }
}

/// Writes symbols that have codes, and returns how many bytes they stand for.
fn body(random: &mut Random, writer: &mut Writer, literals: &[u8], distances: &[u8], mut made: usize) -> usize {
    let (literal_codes, distance_codes) = (codes(literals), codes(distances));
    let used: Vec<usize> = (0..literals.len()).filter(|it| literals[*it] > 0 && *it != 256).collect();
    let back: Vec<usize> = (0..distances.len()).filter(|it| distances[*it] > 0).collect();
    // Sometimes long enough for all distances.
    let count = if random.one_in(4) { random.below(3000) } else { random.below(60) };
    for _ in 0..if used.is_empty() { 0 } else { count } {
        let symbol = used[random.below(used.len())];
        if symbol < 256 {
            writer.code(literal_codes[symbol]);
            made += 1;
            continue;
        }
        let entry = symbols::LITERALS[symbol];
        let far = |symbol: &&usize| {
            let entry = symbols::DISTANCES[**symbol];
            entry & EXCEPTION == 0 && (entry >> 16) as usize <= made
        };
        let possible: Vec<usize> = back.iter().filter(far).copied().collect();
        let refused = random.one_in(10_000);
        if (entry & EXCEPTION != 0 || possible.is_empty()) && !refused {
            continue;
        }
        let extra = bits(entry);
        let more = random.below(1 << extra);
        let length = (entry >> 16) as usize + more;
        writer.code(literal_codes[symbol]);
        writer.number(more, extra);
        let choice = if refused { &back } else { &possible };
        let Some(distance) = choice.get(random.below(choice.len().max(1))) else { continue };
        writer.code(distance_codes[*distance]);
        let (base, extra) = ((symbols::DISTANCES[*distance] >> 16) as usize, bits(symbols::DISTANCES[*distance]));
        let room = (made.saturating_sub(base) + 1).min(1 << extra);
        writer.number(if refused { random.below(1 << extra) } else { random.below(room) }, extra);
        made += length;
    }
    writer.code(literal_codes[256]);
    made
}

/// Returns a stream of blocks of all types; most are sound.
pub(super) fn stream(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut writer = Writer::default();
    let mut made = 0;
    loop {
        let last = random.one_in(3);
        writer.number(usize::from(last), 1);
        match random.below(60) {
            0 => writer.number(3, 2),
            1..10 => {
                writer.number(0, 2);
                writer.bit = 0;
                let length = [0, 1, random.below(70), random.below(40_000)][random.below(4)];
                writer.number(length, 16);
                writer.number(if random.one_in(30) { length } else { !length }, 16);
                (0..length).for_each(|at| writer.number((at * at) >> 3 & 0xff, 8));
                made += length;
            }
            10..25 => {
                writer.number(1, 2);
                made = body(&mut random, &mut writer, &symbols::fixed_literals(), &[5; 32], made);
            }
            _ => {
                writer.number(2, 2);
                let (most, far) = (257 + random.below(30), 1 + random.below(30));
                let count = if random.one_in(5) { 1 + random.below(4) } else { 1 + random.below(most) };
                let end = (!random.one_in(80)).then_some(256);
                let mut literals = lengths(&mut random, most, count, 15, end);
                let count = 1 + random.below(far);
                let mut distances = lengths(&mut random, far, count, 15, None);
                if random.one_in(15) {
                    distances.fill(0);
                }
                if random.one_in(80) {
                    let at = random.below(most);
                    literals[at] = u8::try_from(random.below(16)).unwrap();
                }
                if random.one_in(80) {
                    let at = random.below(far);
                    distances[at] = u8::try_from(random.below(16)).unwrap();
                }
                header(&mut random, &mut writer, &literals, &distances);
                made = body(&mut random, &mut writer, &literals, &distances, made);
            }
        }
        if last {
            // What follows a stream is not a part of it.
            writer.bytes.extend(std::iter::repeat_n(0xa5, random.below(12)));
            return writer.bytes;
        }
    }
}
