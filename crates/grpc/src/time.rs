//! Times on the wire.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use windlass_core::{Error, Result};

/// Writes a time.
#[expect(clippy::unnecessary_wraps, reason = "what the field of a message is")]
pub(crate) fn to_wire(time: SystemTime) -> Option<Timestamp> {
    Some(time.into())
}

/// Reads a time; one that is absent is the beginning of 1970, as in the messages of other implementations.
///
/// # Errors
/// `InvalidArgument` for a time that this system cannot have.
pub(crate) fn from_wire(time: Option<Timestamp>) -> Result<SystemTime> {
    let Some(Timestamp { seconds, nanos }) = time else { return Ok(SystemTime::UNIX_EPOCH) };
    let wrong = || Error::invalid_argument(format!("time {seconds}.{nanos:09} is out of range"));
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(wrong)?;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second =
        if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(whole) } else { SystemTime::UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(nanos.into()))).ok_or_else(wrong)
}
