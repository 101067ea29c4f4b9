//! How much of a quota a host says is left: Docker Hub's `ratelimit-*` headers, and those of the IETF draft
//! "RateLimit header fields for HTTP" as others send them.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// How much of a host's quota of requests is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// How many requests there are in a window.
    pub limit: Option<u64>,
    /// How many are left of them.
    pub remaining: Option<u64>,
    /// How long a window is.
    pub window: Option<Duration>,
    /// After how long the quota is whole again, counted from when the host said so.
    pub reset: Option<Duration>,
    /// Whom the host counts: an address or a user, in its words.
    pub source: Option<String>,
    /// When the host said so.
    pub at: SystemTime,
}

impl Balance {
    /// Reads what the headers of an answer say; none when they say nothing.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let either = |name: &str| text(&format!("ratelimit-{name}")).or_else(|| text(&format!("x-ratelimit-{name}")));
        let (limit, remaining) = (either("limit").and_then(quantity), either("remaining").and_then(quantity));
        let window = limit.and_then(|(_, window)| window).or(remaining.and_then(|(_, window)| window));
        let balance = Self {
            limit: limit.map(|(number, _)| number),
            remaining: remaining.map(|(number, _)| number),
            window,
            reset: either("reset").and_then(|text| text.trim().parse().ok()).and_then(since_now),
            source: text("docker-ratelimit-source").map(crate::error::printable),
            at: SystemTime::now(),
        };
        (balance.limit.is_some() || balance.remaining.is_some()).then_some(balance)
    }

    /// Returns for how long nothing more is to be had; none while something is left, or when that is not known.
    pub(crate) fn exhausted_for(&self) -> Option<Duration> {
        (self.remaining == Some(0)).then_some(self.reset.or(self.window)).flatten()
    }
}

/// `100;w=21600`: a number, and the seconds of a window.
fn quantity(text: &str) -> Option<(u64, Option<Duration>)> {
    // A list of several policies begins with the one that is nearest.
    let mut parts = text.split(',').next()?.split(';');
    let number = parts.next()?.trim().parse().ok()?;
    let window = parts.find_map(|part| part.trim().strip_prefix("w=")?.parse().ok().map(Duration::from_secs));
    Some((number, window))
}

/// Some count the seconds that are left, others those since 1970.
fn since_now(seconds: u64) -> Option<Duration> {
    const YEAR: u64 = 365 * 24 * 3600;
    if seconds < YEAR {
        return Some(Duration::from_secs(seconds));
    }
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&'static str, &str)]) -> Option<Balance> {
        let fields = fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        Balance::of(&fields.collect())
    }

    #[test]
    fn what_docker_hub_says_is_understood() {
        let balance = of(&[
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "76;w=21600"),
            ("docker-ratelimit-source", "192.0.2.1"),
        ])
        .unwrap();
        assert_eq!((balance.limit, balance.remaining), (Some(100), Some(76)));
        assert_eq!((balance.window, balance.reset), (Some(Duration::from_hours(6)), None));
        assert_eq!(balance.source.as_deref(), Some("192.0.2.1"));
        assert_eq!(balance.exhausted_for(), None);
        let none = of(&[("ratelimit-remaining", "0;w=21600")]).unwrap();
        assert_eq!(none.exhausted_for(), Some(Duration::from_hours(6)));
    }

    #[test]
    fn others_count_the_seconds_that_are_left_or_those_since_1970() {
        let left = of(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "30")]).unwrap();
        assert_eq!(left.exhausted_for(), Some(Duration::from_secs(30)));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let at = of(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &(now + 100).to_string())]).unwrap();
        assert!((95..=100).contains(&at.reset.unwrap().as_secs()), "{at:?}");
    }

    #[test]
    fn what_is_no_number_says_nothing() {
        for wrong in ["", "many", "-1", "99999999999999999999", ";w=1"] {
            assert_eq!(of(&[("ratelimit-limit", wrong), ("ratelimit-remaining", wrong)]), None, "{wrong:?}");
        }
        assert_eq!(of(&[]), None);
    }
}
