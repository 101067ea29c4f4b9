//! Points in time as RFC 3339 text, for `#[serde(with = "timestamp")]` and for people.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serializer};

/// Writes a point in time as RFC 3339 in UTC.
pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
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
