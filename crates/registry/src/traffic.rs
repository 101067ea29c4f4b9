//! How much of a host may be asked for at once: found out by trying, and remembered for as long as the remote lives.
//!
//! One transfer of each blob may always run; this is about those beside it, the lanes. More are given while that makes
//! the whole faster, and fewer when the host refuses or breaks off: with a host that is next door, or a disk that is slower
//! than the network, one connection a blob is the cheapest and remains the only one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::remote::Lane;

/// For how long bytes are counted to find out a rate.
const WINDOW: Duration = Duration::from_millis(500);
/// For how long new connections are given time to become fast.
const SETTLING: Duration = Duration::from_millis(300);
/// How much of what more connections could bring at best they have to bring, to be worth it.
const WORTH: f64 = 0.3;
/// After how long it is tried again whether more connections are worth it; it doubles each time they are not.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_PATIENCE: Duration = Duration::from_mins(1);
/// How long no more are tried after the host refused some or broke off.
const PENANCE: Duration = Duration::from_secs(10);
/// How many parts in a row may break off until no more are asked for.
const MAX_BREAKS: u32 = 4;

/// The traffic with every host.
#[derive(Debug, Default)]
pub(crate) struct Hosts(Mutex<HashMap<String, Arc<Traffic>>>);

impl Hosts {
    /// Returns the traffic with a host, of which so many transfers may run at once.
    pub(crate) fn with(&self, host: &str, most: usize) -> Arc<Traffic> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(traffic) = hosts.get(host) {
            return traffic.clone();
        }
        let traffic = Arc::new(Traffic::new(most));
        hosts.insert(host.to_owned(), traffic.clone());
        traffic
    }
}

/// The traffic with one host.
#[derive(Debug)]
pub(crate) struct Traffic {
    began: Instant,
    bytes: AtomicU64,
    running: AtomicUsize,
    climb: Mutex<Climb>,
}

impl Traffic {
    fn new(most: usize) -> Self {
        Self {
            began: Instant::now(),
            bytes: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            climb: Mutex::new(Climb::new(most)),
        }
    }

    // A panic while the lock was held leaves a number of lanes, whichever.
    fn climb(&self) -> MutexGuard<'_, Climb> {
        self.climb.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Seen {
        Seen {
            now: self.began.elapsed(),
            bytes: self.bytes.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
        }
    }

    /// Gives a lane if one more transfer seems worth it.
    pub(crate) fn lane(self: &Arc<Self>) -> Option<Lane> {
        let seen = self.seen();
        self.climb().take(seen).then(|| Lane::new(InLane(self.clone())))
    }

    /// Counts a transfer for as long as the guard lives.
    pub(crate) fn transfer(self: &Arc<Self>) -> Transfer {
        self.running.fetch_add(1, Ordering::Relaxed);
        Transfer(self.clone())
    }

    /// Takes note that the host said it has too much to do.
    pub(crate) fn refused(&self) {
        let seen = self.seen();
        self.climb().refused(seen);
    }

    /// Takes note that the host does not send the parts that it is asked for.
    pub(crate) fn distrust_parts(&self) {
        self.climb().parts = false;
    }
}

struct InLane(Arc<Traffic>);

impl Drop for InLane {
    fn drop(&mut self) {
        self.0.climb().given -= 1;
    }
}

/// A transfer that runs.
#[derive(Debug)]
pub(crate) struct Transfer(Arc<Traffic>);

impl Transfer {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn broke(&self) {
        let seen = self.0.seen();
        self.0.climb().broke(seen);
    }

    pub(crate) fn completed(&self) {
        self.0.climb().breaks = 0;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is seen of a host at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Since it was first spoken to.
    now: Duration,
    /// That came in all.
    bytes: u64,
    /// Transfers that run.
    running: usize,
}

impl Seen {
    /// Returns the bytes per second since an earlier moment.
    #[expect(clippy::cast_precision_loss, reason = "rates are compared roughly")]
    fn rate_since(&self, then: &Self) -> f64 {
        self.bytes.saturating_sub(then.bytes) as f64 / self.now.saturating_sub(then.now).as_secs_f64().max(0.001)
    }
}

/// Decides how many lanes there are.
#[derive(Debug)]
struct Climb {
    /// How many transfers may run at once in all.
    most: usize,
    /// How many lanes there are.
    lanes: usize,
    /// How many of them are taken.
    given: usize,
    step: Step,
    patience: Duration,
    /// Whether the host can send parts.
    parts: bool,
    /// How many transfers broke off in a row.
    breaks: u32,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Nothing was seen yet.
    Begin,
    /// Measuring what comes as it is.
    Before(Window),
    /// More lanes were given, and are becoming fast.
    Settling { since: Duration, was: Was },
    /// Measuring what comes with more lanes.
    After { window: Window, was: Was },
    /// It stays as it is for a while, or until fewer transfers run than so many, and not only for the moment between two
    /// parts.
    Holding { until: Duration, running: usize, fewer_since: Option<Duration> },
}

/// A time in which bytes are counted.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Seen,
    /// How many transfers ran at once: one that just ended is about to be followed by the next.
    running: usize,
}

