//! How blobs are transferred: the options that every command takes which brings an image.

use std::num::NonZeroU64;
use std::time::Duration;

use windlass::registry::Options;
use windlass::transfer::{Content, Parts, Priority, Pull, Push};
use windlass_core::{Error, Result};
use windlass_grpc::transfer::PullOptions;

/// The smallest part, in bytes: each is a request of its own.
const SMALLEST_PART: u64 = 1 << 10;

/// How blobs are transferred.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Transfers")]
pub(crate) struct Transfers {
    /// How many blobs are downloaded at once.
    #[arg(
        long,
        value_name = "COUNT",
        env = "DIST_MAX_CONCURRENT_DOWNLOADS",
        hide_env_values = true,
        default_value_t = Pull::default().concurrent_downloads,
        value_parser = count
    )]
    max_concurrent_downloads: usize,
    /// How many parts of one large layer are downloaded at once, at most, where that is faster; with 1, each comes in one
    /// stream.
    #[arg(
        long,
        value_name = "COUNT",
        env = "DIST_MAX_CONCURRENT_RANGES",
        hide_env_values = true,
        default_value_t = Parts::default().at_once,
        value_parser = count
    )]
    max_concurrent_ranges: usize,
    /// How many connections for blobs one host is given, at most; layers that are downloaded at once have one each in any
    /// case.
    #[arg(
        long,
        value_name = "COUNT",
        env = "DIST_MAX_CONNECTIONS_PER_HOST",
        hide_env_values = true,
        default_value_t = Options::default().transfers_per_host,
        value_parser = count
    )]
    max_connections_per_host: usize,
    /// The smallest layer that may be downloaded in parts.
    #[arg(
        long,
        value_name = "SIZE",
        env = "DIST_RANGE_THRESHOLD",
        hide_env_values = true,
        default_value = "16MiB",
        value_parser = bytes
    )]
    range_threshold: u64,
    /// How large a part is, 1KiB at least.
    #[arg(
        long,
        value_name = "SIZE",
        env = "DIST_RANGE_SIZE",
        hide_env_values = true,
        default_value = "8MiB",
        value_parser = part
    )]
    range_size: u64,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    deadline: Deadline,
    /// For how long a request waits for its turn at a registry that limits their rate, before the command fails.
    #[arg(
        long,
        value_name = "DURATION",
        env = "DIST_RATE_LIMIT_WAIT",
        hide_env_values = true,
        default_value = "2m",
        value_parser = patience
    )]
    rate_limit_wait: Duration,
}

/// How fast bytes come or go.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Transfers")]
pub(crate) struct Pace {
    /// How many bytes come, or go, in a second, at most: 10MiB, 500KiB/s.
    #[arg(long, value_name = "RATE", env = "DIST_LIMIT_RATE", hide_env_values = true, value_parser = rate)]
    limit_rate: Option<Said<NonZeroU64>>,
    /// Who goes first where several transfers share a process: low, which keeps to one connection for a layer and gives way to
    /// the others, normal or high.
    #[arg(
        long,
        value_name = "PRIORITY",
        env = "DIST_PRIORITY",
        hide_env_values = true,
        default_value = "normal",
        value_parser = priority
    )]
    priority: Priority,
}

impl Pace {
    /// Returns how many bytes a second may have.
    fn limit_rate(self) -> Option<NonZeroU64> {
        self.limit_rate.and_then(|said| said.0)
    }

    /// Has a push keep to it.
    pub(crate) fn push(self, push: Push) -> Push {
        Push { limit_rate: self.limit_rate(), priority: self.priority, ..push }
    }
}

/// How long a command may take.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Transfers")]
pub(crate) struct Deadline {
    /// Give up after this long (30s, 10m); what was transferred by then stays for the next try.
    #[arg(long, value_name = "DURATION", env = "DIST_TIMEOUT", hide_env_values = true, value_parser = timeout)]
    timeout: Option<Said<Duration>>,
}

