//! The line before a host: how fast requests may follow each other, for everybody who asks it in this process.
//!
//! A host that has never refused has no line. One that answers 429 or 503 gets a gap between requests, which grows
//! in steps with the refusals and shrinks a little with each answer, so that the rate settles just below what the host
//! takes. How it does that was found with the simulation (`exchange/simulation.rs`). One round of requests
//! that were on their way together counts as one refusal. Nobody fails for being refused: whoever is at the head of the line
//! waits for the moment, the others wait for the head, and what was refused stands in line again.
//!
//! No timer runs when nobody waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::balance::Balance;
use crate::retry::{random, up_to};

/// The longest gap.
const MAX_GAP: Duration = Duration::from_secs(16);
/// By how much a gap grows as long as the host has not answered since there is one, and after it has.
const BLIND_STEP: u32 = 8;
const STEP: u32 = 2;
/// What part of a gap an answer takes off it, at most, and in how much time all of it would go: what comes of a smaller gap
/// is seen only after a while.
const PART: f64 = 1.0 / 24.0;
const PERIOD: Duration = Duration::from_secs(4);
/// How much more carefully it is done near the gap at which the host refused last: from there to half of it.
const CAREFUL: f64 = 0.5;
/// A gap that is this many times smaller than the first one is none, when nobody waits.
const NO_GAP: u32 = 256;
/// How many hosts are remembered before those are forgotten that nobody asks and that have no line.
const MOST: usize = 1000;
/// By how much whoever comes late may be early the next time: timers do not go off to the point.
const SLACK: Duration = Duration::from_millis(5);

/// The lines before all hosts.
#[derive(Debug)]
pub(crate) struct Lines {
    first_gap: Duration,
    lines: Mutex<HashMap<String, Arc<Line>>>,
}

impl Lines {
    /// Makes lines whose first gap is so long.
    pub(crate) fn new(first_gap: Duration) -> Self {
        Self { first_gap, lines: Mutex::default() }
    }

    /// Returns the line before a host.
    pub(crate) fn before(&self, host: &str) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(host) {
            return line.clone();
        }
        if lines.len() >= MOST {
            // Redirects lead to hosts of anybody's choice.
            lines.retain(|_, line| Arc::strong_count(line) > 1 || line.pace().open().is_none());
        }
        let line = Arc::new(Line::new(self.first_gap));
        lines.insert(host.to_owned(), line.clone());
        line
    }
}

/// The line before one host.
#[derive(Debug)]
pub(crate) struct Line {
    pace: Mutex<Pace>,
    /// Held by whoever is at the head; others get it in the order in which they came.
    head: tokio::sync::Mutex<()>,
    /// How many wait.
    waiting: AtomicUsize,
    balance: Mutex<Option<Balance>>,
}

impl Line {
    fn new(first_gap: Duration) -> Self {
        let (head, balance) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { pace: Mutex::new(Pace::new(first_gap)), head, waiting: AtomicUsize::new(0), balance }
    }

