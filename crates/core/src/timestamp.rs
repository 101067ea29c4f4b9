//! Points in time as RFC 3339 text, for `#[serde(with = "timestamp")]`, for labels and for people.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::de::Visitor;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// The first point in time whose year has more than four digits, in seconds since 1970.
const YEAR_10000: u64 = 253_402_300_800;

/// Writes a point in time as RFC 3339 in UTC, as the labels of records have it; `None` before 1970 or after the year 9999.
pub fn format(time: SystemTime) -> Option<String> {
    // The formatter panics outside of this range.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000).then(|| humantime::format_rfc3339(time).to_string())
}

/// Reads RFC 3339 (section 5.6) with any offset, as Go programs write the local time; `None` when it is not that.
///
/// ```
/// use windlass_core::timestamp::parse;
///
/// assert_eq!(parse("2026-11-20T10:00:00+01:00"), parse("2026-11-20T09:00:00Z"));
/// assert_eq!(parse("tomorrow"), None);
/// ```
pub fn parse(text: &str) -> Option<SystemTime> {
    let (local, offset) = split_offset(text)?;
    let local = humantime::parse_rfc3339_weak(local).ok()?;
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

/// Writes a point in time as RFC 3339 in UTC; one before 1970 or after the year 9999 is an error.
pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let text = format(*time);
    let text = text.ok_or_else(|| S::Error::custom("a point in time lies before 1970 or after the year 9999"))?;
    serializer.serialize_str(&text)
}

/// Reads RFC 3339.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    deserializer.deserialize_str(Text)
}

/// Reads RFC 3339 where the text lies.
struct Text;

impl Visitor<'_> for Text {
    type Value = SystemTime;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a point in time as RFC 3339 has it")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SystemTime, E> {
        humantime::parse_rfc3339_weak(text).map_err(E::custom)
    }
}

/// The same for a point in time that may be absent.
pub mod option {
    use super::{Deserialize, Deserializer, Serializer, SystemTime};

    /// Writes RFC 3339 or null.
    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads RFC 3339 or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        humantime::parse_rfc3339_weak(&text).map(Some).map_err(serde::de::Error::custom)
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
