//! Sizes, ages and digests as people read them.

use std::time::{Duration, SystemTime};

use windlass_core::room::Size;
use windlass_core::{Digest, Labels};

/// Writes a size in bytes with a binary unit and three significant digits.
pub(crate) fn size(bytes: u64) -> String {
    Size(bytes).to_string()
}

/// Writes how long ago something was, in its largest unit.
pub(crate) fn age(since: SystemTime) -> String {
    let elapsed = SystemTime::now().duration_since(since).unwrap_or(Duration::ZERO);
    format!("{} ago", duration(elapsed))
}

/// Writes how long it is until something, in its largest unit.
pub(crate) fn until(end: SystemTime) -> String {
    match end.duration_since(SystemTime::now()) {
        Ok(left) => format!("in {}", duration(left)),
        Err(_) => "any time now".to_owned(),
    }
}

fn duration(duration: Duration) -> String {
    let elapsed = duration.as_secs();
    let (number, unit) = match elapsed {
        0..60 => (elapsed, "second"),
        60..3600 => (elapsed / 60, "minute"),
        3600..86400 => (elapsed / 3600, "hour"),
        86400..1_209_600 => (elapsed / 86400, "day"),
        1_209_600..7_776_000 => (elapsed / 604_800, "week"),
        7_776_000..63_072_000 => (elapsed / 2_592_000, "month"),
        _ => (elapsed / 31_536_000, "year"),
    };
    count(number, unit)
}

/// Writes how many there are of something.
pub(crate) fn count(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Writes a digest with its first twelve digits.
pub(crate) fn digest(digest: &Digest) -> String {
    format!("{}:{}", digest.algorithm(), digest.short())
}

/// Writes labels as `key=value`, or a dash.
pub(crate) fn labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return "-".to_owned();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Quotes a word for a POSIX shell, if it has to be.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_few_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_348, "99.9 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (29_465_000, "28.1 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in
            [(1, "1 second ago"), (119, "1 minute ago"), (7200, "2 hours ago"), (86400 * 20, "2 weeks ago")]
        {
            assert_eq!(age(SystemTime::now() - Duration::from_secs(seconds)), text);
        }
        assert_eq!(age(SystemTime::now() + Duration::from_mins(1)), "0 seconds ago");
        assert_eq!(until(SystemTime::now() + Duration::from_mins(90)), "in 1 hour");
        assert_eq!(until(SystemTime::now() - Duration::from_mins(1)), "any time now");
    }
}
