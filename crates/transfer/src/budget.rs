//! Budgets: how many bytes may come or go in a second, and who gives way to whom.
//!
//! A budget is shared by all transfers that were told of it: those of one pull, those of a process. Where there is a rate,
//! bytes are let through one after the other, each as long after the one before as the rate says. Where transfers of
//! different priority run, those of a lower one get a share of what the others get, and all of it when nobody else runs.
//!
//! Nothing is done by the clock: no task and no timer runs but for bytes that wait.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio::time::Instant;
use windlass_core::content::Source;
use windlass_core::remote::{Body, ByteRange, Fetcher, Lane, Trouble};
use windlass_core::{Attempt, ByteStream, Descriptor, Digest, Error, Result};

/// How late bytes may come without being taken for slower than the rate: timers do not go off to the point.
const SLACK: Duration = Duration::from_millis(20);
/// How many pieces are let through in a second, about.
const PIECES: u64 = 40;
const SMALLEST_PIECE: u64 = 1 << 10;
/// What part of the bytes of others a lower priority gets.
const SHARE: u64 = 8;
/// How much of that is kept for it at most.
const MAX_SHARE: u64 = 1 << 20;
/// For how long one piece gives way, at most: connections are kept, and nobody waits for ever.
const LONGEST: Duration = Duration::from_secs(1);

/// Who gives way to whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// To everybody else; and it never asks for more than one connection for a blob.
    Low,
    /// To those of high priority.
    #[default]
    Normal,
    /// To nobody.
    High,
}

impl Priority {
    fn place(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

impl FromStr for Priority {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            _ => Err(Error::invalid_argument(format!("{text:?} is no priority")).hint("it is low, normal or high")),
        }
    }
}

/// How many bytes may come or go in a second, and who gives way to whom, for all who share it. Cheap to clone; clones are one.
#[derive(Clone, Default)]
pub struct Budget(Arc<Shared>);

#[derive(Default)]
struct Shared {
    rate: Option<NonZeroU64>,
    state: Mutex<State>,
    /// Somebody ended, or a share has grown.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// When the next byte may come.
    next: Option<Instant>,
    /// How many transfers run, by priority.
    running: [usize; 3],
    /// How many bytes may come although others go before, by priority.
    share: [u64; 3],
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("rate", &self.0.rate).finish_non_exhaustive()
    }
}

impl Budget {
    /// Makes a budget of so many bytes in a second; of any number when there is none.
    pub fn new(rate: Option<NonZeroU64>) -> Self {
        Self(Arc::new(Shared { rate, ..Shared::default() }))
    }

    // A panic while the lock was held leaves numbers that are used as they are.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a transfer for as long as what is returned lives.
    pub(crate) fn transfer(&self, priority: Priority) -> Transfer {
        self.state().count(priority, |running| running.saturating_add(1));
        Transfer { budget: self.clone(), priority }
    }

    /// Tells whether somebody runs who goes before.
    fn gives_way(&self, priority: Priority) -> bool {
        self.state().goes_before(priority)
    }

    /// Returns how many bytes are let through at once, at most.
    fn piece(&self) -> usize {
        let piece = self.0.rate.map_or(u64::MAX, |rate| (rate.get() / PIECES).max(SMALLEST_PIECE));
        usize::try_from(piece).unwrap_or(usize::MAX)
    }

    /// Waits until so many bytes may come.
    async fn spend(&self, priority: Priority, bytes: u64) {
        self.give_way(priority, bytes).await;
        if let Some(until) = self.account(priority, bytes) {
            tokio::time::sleep_until(until).await;
        }
    }