    /// Waits until a request may be sent.
    ///
    /// # Cancel safety
    /// Dropping the call leaves the line.
    pub(crate) async fn turn(&self) -> Turn {
        if let Some(turn) = self.pace().open() {
            return turn;
        }
        let _waiting = Waiting::count(&self.waiting);
        let _head = self.head.lock().await;
        loop {
            let next = self.pace().next(Instant::now(), random());
            match next {
                Ok(turn) => return turn,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Takes note that the host refused a request, and asked to wait for so long. Returns how long that will be at least.
    pub(crate) fn refused(&self, turn: Turn, asked: Option<Duration>) -> Duration {
        let now = Instant::now();
        self.pace().refused(turn, now, asked.unwrap_or_default(), random())
    }

    /// Takes note that the host answered a request.
    pub(crate) fn answered(&self, turn: Turn) {
        let alone = self.waiting.load(Ordering::Relaxed) == 0;
        self.pace().answered(turn, Instant::now(), alone);
    }

    /// Takes note of what an answer says about a quota.
    pub(crate) fn hear(&self, headers: &HeaderMap) {
        if let Some(balance) = Balance::of(headers) {
            *self.balance.lock().unwrap_or_else(PoisonError::into_inner) = Some(balance);
        }
    }

    /// Returns what the host said last about a quota.
    pub(crate) fn balance(&self) -> Option<Balance> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    // A panic while the lock was held leaves a gap, whichever.
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts somebody who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave to send one request: which round it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    round: u64,
}

/// How fast requests may follow each other: what is known, without a clock.
#[derive(Debug)]
struct Pace {
    first_gap: Duration,
    /// Between two requests; zero where there is no line.
    gap: Duration,
    /// The one at which the host refused last; zero when that is not near any more.
    refused_at: Duration,
    /// When the next request may be sent.
    next: Option<Instant>,
    /// How often the gap has grown.
    round: u64,
    /// When the last answer since then came.
    answered: Option<Instant>,
    /// Whether the host has answered since there is a gap.
    knows: bool,
}

impl Pace {
    fn new(first_gap: Duration) -> Self {
        let (gap, refused_at) = (Duration::ZERO, Duration::ZERO);
        Self { first_gap, gap, refused_at, next: None, round: 0, answered: None, knows: false }
    }

    /// Gives a turn where there is no line.
    fn open(&self) -> Option<Turn> {
        (self.gap.is_zero() && self.next.is_none()).then_some(Turn { round: self.round })
    }

    /// Gives a turn, or says how long to wait before asking again; `random` is from 0 to 1.
    fn next(&mut self, now: Instant, random: f64) -> Result<Turn, Duration> {
        let next = self.next.unwrap_or(now);
        if next > now {
            return Err(next - now);
        }
        let begins = next.max(now.checked_sub(SLACK).unwrap_or(now));
        self.next = (!self.gap.is_zero()).then(|| begins + self.gap.mul_f64(0.5 + random));
        Ok(Turn { round: self.round })
    }

    fn refused(&mut self, turn: Turn, now: Instant, asked: Duration, random: f64) -> Duration {
        if turn.round == self.round {
            self.round += 1;
            let step = if self.knows { STEP } else { BLIND_STEP };
            let grown = self.gap.saturating_mul(step).min(MAX_GAP);
            self.refused_at = self.gap;
            self.gap = if self.gap.is_zero() { self.first_gap } else { grown };
            self.answered = None;
            self.not_before(now + self.gap.mul_f64(random));
        }
        // Everybody whom the host tells the same would come back at the same moment.
        self.not_before(now + asked + if asked.is_zero() { Duration::ZERO } else { up_to(self.gap) });
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    fn not_before(&mut self, moment: Instant) {
        self.next = Some(self.next.map_or(moment, |next| next.max(moment)));
    }

    fn answered(&mut self, turn: Turn, now: Instant, alone: bool) {
        // What was sent before the gap grew says nothing about it.
        if self.gap.is_zero() || turn.round != self.round {
            return;
        }
        self.knows = true;
        let since = self.answered.replace(now).map_or(self.gap, |last| now.saturating_duration_since(last));
        if self.gap < self.refused_at / 2 {
            self.refused_at = Duration::ZERO;
        }
        let care = if self.gap <= self.refused_at { CAREFUL } else { 1.0 };
        self.gap = self.gap.mul_f64(1.0 - care * PART.min(since.as_secs_f64() / PERIOD.as_secs_f64()));
        if alone && self.gap < self.first_gap / NO_GAP {
            (self.gap, self.next, self.knows) = (Duration::ZERO, None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);

    fn turn(line: &Line) -> Turn {
        line.pace().open().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_does_not_refuse_has_no_line() {
        let line = Line::new(FIRST);
        let began = Instant::now();
        for _ in 0..1000 {
            let turn = line.turn().await;
            line.answered(turn);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_refused_and_who_comes_later_wait_in_the_order_in_which_they_came() {
        let line = Arc::new(Line::new(FIRST));
        let first = turn(&line);
        line.refused(first, Some(Duration::from_secs(10)));
        let began = Instant::now();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..5 {
            let (line, order) = (line.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                line.turn().await;
                order.lock().unwrap().push((number, began.elapsed()));
            }));
            tokio::task::yield_now().await;
        }
        for task in waiting {
            task.await.unwrap();
        }
        let order = order.lock().unwrap().clone();
        assert_eq!(order.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(order[0].1 >= Duration::from_secs(10) && order[0].1 <= Duration::from_millis(11_010), "{order:?}");
        for pair in order.windows(2) {
            let gap = pair[1].1.saturating_sub(pair[0].1);
            assert!(gap >= Duration::from_millis(490) && gap <= Duration::from_millis(1510), "{order:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_refused_together_make_one_step() {
        let line = Line::new(FIRST);
        let turns = [turn(&line), turn(&line), turn(&line)];
        for turn in turns {
            line.refused(turn, None);
        }
        assert_eq!(line.pace().gap, FIRST);
        let next = line.turn().await;
        line.refused(next, None);
        assert_eq!(line.pace().gap, FIRST * BLIND_STEP);
        let next = line.turn().await;
        line.answered(next);
        line.refused(next, None);
        assert!(line.pace().gap > FIRST * BLIND_STEP && line.pace().gap < FIRST * BLIND_STEP * STEP);
        for _ in 0..5 {
            let next = line.turn().await;
            line.refused(next, None);
        }
        assert_eq!(line.pace().gap, MAX_GAP);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_bring_the_line_to_an_end() {
        let line = Line::new(FIRST);
        line.refused(turn(&line), None);
        let began = Instant::now();
        let mut answers = 0;
        while line.pace().open().is_none() {
            let turn = line.turn().await;
            line.answered(turn);
            answers += 1;
            assert!(answers < 10_000);
        }
        assert!(began.elapsed() < Duration::from_secs(45), "{:?} {answers}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_are_not_asked_any_more_are_forgotten_unless_they_have_refused() {
        let lines = Lines::new(FIRST);
        let refusing = lines.before("refusing.test");
        refusing.refused(turn(&refusing), None);
        drop(refusing);
        let asked = lines.before("asked.test");
        for number in 0..3 * MOST {
            lines.before(&format!("{number}.test"));
        }
        assert!(lines.lines.lock().unwrap().len() <= MOST);
        assert!(lines.before("refusing.test").pace().open().is_none());
        assert!(Arc::ptr_eq(&lines.before("asked.test"), &asked));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_keeps_nobody_else_waiting() {
        let line = Line::new(FIRST);
        line.refused(turn(&line), Some(Duration::from_secs(5)));
        let began = Instant::now();
        assert!(tokio::time::timeout(Duration::from_secs(1), line.turn()).await.is_err());
        line.turn().await;
        assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    }
}
