//! Times on the wire.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use windlass_core::{Error, Result};

/// The time that programs in Go write when they have none: the beginning of the year 1, in seconds since 1970.
const GO_ZERO: i64 = -62_135_596_800;

/// Writes a time.
#[expect(clippy::unnecessary_wraps, reason = "what the field of a message is")]
pub(crate) fn to_wire(time: SystemTime) -> Option<Timestamp> {
    Some(time.into())
}

/// Reads a time; one that is absent, or Go's that is none, is the beginning of 1970, as in the messages of other implementations.
///
/// # Errors
/// `InvalidArgument` for a time that this system cannot have.
pub(crate) fn from_wire(time: Option<Timestamp>) -> Result<SystemTime> {
    let Some(Timestamp { seconds, nanos }) = time.filter(|time| time.seconds != GO_ZERO) else {
        return Ok(SystemTime::UNIX_EPOCH);
    };
    let wrong = || Error::invalid_argument(format!("time {seconds}.{nanos:09} is out of range"));
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(wrong)?;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second =
        if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(whole) } else { SystemTime::UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(nanos.into()))).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_none_is_the_beginning_of_1970() {
        for none in [None, Some(Timestamp { seconds: GO_ZERO, nanos: 0 })] {
            assert_eq!(from_wire(none).unwrap(), SystemTime::UNIX_EPOCH);
        }
        let now = SystemTime::now();
        assert_eq!(from_wire(to_wire(now)).unwrap(), now);
        assert!(from_wire(Some(Timestamp { seconds: 1, nanos: -1 })).is_err());
    }
}
