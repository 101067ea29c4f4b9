//! Transfer rates, smoothed.

use std::time::Duration;

/// After this long a change of the rate shows to two thirds.
const WINDOW: Duration = Duration::from_secs(2);

/// The rate at which a count of bytes grows.
#[derive(Debug, Clone, Default)]
pub(super) struct Rate {
    last: Option<(u64, Duration)>,
    bytes_per_second: f64,
}

impl Rate {
    /// Takes notice of the count at a time, and returns the rate in bytes per second.
    pub(super) fn update(&mut self, bytes: u64, at: Duration) -> u64 {
        let Some((before, then)) = self.last else {
            self.last = Some((bytes, at));
            return 0;
        };
        let passed = at.saturating_sub(then).as_secs_f64();
        if passed > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
            let now = bytes.saturating_sub(before) as f64 / passed;
            // The first measurement is all that is known.
            let weight = if then.is_zero() || self.bytes_per_second == 0.0 {
                1.0
            } else {
                1.0 - (-passed / WINDOW.as_secs_f64()).exp()
            };
            self.bytes_per_second += weight * (now - self.bytes_per_second);
            self.last = Some((bytes, at));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and finite")]
        let rounded = self.bytes_per_second as u64;
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_growth_has_a_steady_rate_and_a_stall_fades() {
        let mut rate = Rate::default();
        let mut shown = 0;
        for tenth in 0..=50u32 {
            shown = rate.update(u64::from(tenth) * 100, Duration::from_millis(100) * tenth);
        }
        assert!((990..=1010).contains(&shown), "{shown}");
        for tenth in 51..=150u32 {
            shown = rate.update(5000, Duration::from_millis(100) * tenth);
        }
        assert!(shown < 20, "{shown}");
    }
}
