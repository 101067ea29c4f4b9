//! Numbers in tar headers: octal text, GNU base-256, and the decimals of PAX records.

use windlass_core::{Error, Result};

use super::Timestamp;

/// Reads a text field: everything before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Reads octal digits, padded on either side with spaces or NULs; an empty field is zero.
pub(super) fn octal(field: &[u8]) -> Result<i64> {
    let pad = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !pad(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !pad(byte)).map_or(start, |last| last + 1);
    let digits = text(field.get(start..end).unwrap_or_default());
    let mut value: i64 = 0;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'7' => i64::from(digit - b'0'),
            _ => return Err(damaged("an octal number", field)),
        };
        value = value.checked_mul(8).and_then(|v| v.checked_add(digit)).ok_or_else(|| damaged("a number", field))?;
    }
    Ok(value)
}

/// Reads octal digits or GNU's base-256: the first bit set, then two's complement, most significant byte first (GNU tar
/// manual, "Extensions to the Basic Format").
pub(super) fn numeric(field: &[u8]) -> Result<i64> {
    let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) else {
        return octal(field);
    };
    let negative = first & 0x40 != 0;
    // The mark is the first bit; the sign is the second, extended over the first.
    let mut value: i128 = if negative { i128::from(*first) - 256 } else { i128::from(first & 0x7f) };
    for byte in rest {
        value = (value << 8) | i128::from(*byte);
        if i64::try_from(value).is_err() {
            return Err(damaged("a number that fits", field));
        }
    }
    i64::try_from(value).map_err(|_| damaged("a number that fits", field))
}

/// Reads a decimal as PAX records have it: digits, with a minus sign before them if need be.
pub(super) fn decimal(value: &[u8]) -> Result<i64> {
    let parsed = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+')).and_then(|t| t.parse().ok());
    parsed.ok_or_else(|| damaged("a decimal number", value))
}

/// Reads a decimal that cannot be negative.
pub(super) fn size(value: &[u8]) -> Result<u64> {
    u64::try_from(decimal(value)?).map_err(|_| damaged("a size", value))
}

/// Reads a time as PAX records have it: decimal seconds with an optional fraction, of which nine digits count.
pub(super) fn time(value: &[u8]) -> Result<Timestamp> {
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (value.get(..dot).unwrap_or_default(), value.get(dot + 1..).unwrap_or_default()),
        None => (value, &[][..]),
    };
    let negative = whole.first() == Some(&b'-');
    let seconds = decimal(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(damaged("a time", value));
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if negative && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1).ok_or_else(|| damaged("a time", value))?;
        return Ok(Timestamp { seconds, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Ok(Timestamp { seconds, nanoseconds })
}

fn damaged(wanted: &str, found: &[u8]) -> Error {
    Error::data_loss(format!("{:?} is not {wanted}", String::from_utf8_lossy(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_numbers_take_any_padding_and_refuse_anything_else() {
        for (field, value) in
            [(&b"0000644\0"[..], 0o644), (b"  644 \0\0", 0o644), (b"\0\0\0\0", 0), (b"", 0), (b"7\x009", 7)]
        {
            assert_eq!(octal(field).unwrap(), value, "{field:?}");
        }
        for field in [&b"8"[..], b"-1", b"+1", b"1 1", b"0x1", b"7777777777777777777777777"] {
            assert!(octal(field).is_err(), "{field:?}");
        }
    }

    #[test]
    fn base_256_numbers_are_big_endian_and_signed() {
        assert_eq!(numeric(&[0x80, 0, 0, 0, 0x01, 0, 0, 0]).unwrap(), 1 << 24);
        assert_eq!(numeric(&[0xff; 12]).unwrap(), -1);
        assert_eq!(numeric(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).unwrap(), -2);
        let mut largest = [0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(numeric(&largest).unwrap(), i64::MAX);
        largest[3] = 1;
        assert!(numeric(&largest).is_err());
        assert_eq!(numeric(b"0000755\0").unwrap(), 0o755);
    }

    #[test]
    fn times_keep_nanoseconds_on_both_sides_of_1970() {
        let at = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
        for (text, expected) in [
            ("1350244992", at(1_350_244_992, 0)),
            ("1350244992.023960108", at(1_350_244_992, 23_960_108)),
            ("1.5", at(1, 500_000_000)),
            ("1.1234567899", at(1, 123_456_789)),
            ("1.", at(1, 0)),
            ("-1", at(-1, 0)),
            ("-1.25", at(-2, 750_000_000)),
            ("-0.25", at(-1, 750_000_000)),
        ] {
            assert_eq!(time(text.as_bytes()).unwrap(), expected, "{text}");
        }
        for text in ["", ".5", "1.5.5", "1e3", "1.-5", "+1", "--1", "nan", " 1"] {
            assert!(time(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
