//! The middle and the tail of many durations, and numbers that look random and are the same every time.

use std::time::Duration;

use serde_json::{Value, json};

/// Returns count, median, 99th percentile and maximum, in microseconds.
pub(crate) fn of(times: &mut [Duration]) -> Value {
    times.sort_unstable();
    let micros = |part: usize| {
        let index = (times.len() * part / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, Duration::as_secs_f64) * 1e6
    };
    json!({ "count": times.len(), "p50": micros(50), "p99": micros(99), "max": micros(100) })
}

/// Spreads numbers over a range: xorshift (Marsaglia, "Xorshift RNGs", 2003).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}
