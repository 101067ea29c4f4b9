//! Points in time in labels: RFC 3339 with any offset, as Go programs write the local time.

use std::time::{Duration, SystemTime};

use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use windlass_core::timestamp;

/// Parses RFC 3339 (section 5.6); `None` when it is not.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let (local, offset) = split_offset(text)?;
    let deserializer: StrDeserializer<'_, Error> = local.into_deserializer();
    let local = timestamp::deserialize(deserializer).ok()?;
    match offset {
        Offset::East(by) => local.checked_sub(by),
        Offset::West(by) => local.checked_add(by),
    }
}

enum Offset {
    East(Duration),
    West(Duration),
}

/// Splits `2026-11-20T10:00:00+01:00` into the time and the offset.
fn split_offset(text: &str) -> Option<(&str, Offset)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, Offset::East(Duration::ZERO)));
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let by = Duration::from_secs((hours * 60 + minutes) * 60);
    match offset.as_bytes().first()? {
        b'+' => Some((local, Offset::East(by))),
        b'-' => Some((local, Offset::West(by))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_same_instant_in_any_offset() {
        let utc = parse("2026-11-20T09:00:00Z").unwrap();
        assert_eq!(parse("2026-11-20T10:00:00+01:00"), Some(utc));
        assert_eq!(parse("2026-11-20T03:30:00-05:30"), Some(utc));
        assert!(parse("2026-11-20T10:00:00.5+01:00").unwrap() > utc);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "Z", "tomorrow", "2026-11-20", "2026-11-20T10:00:00+25:00", "2026-11-20T10:00:00é1:00"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
