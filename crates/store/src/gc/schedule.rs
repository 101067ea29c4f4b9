//! When to collect in the background: containerd's policy, with its names and defaults, and the clock for what expires.
//!
//! containerd looks again after every interval; here nobody wakes up while there is nothing to do. What it decides is the
//! same.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;

use super::collect;
use super::runs::Past;
use crate::db::{Activity, Count};
use crate::store::Shared;

/// The interval before the first collection has told how long one takes.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// A pause is taken to be at least this long, so that quick collections do not follow each other at once.
const LEAST_PAUSE: Duration = Duration::from_millis(5);
/// Others may be made to wait for no more than half of the time.
const MAX_PAUSE_THRESHOLD: f64 = 0.5;
/// The longest sleep: the system's clock, by which things expire, may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_mins(10);

/// When to collect. The names and defaults are those of containerd's `io.containerd.gc.v1.scheduler`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The part of the time that others may be made to wait, 0.5 at most: 0.02 is 20 ms of every second. With 0, a
    /// second lies between two collections.
    pub pause_threshold: f64,
    /// How many deletions cause a collection whatever the pause threshold says; never for 0, and then any deletion
    /// causes one when the threshold allows it.
    pub deletion_threshold: u64,
    /// How many changes cause a collection when the pause threshold allows it; they cause none for 0.
    pub mutation_threshold: u64,
    /// How long to wait after the cause.
    pub schedule_delay: Duration,
    /// How long to wait for the first collection; there is none without a cause for 0.
    pub startup_delay: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            pause_threshold: 0.02,
            deletion_threshold: 0,
            mutation_threshold: 100,
            schedule_delay: Duration::ZERO,
            startup_delay: Duration::from_millis(100),
        }
    }
}

/// Collections in the background, until it is dropped. One that is under way is finished.
#[derive(Debug)]
pub struct Schedule {
    task: JoinHandle<()>,
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Schedule {
    pub(crate) fn start(shared: &Arc<Shared>, policy: Policy) -> Self {
        let plan = Plan::new(policy, Instant::now());
        // The store is not kept open by its schedule.
        let task = tokio::spawn(run(Arc::downgrade(shared), shared.db.activity().clone(), plan));
        Self { task }
    }
}

async fn run(shared: Weak<Shared>, activity: Arc<Activity>, mut plan: Plan) {
    loop {
        let now = Instant::now();
        plan.saw(now, activity.count(), activity.take_ends());
        let next = plan.next(now, SystemTime::now());
        let sleep = next.map_or(MAX_SLEEP, |next| next.saturating_duration_since(now).min(MAX_SLEEP));
        if !sleep.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = activity.changed() => {}
            }
            continue;
        }
        let Some(shared) = shared.upgrade() else { return };
        let ends = match collect(&shared).await {
            Ok(collected) => collected.next_expiry,
            // Noted in the log object by object. What expires is not known then; it is tried again soon.
            Err(error) => {
                tracing::warn!(%error, "a collection in the background did not get everything");
                plan.retry(SystemTime::now())
            }
        };
        plan.collected(Instant::now(), shared.collections.past().await, ends);
    }
}

/// What is known, and what follows from it: no clock and no store.
#[derive(Debug)]
struct Plan {
    policy: Policy,
    /// When to collect because of changes.
    next: Option<Instant>,
    /// When something expires, by the system's clock, which may be set meanwhile.
    expires: Option<SystemTime>,
    /// Not before then, for the sake of those who wait.
    not_before: Option<Instant>,
    /// How much had happened when the last collection began.
    seen: Count,
}

impl Plan {
    fn new(mut policy: Policy, now: Instant) -> Self {
        policy.pause_threshold = policy.pause_threshold.clamp(0.0, MAX_PAUSE_THRESHOLD);
        let next = (!policy.startup_delay.is_zero()).then(|| now + policy.startup_delay);
        Self { policy, next, expires: None, not_before: None, seen: Count::default() }
    }

    /// Returns when to collect, if it is `now` when the system's clock says `clock`.
    fn next(&self, now: Instant, clock: SystemTime) -> Option<Instant> {
        let expires = self.expires.and_then(|end| now.checked_add(end.duration_since(clock).unwrap_or_default()));
        let expires = expires.map(|expires| self.not_before.map_or(expires, |earliest| expires.max(earliest)));
        [self.next, expires].into_iter().flatten().min()
    }