impl Deadline {
    /// Returns how long that is.
    pub(crate) fn timeout(self) -> Option<Duration> {
        self.timeout.and_then(|said| said.0)
    }
}

/// A value, or that an empty one says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said<T>(Option<T>);

impl Transfers {
    /// Returns what a pull is told.
    pub(crate) fn pull(&self) -> Pull {
        Pull {
            concurrent_downloads: self.max_concurrent_downloads,
            parts: Parts {
                threshold: self.range_threshold,
                size: self.range_size,
                at_once: self.max_concurrent_ranges,
            },
            limit_rate: self.pace.limit_rate(),
            priority: self.pace.priority,
            ..Pull::default()
        }
    }

    /// Returns what a daemon is told: only what is not the default, because the rest is for its configuration to say.
    pub(crate) fn told(&self) -> PullOptions {
        let (pull, Parts { threshold, size, at_once }) = (Pull::default(), Parts::default());
        let few =
            |number: usize, default: usize| (number != default).then(|| u32::try_from(number).unwrap_or(u32::MAX));
        PullOptions {
            concurrent_downloads: few(self.max_concurrent_downloads, pull.concurrent_downloads),
            parts_at_once: few(self.max_concurrent_ranges, at_once),
            part_threshold: Some(self.range_threshold).filter(|it| *it != threshold),
            part_size: Some(self.range_size).filter(|it| *it != size),
            limit_rate: self.pace.limit_rate().map(NonZeroU64::get),
            priority: Some(self.pace.priority).filter(|it| *it != pull.priority).map(|it| it.to_string()),
            ..PullOptions::default()
        }
    }

    /// Tells whether hosts are given as many connections as they are unless somebody says otherwise.
    pub(crate) fn default_per_host(&self) -> bool {
        self.max_connections_per_host == Options::default().transfers_per_host
    }

    /// Returns how long the command may take.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.deadline.timeout()
    }

    /// Returns for how long a request waits for its turn.
    pub(crate) fn rate_limit_wait(&self) -> Duration {
        self.rate_limit_wait
    }

    /// Returns how many connections a host is given.
    pub(crate) fn per_host(&self) -> usize {
        self.max_connections_per_host
    }
}

/// An empty value, as an environment often has it, is the default.
pub(crate) fn content(text: &str) -> Result<Content> {
    match text {
        "" | "keep" => Ok(Content::Keep),
        "drop" => Ok(Content::Drop),
        _ => Err(Error::invalid_argument(format!("{text:?} does not say what becomes of content"))
            .hint("it is keep or drop")),
    }
}

/// An empty value, as an environment often has it, is the default.
fn priority(text: &str) -> Result<Priority> {
    if text.is_empty() { Ok(Priority::default()) } else { text.parse() }
}

/// Reads a rate: a size, in each second. An empty value is none.
fn rate(text: &str) -> Result<Said<NonZeroU64>> {
    if text.is_empty() {
        return Ok(Said(None));
    }
    let wrong = |error: Error| {
        Error::invalid_argument(format!("{text:?} is not a rate: {error}")).hint("a rate looks like 10MiB or 500KiB/s")
    };
    let size = bytes(text.strip_suffix("/s").unwrap_or(text)).map_err(wrong)?;
    NonZeroU64::new(size)
        .map(|rate| Said(Some(rate)))
        .ok_or_else(|| wrong(Error::invalid_argument("nothing would ever come")))
}

/// Reads how long a command may take. An empty value is for ever.
fn timeout(text: &str) -> Result<Said<Duration>> {
    if text.is_empty() { Ok(Said(None)) } else { duration(text).map(|time| Said(Some(time))) }
}

fn patience(text: &str) -> Result<Duration> {
    duration(if text.is_empty() { "2m" } else { text })
}

fn duration(text: &str) -> Result<Duration> {
    humantime::parse_duration(text).map_err(|error| {
        Error::invalid_argument(format!("{text:?} is not a duration: {error}")).hint("a duration looks like 30s or 5m")
    })
}

