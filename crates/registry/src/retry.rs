//! When a request is tried again, and after how long.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, SystemTime};

use http::header::{DATE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

/// How often a request is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How many times in all, where there was no answer or one of a server that has a problem.
    pub attempts: u32,
    /// The longest wait before the second try; it doubles with each. What is waited is a random part of it.
    pub first_delay: Duration,
    /// What it does not grow beyond.
    pub longest_delay: Duration,
    /// The longest wait that a server can ask for with `Retry-After`; when it asks for more, the request fails.
    pub longest_wait: Duration,
    /// For how long in all a request stands in line at a host that answers 429, before it fails.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(20),
            longest_wait: Duration::from_mins(1),
            patience: Duration::from_mins(2),
        }
    }
}

impl Retry {
    /// Returns how long to wait before trying again after `tried` tries without an answer; `None` to give up.
    pub(crate) fn after_failure(&self, tried: u32) -> Option<Duration> {
        let longest = self.first_delay.saturating_mul(1 << tried.saturating_sub(1).min(10)).min(self.longest_delay);
        (tried < self.attempts).then(|| up_to(longest))
    }

    /// Returns how long to wait before trying again after an answer that a server with a problem gives; `None` when it
    /// stands.
    pub(crate) fn after_status(&self, tried: u32, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        let passes = matches!(status.as_u16(), 408 | 425 | 500 | 502 | 503 | 504);
        let usual = self.after_failure(tried).filter(|_| passes)?;
        match retry_after(headers) {
            Some(asked) if asked > self.longest_wait => None,
            Some(asked) => Some(asked.saturating_add(usual)),
            None => Some(usual),
        }
    }
}

/// RFC 9110 section 10.2.3: seconds, or a date, which is compared with the server's own idea of now if it says it.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let now = date(headers, &DATE).unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default())
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()
}

/// Returns a random part of a wait, so that clients do not come back in step.
pub(crate) fn up_to(longest: Duration) -> Duration {
    longest.mul_f64(random())
}

/// Returns a random number from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
pub(crate) fn random() -> f64 {
    // A hasher's random keys are the only randomness there is without another dependency.
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn waits_are_spread_over_all_of_a_time_that_doubles_up_to_a_limit_and_they_end() {
        let retry = Retry {
            attempts: 5,
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_millis(300),
            ..Retry::default()
        };
        for (tried, longest) in [(1, 100), (2, 200), (3, 300), (4, 300)] {
            let waits: Vec<u128> = (0..200).map(|_| retry.after_failure(tried).unwrap().as_millis()).collect();
            assert!(waits.iter().all(|wait| *wait <= longest), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait < longest / 4), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait > longest * 3 / 4), "{waits:?}");
        }
        assert_eq!(retry.after_failure(5), None);
    }

    #[test]
    fn a_server_says_how_long_to_wait_within_reason() {
        let retry = Retry::default();
        let wait = |status, after: &str| retry.after_status(1, status, &headers(&[(RETRY_AFTER, after)]));
        let asked = wait(StatusCode::SERVICE_UNAVAILABLE, "7").unwrap();
        assert!(asked >= Duration::from_secs(7) && asked <= Duration::from_secs(7) + retry.first_delay, "{asked:?}");
        assert_eq!(wait(StatusCode::SERVICE_UNAVAILABLE, "3600"), None);
        assert_eq!(wait(StatusCode::NOT_FOUND, "7"), None);
        assert_eq!(retry.after_status(1, StatusCode::NOT_IMPLEMENTED, &HeaderMap::new()), None);
    }

    #[test]
    fn a_date_is_compared_with_the_clock_of_who_says_it() {
        let until = "Wed, 21 Oct 2015 07:28:30 GMT";
        let skewed = headers(&[(RETRY_AFTER, until), (DATE, "Wed, 21 Oct 2015 07:28:00 GMT")]);
        assert_eq!(retry_after(&skewed), Some(Duration::from_secs(30)));
        let past = headers(&[(RETRY_AFTER, until), (DATE, "Wed, 21 Oct 2015 08:00:00 GMT")]);
        assert_eq!(retry_after(&past), Some(Duration::ZERO));
        let ours = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let without = retry_after(&headers(&[(RETRY_AFTER, &ours)])).unwrap();
        assert!((95..=100).contains(&without.as_secs()), "{without:?}");
        for nothing in ["", "soon", "-1", "1.5", "Wed, 99 Oct 2015 07:28:30 GMT"] {
            assert_eq!(retry_after(&headers(&[(RETRY_AFTER, nothing)])), None, "{nothing:?}");
        }
    }
}
