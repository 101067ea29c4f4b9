//! CRC-32C (Castagnoli, reflected), as the superblock has it: begun with all ones, and not inverted at the end.

const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "below 256")]
        {
            table[byte] = value;
        }
        byte += 1;
    }
    table
}

pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut value = u32::MAX;
    for byte in bytes {
        let [low, ..] = value.to_le_bytes();
        let entry = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default();
        value = entry ^ (value >> 8);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_polynomial() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }
}