/// Reads how many of something there may be at once.
pub(crate) fn count(text: &str) -> Result<usize> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Error::invalid_argument(format!("{text:?} is not a number from 1 on")).hint("1 is the least"))
}

/// Reads the size of a part.
fn part(text: &str) -> Result<u64> {
    match bytes(text)? {
        size if size >= SMALLEST_PART => Ok(size),
        _ => Err(Error::invalid_argument(format!("parts of {text} are too small")).hint("1KiB is the least")),
    }
}

/// Reads a size: a number of bytes, or one with a binary unit.
fn bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..).unwrap_or_default().trim() {
        "" | "B" => Some(1),
        "K" | "KiB" => Some(1 << 10),
        "M" | "MiB" => Some(1 << 20),
        "G" | "GiB" => Some(1 << 30),
        _ => None,
    };
    let size = digits.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    size.ok_or_else(|| {
        Error::invalid_argument(format!("{text:?} is not a size")).hint("a size looks like 16MiB, 512KiB or 1048576")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, size) in
            [("0", 0), ("1048576", 1 << 20), ("512KiB", 512 << 10), ("16 MiB", 16 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "16MB", "99999999999999999999", "99999999999GiB"] {
            assert!(bytes(text).unwrap_err().hint_text().is_some(), "{text}");
        }
    }

    #[test]
    fn what_would_make_no_progress_is_refused() {
        assert_eq!((count("1").unwrap(), part("1KiB").unwrap()), (1, 1024));
        for error in [count("0"), count(""), count("-1"), count("many")].map(Result::unwrap_err) {
            assert!(error.hint_text().is_some(), "{error}");
        }
        for text in ["0", "1", "1023"] {
            assert!(part(text).unwrap_err().to_string().contains(text));
        }
    }

    #[test]
    fn a_daemon_is_told_what_is_not_the_default() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            transfers: Transfers,
        }
        let told = |line: &[&str]| <Line as clap::Parser>::try_parse_from(line).unwrap().transfers.told();
        assert_eq!(told(&["x"]), PullOptions::default());
        let some = ["x", "--range-size", "1MiB", "--max-concurrent-downloads", "2", "--max-concurrent-ranges", "1"];
        let some = [some.as_slice(), &["--limit-rate", "1KiB", "--priority", "low"]].concat();
        let expected = PullOptions {
            part_size: Some(1 << 20),
            concurrent_downloads: Some(2),
            parts_at_once: Some(1),
            limit_rate: Some(1 << 10),
            priority: Some("low".to_owned()),
            ..PullOptions::default()
        };
        assert_eq!(told(&some), expected);
    }

    #[test]
    fn rates_and_times_have_units_and_what_is_empty_is_not_said() {
        for (text, expected) in [("", None), ("1048576", Some(1 << 20)), ("500KiB/s", Some(500 << 10))] {
            assert_eq!(rate(text).unwrap().0.map(NonZeroU64::get), expected, "{text}");
        }
        for text in ["0", "fast", "10MB", "/s", "-1"] {
            assert!(rate(text).unwrap_err().hint_text().is_some(), "{text}");
        }
        assert_eq!(timeout("").unwrap(), Said(None));
        assert_eq!(timeout("1m30s").unwrap(), Said(Some(Duration::from_secs(90))));
        assert!(timeout("soon").unwrap_err().hint_text().is_some());
        assert_eq!(patience("2m").unwrap(), windlass::registry::Retry::default().patience);
        assert_eq!((priority("").unwrap(), priority("low").unwrap()), (Priority::Normal, Priority::Low));
    }

    #[test]
    fn the_defaults_are_those_of_a_pull() {
        let Parts { threshold, size, .. } = Parts::default();
        assert_eq!((bytes("16MiB").unwrap(), bytes("8MiB").unwrap()), (threshold, size));
    }
}