impl Window {
    fn from(seen: Seen) -> Self {
        Self { since: seen, running: seen.running }
    }

    fn has_lasted(&mut self, time: Duration, seen: Seen) -> bool {
        self.running = self.running.max(seen.running);
        seen.now >= self.since.now + time
    }
}

/// How it was before lanes were added.
#[derive(Debug, Clone, Copy)]
struct Was {
    rate: f64,
    running: usize,
    lanes: usize,
}

impl Climb {
    fn new(most: usize) -> Self {
        Self { most, lanes: 0, given: 0, step: Step::Begin, patience: PATIENCE, parts: true, breaks: 0 }
    }

    /// Takes a lane if there is one.
    fn take(&mut self, seen: Seen) -> bool {
        self.step(seen);
        let may = self.parts && self.given < self.lanes && seen.running < self.most;
        self.given += usize::from(may);
        may
    }

    fn step(&mut self, seen: Seen) {
        self.step = match self.step {
            Step::Begin => Step::Before(Window::from(seen)),
            Step::Before(mut window) => {
                if window.has_lasted(WINDOW, seen) {
                    self.try_more(seen, window)
                } else {
                    Step::Before(window)
                }
            }
            Step::Settling { since, was } if seen.now >= since + SETTLING => {
                Step::After { window: Window::from(seen), was }
            }
            step @ Step::Settling { .. } => step,
            Step::After { mut window, was } => {
                if window.has_lasted(WINDOW, seen) {
                    self.judge(seen, window, was)
                } else {
                    Step::After { window, was }
                }
            }
            Step::Holding { until, running, fewer_since } => {
                let fewer_since = fewer_since.or(Some(seen.now)).filter(|_| seen.running < running);
                let fewer = fewer_since.is_some_and(|since| seen.now >= since + SETTLING);
                if seen.now >= until || fewer {
                    Step::Before(Window::from(seen))
                } else {
                    Step::Holding { until, running, fewer_since }
                }
            }
        };
    }

    /// Adds lanes, if there may be more.
    fn try_more(&mut self, seen: Seen, window: Window) -> Step {
        let rate = seen.rate_since(&window.since);
        let more = window.running.max(1).min(self.most.saturating_sub(window.running));
        // As long as nothing comes there is nothing to compare with.
        if rate <= 0.0 || more == 0 {
            return Step::Before(Window::from(seen));
        }
        let was = Was { rate, running: window.running, lanes: self.lanes.min(window.running) };
        self.lanes = was.lanes + more;
        Step::Settling { since: seen.now, was }
    }

    /// Decides whether the lanes that were added are worth it.
    #[expect(clippy::cast_precision_loss, reason = "there are a few")]
    fn judge(&mut self, seen: Seen, window: Window, was: Was) -> Step {
        if window.running <= was.running {
            // Nobody took them, or others ended meanwhile.
            self.lanes = was.lanes;
            return Step::Before(Window::from(seen));
        }
        let growth = seen.rate_since(&window.since) / was.rate;
        let best = window.running as f64 / was.running.max(1) as f64;
        if growth >= 1.0 + (best - 1.0) * WORTH {
            self.patience = PATIENCE;
            return Step::Before(Window::from(seen));
        }
        self.lanes = was.lanes;
        let until = seen.now + self.patience;
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
        Step::Holding { until, running: was.running, fewer_since: None }
    }

    fn refused(&mut self, seen: Seen) {
        self.lanes = self.given.min(self.lanes) / 2;
        // Fewer transfers are what is to come of it, and no reason to try again.
        self.step = Step::Holding { until: seen.now + PENANCE, running: 0, fewer_since: None };
    }

