//! When a request is tried again, and after how long.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// How often a request is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How many times in all.
    pub attempts: u32,
    /// The wait before the second try, on average; it doubles with each.
    pub first_delay: Duration,
    /// The longest wait that a server can ask for with `Retry-After`; when it asks for more, the request fails.
    pub longest_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, first_delay: Duration::from_millis(250), longest_wait: Duration::from_secs(30) }
    }
}

impl Retry {
    /// Returns how long to wait before trying again after `tried` tries without an answer; `None` to give up.
    pub(crate) fn after_failure(&self, tried: u32) -> Option<Duration> {
        (tried < self.attempts).then(|| jittered(self.first_delay.saturating_mul(1 << tried.saturating_sub(1).min(10))))
    }

    /// Returns how long to wait before trying again after an answer of this kind; `None` when it stands.
    pub(crate) fn after_status(&self, tried: u32, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        let passes = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
        let usual = self.after_failure(tried).filter(|_| passes)?;
        match retry_after(headers) {
            Some(asked) if asked > self.longest_wait => None,
            Some(asked) => Some(asked.max(usual)),
            None => Some(usual),
        }
    }
}

/// RFC 9110 section 10.2.3, in seconds; a date is not used by registries and is read as nothing.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Returns a random wait between half and one and a half of `delay`, so that clients do not come back in step.
fn jittered(delay: Duration) -> Duration {
    // A hasher's random keys are the only randomness there is without another dependency.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let permille = u32::try_from(random % 1000).unwrap_or(0);
    delay / 2 + delay.saturating_mul(permille) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(seconds: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, seconds.parse().unwrap())])
    }

    #[test]
    fn waits_double_with_some_jitter_and_end() {
        let retry = Retry { attempts: 3, first_delay: Duration::from_millis(100), ..Retry::default() };
        for _ in 0..100 {
            let first = retry.after_failure(1).unwrap();
            assert!((50..=150).contains(&first.as_millis()), "{first:?}");
            let second = retry.after_failure(2).unwrap();
            assert!((100..=300).contains(&second.as_millis()), "{second:?}");
        }
        assert_eq!(retry.after_failure(3), None);
    }

    #[test]
    fn a_server_says_how_long_to_wait_within_reason() {
        let retry = Retry::default();
        let wait = |status, headers: &HeaderMap| retry.after_status(1, status, headers);
        assert_eq!(wait(StatusCode::TOO_MANY_REQUESTS, &headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(wait(StatusCode::TOO_MANY_REQUESTS, &headers("3600")), None);
        assert!(wait(StatusCode::BAD_GATEWAY, &headers("Wed, 21 Oct 2026 07:28:00 GMT")).is_some());
        assert_eq!(wait(StatusCode::NOT_FOUND, &headers("7")), None);
        assert_eq!(wait(StatusCode::NOT_IMPLEMENTED, &HeaderMap::new()), None);
    }
}
