//! What the symbols of deflate mean, RFC 1951, section 3.2.5, as entries of tables without their codes.
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "computed while compiling, from small numbers"
)]

use super::table::{END, EXCEPTION, LITERAL};

/// Literals, the end of a block, and lengths. The last two have codes in fixed blocks, and no meaning.
pub(super) static LITERALS: [u32; 288] = literals();

/// Distances. The last two have codes in fixed blocks, and no meaning.
pub(super) static DISTANCES: [u32; 32] = distances();

/// Lengths of codes, and how they are repeated: the symbols alone.
pub(super) static LENGTHS_OF_CODES: [u32; 19] = lengths_of_codes();

/// The lengths of the fixed codes of literals, RFC 1951, section 3.2.6.
pub(super) const fn fixed_literals() -> [u8; 288] {
    let mut lengths = [8; 288];
    let mut symbol = 144;
    while symbol < 280 {
        lengths[symbol] = if symbol < 256 { 9 } else { 7 };
        symbol += 1;
    }
    lengths
}

const fn literals() -> [u32; 288] {
    let mut entries = [EXCEPTION; 288];
    let mut symbol = 0;
    while symbol < 256 {
        entries[symbol] = LITERAL | (symbol as u32) << 16;
        symbol += 1;
    }
    entries[256] = EXCEPTION | END;
    let mut base = 3;
    symbol = 257;
    while symbol < 285 {
        // Four symbols for each number of extra bits, and eight that have none.
        let extra = if symbol < 265 { 0 } else { (symbol as u32 - 261) / 4 };
        entries[symbol] = base << 16 | extra;
        base += 1 << extra;
        symbol += 1;
    }
    entries[285] = 258 << 16;
    entries
}

const fn distances() -> [u32; 32] {
    let mut entries = [EXCEPTION; 32];
    let mut base = 1;
    let mut symbol = 0;
    while symbol < 30 {
        // Two symbols for each number of extra bits, and four that have none.
        let extra = if symbol < 4 { 0 } else { (symbol as u32 - 2) / 2 };
        entries[symbol] = base << 16 | extra;
        base += 1 << extra;
        symbol += 1;
    }
    entries
}

const fn lengths_of_codes() -> [u32; 19] {
    let mut entries = [0; 19];
    let mut symbol = 0;
    while symbol < 19 {
        entries[symbol] = (symbol as u32) << 16;
        symbol += 1;
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_the_specification() {
        let entry = |base: u32, extra: u32| base << 16 | extra;
        for (symbol, base, extra) in [
            (257, 3, 0),
            (264, 10, 0),
            (265, 11, 1),
            (268, 17, 1),
            (269, 19, 2),
            (276, 59, 3),
            (277, 67, 4),
            (284, 227, 5),
            (285, 258, 0),
        ] {
            assert_eq!(LITERALS[symbol], entry(base, extra), "{symbol}");
        }
        for (symbol, base, extra) in
            [(0, 1, 0), (3, 4, 0), (4, 5, 1), (5, 7, 1), (6, 9, 2), (13, 97, 5), (28, 16385, 13), (29, 24577, 13)]
        {
            assert_eq!(DISTANCES[symbol], entry(base, extra), "{symbol}");
        }
        let fixed = fixed_literals();
        assert_eq!([0, 143, 144, 255, 256, 279, 280, 287].map(|symbol: usize| fixed[symbol]), [8, 8, 9, 9, 7, 7, 8, 8]);
    }
}