    /// One transfer alone that breaks says nothing about several at once.
    fn broke(&mut self, seen: Seen) {
        if self.given == 0 {
            return;
        }
        self.refused(seen);
        self.breaks += 1;
        if self.breaks >= MAX_BREAKS {
            self.parts = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host under virtual time that gives each connection so much, and all of them together no more than that.
    struct Host {
        climb: Climb,
        each: u64,
        all: u64,
        /// How many connections run without a lane.
        base: usize,
        at: Seen,
    }

    impl Host {
        fn new(each: u64, all: u64, base: usize) -> Self {
            Self { climb: Climb::new(8), each, all, base, at: Seen { now: Duration::ZERO, bytes: 0, running: base } }
        }

        /// Lets time pass with lanes being asked for, of which so many are used at most.
        fn passes(&mut self, time: Duration, used: usize) -> usize {
            let until = self.at.now + time;
            while self.at.now < until {
                self.at.now += Duration::from_millis(100);
                self.at.bytes += (self.each * self.at.running as u64).min(self.all) / 10;
                // A lane ends with its part, and is asked for again.
                self.climb.given = self.climb.given.saturating_sub(1);
                self.at.running = self.base + self.climb.given;
                while self.climb.given < used && self.climb.take(self.at) {
                    self.at.running += 1;
                }
                // Whoever waits for something asks from time to time.
                self.climb.step(self.at);
            }
            self.at.running
        }
    }

    #[test]
    fn a_host_that_limits_each_connection_is_given_more_of_them() {
        let mut host = Host::new(40_000_000, u64::MAX, 1);
        assert_eq!(host.passes(Duration::from_millis(400), 3), 1, "nothing is known yet");
        assert_eq!(host.passes(Duration::from_secs(3), 3), 4);
        let mut many = Host::new(40_000_000, u64::MAX, 2);
        assert_eq!(many.passes(Duration::from_secs(6), 7), 8, "but no more than are allowed");
    }

    #[test]
    fn where_the_whole_is_limited_one_connection_remains_and_it_is_tried_more_and_more_rarely() {
        let mut host = Host::new(1_000_000_000, 1_000_000_000, 1);
        let mut more = 0;
        for _ in 0..1_200 {
            more += usize::from(host.passes(Duration::from_millis(100), 3) > 1);
        }
        assert!((1..=80).contains(&more), "{more} of 1200");
        assert_eq!(host.passes(Duration::from_secs(1), 3), 1);
    }

    #[test]
    fn a_host_that_refuses_gets_fewer_and_time_to_recover() {
        let mut host = Host::new(40_000_000, u64::MAX, 1);
        assert_eq!(host.passes(Duration::from_secs(4), 3), 4);
        host.climb.refused(host.at);
        assert_eq!(host.passes(Duration::from_secs(9), 3), 2);
        host.climb.refused(host.at);
        assert_eq!(host.passes(Duration::from_secs(9), 3), 1);
        assert_eq!(host.passes(Duration::from_secs(6), 3), 4, "it has recovered");
    }

    #[test]
    fn parts_that_break_off_one_after_the_other_are_the_last() {
        let mut host = Host::new(40_000_000, u64::MAX, 1);
        for _ in 0..MAX_BREAKS {
            assert_eq!(host.passes(Duration::from_mins(1), 3), 4);
            host.climb.broke(host.at);
        }
        assert_eq!(host.passes(Duration::from_mins(5), 3), 1);
    }

    #[test]
    fn a_host_without_parts_gives_no_lane() {
        let mut host = Host::new(40_000_000, u64::MAX, 1);
        host.climb.parts = false;
        assert_eq!(host.passes(Duration::from_mins(1), 3), 1);
    }

    #[test]
    fn while_nothing_comes_nothing_is_tried() {
        let mut host = Host::new(0, u64::MAX, 1);
        assert_eq!(host.passes(Duration::from_mins(1), 3), 1);
    }

    #[test]
    fn when_fewer_transfers_run_it_is_tried_at_once_whether_more_are_worth_it() {
        let mut host = Host::new(40_000_000, 160_000_000, 4);
        assert_eq!(host.passes(Duration::from_secs(3), 4), 4);
        host.base = 1;
        assert_eq!(host.passes(Duration::from_secs(4), 3), 4);
    }
}
