//! How fast each part comes, so that a connection can be replaced that is much slower than the others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::dealer::Id;

/// How long a part is watched before it is judged.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many times slower than the others a part is that is fetched again.
const SLOWER: f64 = 8.0;
/// How many parts that are complete are remembered.
const REMEMBERED: usize = 8;

/// Measures one part: the time in which nothing but the network was waited for.
#[derive(Debug, Default)]
pub(super) struct Meter {
    measured: Mutex<Measured>,
    stop: Notify,
}

#[derive(Debug, Default)]
struct Measured {
    bytes: u64,
    waited: Duration,
    waits_since: Option<Instant>,
}

impl Meter {
    /// Waits for the network.
    pub(super) async fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.change(|it| it.waits_since = Some(Instant::now()));
        let done = future.await;
        self.change(|it| it.waited += it.waits_since.take().map_or(Duration::ZERO, |since| since.elapsed()));
        done
    }

    pub(super) fn add(&self, bytes: usize) {
        self.change(|it| it.bytes += bytes as u64);
    }

    /// Tells the one who fetches the part to give it back.
    pub(super) fn stop(&self) {
        self.stop.notify_one();
    }

    pub(super) async fn stopped(&self) {
        self.stop.notified().await;
    }

    pub(super) fn speed(&self) -> Speed {
        let mut speed = Speed { bytes: 0, waited: Duration::ZERO };
        self.change(|it| {
            let now = it.waits_since.map_or(Duration::ZERO, |since| since.elapsed());
            speed = Speed { bytes: it.bytes, waited: it.waited + now };
        });
        speed
    }

    // A panic while the lock was held cannot leave a half-made state behind: every change is one assignment.
    fn change(&self, change: impl FnOnce(&mut Measured)) {
        change(&mut self.measured.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// How much came in how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speed {
    pub(super) bytes: u64,
    pub(super) waited: Duration,
}

impl Speed {
    #[expect(clippy::cast_precision_loss, reason = "speeds are compared by a factor of eight")]
    fn rate(self) -> f64 {
        self.bytes as f64 / self.waited.as_secs_f64().max(0.001)
    }
}

/// The speeds of the parts that came lately.
#[derive(Debug, Default)]
pub(super) struct Lately(Vec<f64>);

impl Lately {
    pub(super) fn add(&mut self, speed: Speed) {
        if self.0.len() == REMEMBERED {
            self.0.remove(0);
        }
        self.0.push(speed.rate());
    }

    /// Returns the part that is so much slower than the others that somebody else should fetch it.
    pub(super) fn laggard(&self, running: &[(Id, Speed)]) -> Option<Id> {
        let slowest = running.iter().filter(|(_, speed)| speed.waited >= PATIENCE);
        let (id, slowest) = slowest.min_by(|(_, a), (_, b)| a.rate().total_cmp(&b.rate()))?;
        let others = running.iter().filter(|(other, speed)| other != id && speed.waited >= PATIENCE / 3);
        let mut rates: Vec<f64> = others.map(|(_, speed)| speed.rate()).chain(self.0.iter().copied()).collect();
        rates.sort_by(f64::total_cmp);
        let median = rates.get(rates.len() / 2)?;
        (slowest.rate() * SLOWER < *median).then_some(*id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(bytes: u64, seconds: u64) -> Speed {
        Speed { bytes, waited: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_part_that_comes_much_more_slowly_than_the_others_is_found_in_time() {
        let lately = Lately::default();
        assert_eq!(lately.laggard(&[(1, speed(10, 3))]), None, "there is nobody to compare it with");
        assert_eq!(lately.laggard(&[(1, speed(10, 3)), (2, speed(1_000, 3))]), Some(1));
        assert_eq!(lately.laggard(&[(1, speed(10, 2)), (2, speed(1_000, 3))]), None, "too early");
        assert_eq!(lately.laggard(&[(1, speed(200, 3)), (2, speed(1_000, 3))]), None, "not that slow");
        let mut lately = Lately::default();
        lately.add(speed(1_000, 1));
        assert_eq!(lately.laggard(&[(1, speed(10, 3))]), Some(1), "others were faster");
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_in_which_the_network_is_waited_for() {
        let meter = Meter::default();
        meter.wait(tokio::time::sleep(Duration::from_secs(2))).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        meter.add(10);
        let speed = meter.speed();
        assert_eq!((speed.bytes, speed.waited), (10, Duration::from_secs(2)));
    }
}
