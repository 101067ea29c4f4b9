//! Points in time as RFC 3339 text, for `#[serde(with = "timestamp")]` and for people.

use std::time::SystemTime;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// The first point in time whose year has more than four digits, in seconds since 1970.
const YEAR_10000: u64 = 253_402_300_800;

/// Writes a point in time as RFC 3339 in UTC; one before 1970 or after the year 9999 is an error.
pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    // The formatter panics outside of this range.
    if !time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since.as_secs() < YEAR_10000) {
        return Err(S::Error::custom("a point in time lies before 1970 or after the year 9999"));
    }
    serializer.collect_str(&humantime::format_rfc3339(*time))
}

/// Reads RFC 3339.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339_weak(&text).map_err(serde::de::Error::custom)
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