    async fn give_way(&self, priority: Priority, bytes: u64) {
        let longest = tokio::time::sleep(LONGEST);
        tokio::pin!(longest);
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.state().may_go(priority, bytes) {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = &mut longest => return,
            }
        }
    }

    /// Takes bytes off the budget; returns when they are paid for.
    fn account(&self, priority: Priority, bytes: u64) -> Option<Instant> {
        let mut state = self.state();
        if state.shares_out(priority, bytes) {
            self.0.changed.notify_waiters();
        }
        let rate = self.0.rate?;
        let now = Instant::now();
        let begins = state.next.map_or(now, |next| next.max(now.checked_sub(SLACK).unwrap_or(now)));
        let next = begins + duration_of(bytes, rate);
        state.next = Some(next);
        (next > now).then_some(next)
    }
}

fn duration_of(bytes: u64, rate: NonZeroU64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

impl State {
    fn count(&mut self, priority: Priority, change: impl Fn(usize) -> usize) {
        if let Some(running) = self.running.get_mut(priority.place()) {
            *running = change(*running);
        }
    }

    fn goes_before(&self, priority: Priority) -> bool {
        self.running.iter().skip(priority.place() + 1).any(|running| *running > 0)
    }

    /// Tells whether bytes may come now, and takes them off the share if others go before.
    fn may_go(&mut self, priority: Priority, bytes: u64) -> bool {
        if !self.goes_before(priority) {
            return true;
        }
        let Some(share) = self.share.get_mut(priority.place()) else { return true };
        match share.checked_sub(bytes) {
            Some(left) => *share = left,
            None => return false,
        }
        true
    }

    /// Gives those of a lower priority their share of some bytes; tells whether there are any.
    fn shares_out(&mut self, priority: Priority, bytes: u64) -> bool {
        let mut any = false;
        for place in 0..priority.place() {
            if let (Some(share), Some(running)) = (self.share.get_mut(place), self.running.get(place)) {
                let grown = share.saturating_add(bytes / SHARE).min(MAX_SHARE);
                *share = if *running > 0 { grown } else { 0 };
                any |= *running > 0;
            }
        }
        any
    }
}

/// A transfer that runs.
pub(crate) struct Transfer {
    budget: Budget,
    priority: Priority,
}

impl Transfer {
    /// Waits until so many bytes may come.
    async fn spend(&self, bytes: usize) {
        self.budget.spend(self.priority, bytes as u64).await;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.budget.state().count(self.priority, |running| running.saturating_sub(1));
        self.budget.0.changed.notify_waiters();
    }
}

/// Lets a stream through as fast as budgets allow.
pub(crate) fn limited(stream: ByteStream, transfers: Vec<Transfer>) -> ByteStream {
    let piece = transfers.iter().map(|transfer| transfer.budget.piece()).min().unwrap_or(usize::MAX);
    let begun = (stream, transfers, bytes::Bytes::new());
    stream::try_unfold(begun, move |(mut stream, transfers, mut rest)| async move {
        if rest.is_empty() {
            match stream.next().await {
                Some(next) => rest = next?,
                None => return Ok(None),
            }
        }
        let next = rest.split_to(rest.len().min(piece));
        for transfer in &transfers {
            transfer.spend(next.len()).await;
        }
        Ok(Some((next, (stream, transfers, rest))))
    })
    .boxed()
}

/// A fetcher whose bytes come out of budgets.
pub(crate) struct Budgeted {
    pub(crate) inner: Arc<dyn Fetcher>,
    /// That of the process, and that of the pull.
    pub(crate) budgets: [Budget; 2],
    pub(crate) priority: Priority,
}

#[async_trait]
impl Fetcher for Budgeted {
    async fn fetch(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let Body { offset, size, stream } = self.inner.fetch(descriptor, range).await?;
        let transfers = self.budgets.iter().map(|budget| budget.transfer(self.priority)).collect();
        Ok(Body { offset, size, stream: limited(stream, transfers) })
    }

    fn lane(&self) -> Option<Lane> {
        let alone = self.priority > Priority::Low && !self.budgets.iter().any(|it| it.gives_way(self.priority));
        alone.then(|| self.inner.lane()).flatten()
    }

    fn origin(&self, digest: &Digest) -> Option<Attempt> {
        self.inner.origin(digest)
    }

    fn pass_over(&self, digest: &Digest, trouble: Trouble, error: Error) -> Result<()> {
        self.inner.pass_over(digest, trouble, error)
    }

    fn start_over(&self, digest: &Digest) {
        self.inner.start_over(digest);
    }

    fn distrust_parts(&self) {
        self.inner.distrust_parts();
    }
}

/// Content that is sent, whose bytes come out of budgets as they are read.
pub(crate) struct Paced {
    pub(crate) inner: Box<dyn Source>,
    /// That of the process, and that of the push.
    pub(crate) budgets: [Budget; 2],
    pub(crate) priority: Priority,
}

#[async_trait]
impl Source for Paced {
    async fn open(&mut self, offset: u64) -> Result<Body> {
        let Body { offset, size, stream } = self.inner.open(offset).await?;
        let transfers = self.budgets.iter().map(|budget| budget.transfer(self.priority)).collect();
        Ok(Body { offset, size, stream: limited(stream, transfers) })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const KIB: u64 = 1 << 10;

    /// Bytes that are there at once, in pieces of 100 KiB.
    fn plenty(kib: u64) -> ByteStream {
        let pieces = (0..kib / 100).map(|_| Ok(Bytes::from(vec![0; 100 << 10])));
        stream::iter(pieces.collect::<Vec<_>>()).boxed()
    }

    async fn read(stream: ByteStream) -> u64 {
        stream.fold(0, |sum, bytes| async move { sum + bytes.unwrap().len() as u64 }).await
    }

    fn of(kib: u64) -> Budget {
        Budget::new(NonZeroU64::new(kib * KIB))
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_come_as_fast_as_the_rate_says_however_many_streams_there_are() {
        for streams in [1_u32, 4] {
            let (budget, began) = (of(1000), Instant::now());
            let read = (0..streams).map(|_| read(limited(plenty(5000), vec![budget.transfer(Priority::Normal)])));
            let read: u64 = futures::future::join_all(read).await.iter().sum();
            assert_eq!(read, u64::from(streams) * 5000 * KIB);
            let (took, ideal) = (began.elapsed().as_secs_f64(), f64::from(streams * 5));
            assert!((ideal * 0.99..ideal * 1.01).contains(&took), "{took} s for {ideal} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_made_up_for() {
        let budget = of(1000);
        let transfer = || vec![budget.transfer(Priority::Normal)];
        read(limited(plenty(1000), transfer())).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        let began = Instant::now();
        read(limited(plenty(1000), transfer())).await;
        assert!(began.elapsed() >= Duration::from_millis(970), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_and_without_others_nothing_waits() {
        let (budget, began) = (Budget::default(), Instant::now());
        read(limited(plenty(100_000), vec![budget.transfer(Priority::Low)])).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_low_priority_gets_a_share_and_all_when_it_is_alone() {
        let budget = of(1000);
        let (high, low) = (budget.transfer(Priority::High), budget.transfer(Priority::Low));
        let began = Instant::now();
        let done = async |stream| {
            read(stream).await;
            began.elapsed().as_secs_f64()
        };
        let (high, low) = tokio::join!(done(limited(plenty(9000), vec![high])), done(limited(plenty(3000), vec![low])));
        assert!((9.0..11.0).contains(&high), "the high one took {high} s, and would take 9 alone");
        assert!((11.5..12.5).contains(&low), "both are 12 s together: {low} s");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_somebody_who_gets_nothing() {
        let budget = Budget::default();
        let _stalled = budget.transfer(Priority::High);
        let began = Instant::now();
        read(limited(plenty(1000), vec![budget.transfer(Priority::Normal)])).await;
        assert!(began.elapsed() <= LONGEST * 10, "{:?}", began.elapsed());
    }

    #[test]
    fn priorities_are_words() {
        for (text, priority) in [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)] {
            assert_eq!(text.parse::<Priority>().unwrap(), priority);
        }
        assert!("urgent".parse::<Priority>().unwrap_err().hint_text().is_some());
        assert!(Priority::Low < Priority::default() && Priority::default() < Priority::High);
    }
}