    /// Takes note of what has happened by now, and of the earliest end of something new.
    fn saw(&mut self, now: Instant, count: Count, ends: Option<SystemTime>) {
        self.expires = [self.expires, ends].into_iter().flatten().min();
        let Policy { deletion_threshold, mutation_threshold, schedule_delay, .. } = self.policy;
        let deletions = count.deletions.saturating_sub(self.seen.deletions);
        let mutations = count.mutations.saturating_sub(self.seen.mutations);
        let soon = now + schedule_delay;
        let polite = self.not_before.map_or(soon, |earliest| soon.max(earliest));
        let at = if deletion_threshold > 0 && deletions >= deletion_threshold {
            soon
        } else if deletions > 0 || mutation_threshold > 0 && mutations >= mutation_threshold {
            polite
        } else {
            return;
        };
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Returns when to try again after a collection that failed: when something is known to expire, or after a while.
    fn retry(&self, clock: SystemTime) -> Option<SystemTime> {
        self.expires.filter(|end| *end > clock).or_else(|| clock.checked_add(MAX_SLEEP))
    }

    /// Takes note of a collection that is over.
    fn collected(&mut self, now: Instant, past: Past, ends: Option<SystemTime>) {
        let interval = if self.policy.pause_threshold > 0.0 {
            let pause = (past.pauses / past.runs.max(1)).max(LEAST_PAUSE);
            pause.div_f64(self.policy.pause_threshold).saturating_sub(pause)
        } else {
            FIRST_INTERVAL
        };
        self.seen = past.seen;
        self.next = None;
        self.expires = ends;
        self.not_before = Some(now + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When it is `now`, the system's clock begins.
    fn next(plan: &Plan, now: Instant) -> Option<Instant> {
        plan.next(now, SystemTime::UNIX_EPOCH)
    }

    fn count(mutations: u64, deletions: u64) -> Count {
        Count { mutations, deletions }
    }

    /// A plan after its first collection, in which others waited that long.
    fn after_one(policy: Policy, pause: Duration) -> (Plan, Instant) {
        let now = Instant::now();
        let mut plan = Plan::new(policy, now);
        plan.collected(now, Past { runs: 1, pauses: pause, seen: count(10, 2) }, None);
        (plan, now)
    }

    #[test]
    fn the_first_collection_comes_after_the_startup_delay_or_with_a_cause() {
        let now = Instant::now();
        assert_eq!(next(&Plan::new(Policy::default(), now), now), Some(now + 100 * MS));
        let mut idle = Plan::new(Policy { startup_delay: Duration::ZERO, ..Policy::default() }, now);
        assert_eq!(next(&idle, now), None);
        idle.saw(now, count(1, 1), None);
        assert_eq!(next(&idle, now), Some(now));
    }

    #[test]
    fn others_wait_for_a_fiftieth_of_the_time_at_most() {
        let (mut plan, now) = after_one(Policy::default(), 20 * MS);
        assert_eq!(next(&plan, now), None, "nothing has happened since");
        plan.saw(now, count(11, 3), None);
        assert_eq!(next(&plan, now), Some(now + 980 * MS), "20 ms of a second");
        let (mut quick, now) = after_one(Policy::default(), Duration::ZERO);
        quick.saw(now, count(11, 3), None);
        assert_eq!(next(&quick, now), Some(now + 245 * MS), "as if it had been 5 ms");
        let (mut off, now) = after_one(Policy { pause_threshold: 0.0, ..Policy::default() }, 20 * MS);
        off.saw(now, count(11, 3), None);
        assert_eq!(next(&off, now), Some(now + FIRST_INTERVAL));
    }

    #[test]
    fn enough_changes_or_one_deletion_are_a_cause() {
        let (mut plan, now) = after_one(Policy::default(), 5 * MS);
        plan.saw(now, count(109, 2), None);
        assert_eq!(next(&plan, now), None, "99 changes");
        plan.saw(now, count(110, 2), None);
        assert!(next(&plan, now).is_some(), "100 changes");
        let policy = Policy { mutation_threshold: 0, ..Policy::default() };
        let (mut never, now) = after_one(policy, 5 * MS);
        never.saw(now, count(100_000, 2), None);
        assert_eq!(next(&never, now), None);
    }

    #[test]
    fn enough_deletions_do_not_wait_for_the_pause_threshold() {
        let policy = Policy { deletion_threshold: 5, schedule_delay: 3 * MS, ..Policy::default() };
        let (mut plan, now) = after_one(policy, 100 * MS);
        plan.saw(now, count(12, 4), None);
        assert_eq!(next(&plan, now), Some(now + 4900 * MS));
        plan.saw(now, count(15, 7), None);
        assert_eq!(next(&plan, now), Some(now + 3 * MS));
    }

    #[test]
    fn what_expires_is_a_cause_when_its_time_has_come() {
        let (mut plan, now) = after_one(Policy::default(), 5 * MS);
        let clock = SystemTime::UNIX_EPOCH;
        let (hour, minute) = (Duration::from_hours(1), Duration::from_mins(1));
        plan.saw(now, count(10, 2), Some(clock + hour));
        assert_eq!(next(&plan, now), Some(now + hour), "and not before, however long that is");
        plan.saw(now, count(10, 2), Some(clock + minute));
        assert_eq!(next(&plan, now), Some(now + minute));
        assert_eq!(plan.next(now, clock + minute / 2), Some(now + minute / 2), "the clock was set");
        plan.saw(now, count(10, 2), Some(clock));
        assert_eq!(next(&plan, now), Some(now + 245 * MS), "not at once after another one");
    }

    #[test]
    fn a_collection_that_failed_forgets_no_clock() {
        let (mut plan, now) = after_one(Policy::default(), 5 * MS);
        let clock = SystemTime::UNIX_EPOCH;
        plan.saw(now, count(10, 2), Some(clock + Duration::from_hours(1)));
        assert_eq!(plan.retry(clock), Some(clock + Duration::from_hours(1)));
        assert_eq!(plan.retry(clock + Duration::from_hours(2)), Some(clock + Duration::from_hours(2) + MAX_SLEEP));
    }
}
