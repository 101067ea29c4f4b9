//! A large blob in parts: several requests at once for closed ranges of it, each written where it belongs.
//!
//! One request may always run, and one more for each lane that the fetcher gives. Whoever fetches the first byte that is
//! missing needs no lane either: the others may have to wait until it has come, so it must never wait for them.
//!
//! A place that sends something other than the part that was asked for is asked for everything in one stream instead, of
//! which what is here is skipped.

mod dealer;
mod meter;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use windlass_core::content::SparseWriter;
use windlass_core::progress::{State, Task};
use windlass_core::remote::{Body, ByteRange, Lane};
use windlass_core::{ByteStream, Descriptor, Error, Result};

use self::dealer::{Dealer, Id};
use self::meter::{Lately, Meter};
use crate::arrival::Arrival;
use crate::fetch::Fetch;

/// How often it is asked whether one more request may run, and whether one should be given up.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// How many parts' worth after the first missing byte a part may begin.
const REACH: u64 = 8;
/// How many parts may fail in a row while others come.
const MAX_FAILURES: u32 = 3;
/// How many bytes are gathered for one write, as long as they are there.
const BATCH: usize = 512 << 10;

/// How large blobs are fetched in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The smallest blob that is.
    pub threshold: u64,
    /// How large a part is, in bytes.
    pub size: u64,
    /// How many parts of one blob are fetched at once, at most; with 1, every blob comes in one stream.
    pub at_once: usize,
}

impl Default for Parts {
    fn default() -> Self {
        Self { threshold: 16 << 20, size: 8 << 20, at_once: 4 }
    }
}

/// A blob that is fetched in parts.
pub(crate) struct InParts<'a> {
    pub(crate) fetch: &'a Fetch,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) arrival: &'a Arrival,
    pub(crate) task: &'a Task,
    /// How many bytes came, in all tries.
    pub(crate) came: &'a AtomicU64,
    /// How many of them were missing.
    pub(crate) gained: &'a AtomicU64,
    pub(crate) sparse: Arc<dyn SparseWriter>,
}

/// What became of a part.
enum Outcome {
    Complete,
    /// It was told to stop.
    Slow,
    /// The remote did not give it.
    Broken(Error),
    /// The remote gives everything instead; with that, if it was not asked to end somewhere.
    Whole(Option<Body>),
    /// No other try can help.
    Fatal(Error),
}

/// A part that is fetched.
struct Running {
    meter: Arc<Meter>,
    has_lane: bool,
}

/// The parts that are fetched, and what was learnt from those before.
#[derive(Default)]
struct Crew {
    running: BTreeMap<Id, Running>,
    lately: Lately,
    /// How many failed in a row.
    failures: u32,
}

impl Crew {
    /// Has the part given back that comes much more slowly than the others.
    fn replace_laggard(&self) {
        let speeds: Vec<_> = self.running.iter().map(|(id, running)| (*id, running.meter.speed())).collect();
        if let Some(running) = self.lately.laggard(&speeds).and_then(|id| self.running.get(&id)) {
            tracing::debug!("a part comes much more slowly than the others, and is asked for again");
            running.meter.stop();
        }
    }
}

/// A part to be fetched.
struct Assignment {
    id: Id,
    range: Range<u64>,
    meter: Arc<Meter>,
    lane: Option<Lane>,
}

fn lock(dealer: &Mutex<Dealer>) -> MutexGuard<'_, Dealer> {
    // A panic while the lock was held ends the pull: whatever it left is not used.
    dealer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InParts<'_> {
    /// Fetches what is missing, beginning with two parts at once when there is a lane already.
    ///
    /// # Errors
    /// Those of fetcher and writer; `DataLoss` when the remote has another size than was declared. What was written stays.
    pub(crate) async fn run(&self, mut lane: Option<Lane>) -> Result<()> {
        let size = self.fetch.parts.size;
        let gaps = self.sparse.gaps().await?;
        let dealer = Mutex::new(Dealer::new(self.descriptor.size, &gaps, size, size.saturating_mul(REACH)));
        self.report(&dealer);
        let mut crew = Crew::default();
        let mut running = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            while let Some(assignment) = self.assign(&dealer, &mut crew, &mut lane) {
                running.push(self.part(&dealer, assignment));
            }
            let (id, outcome) = tokio::select! {
                ended = running.next() => match ended {
                    Some(ended) => ended,
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    crew.replace_laggard();
                    continue;
                }
            };
            if let Outcome::Whole(body) = outcome {
                // Every other part would be answered like this one.
                drop(running);
                return self.sweep(body).await;
            }
            settle(&dealer, &mut crew, id, outcome)?;
        }
    }

    /// Takes the next part, if one more may be fetched now.
    fn assign(&self, dealer: &Mutex<Dealer>, crew: &mut Crew, spare: &mut Option<Lane>) -> Option<Assignment> {
        let count = crew.running.len();
        let free = crew.running.values().all(|running| running.has_lane) || lock(dealer).front_is_free();
        let may = count < self.fetch.parts.at_once;
        // Who would be alone takes all there is, so it is asked first whether others may come.
        if count == 0 && may && spare.is_none() {
            *spare = self.fetch.fetcher.lane();
        }
        let lane = match free {
            true => None,
            false if may => Some(spare.take().or_else(|| self.fetch.fetcher.lane())?),
            false => return None,
        };
        let (id, range) = lock(dealer).take(count == 0 && spare.is_none())?;
        let meter = Arc::new(Meter::default());
        crew.running.insert(id, Running { meter: meter.clone(), has_lane: lane.is_some() });
        Some(Assignment { id, range, meter, lane })
    }

    async fn part(&self, dealer: &Mutex<Dealer>, assignment: Assignment) -> (Id, Outcome) {
        let Assignment { id, range, meter, lane } = assignment;
        let outcome = tokio::select! {
            biased;
            opened = meter.wait(self.open(range)) => match opened {
                Ok(stream) => self.receive(dealer, id, &meter, stream).await,
                Err(outcome) => outcome,
            },
            () = meter.stopped() => Outcome::Slow,
        };
        drop(lane);
        (id, outcome)
    }

    async fn open(&self, range: Range<u64>) -> Result<ByteStream, Outcome> {
        let total = self.descriptor.size;
        let wanted = ByteRange { start: range.start, end: Some(range.end).filter(|end| *end < total) };
        let body = self.fetch.fetcher.fetch(self.descriptor, wanted).await.map_err(Outcome::Broken)?;
        match body.size {
            Some(size) if size != total => Err(Outcome::Fatal(wrong_size(size, total))),
            _ if body.offset < range.start => Err(Outcome::Whole(Some(body).filter(|_| wanted.end.is_none()))),
            _ if body.offset > range.start => Err(Outcome::Broken(Error::unavailable(format!(
                "the source begins at byte {}, {} was asked for",
                body.offset, range.start
            )))),
            _ => Ok(body.stream),
        }
    }

    async fn receive(&self, dealer: &Mutex<Dealer>, id: Id, meter: &Meter, mut stream: ByteStream) -> Outcome {
        loop {
            let next = tokio::select! {
                biased;
                next = meter.wait(stream.next()) => next,
                () = meter.stopped() => return Outcome::Slow,
            };
            let first = match next {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return Outcome::Broken(error),
                None => return Outcome::Broken(Error::unavailable("the source ended before the end of the part")),
            };
            let (batch, error) = gather(first, &mut stream);
            let length = batch.iter().map(Bytes::len).sum();
            meter.add(length);
            self.count(length);
            let came = lock(dealer).came(id, length);
            if let Err(error) = self.write(came.clone(), batch).await {
                return Outcome::Fatal(error);
            }
            self.report(dealer);
            if came.end == self.descriptor.size && came.end - came.start < length as u64 {
                return Outcome::Fatal(wrong_size(came.start + length as u64, self.descriptor.size));
            }
            if lock(dealer).is_complete(id) {
                return Outcome::Complete;
            }
            if let Some(error) = error {
                return Outcome::Broken(error);
            }
        }
    }

    fn count(&self, length: usize) {
        self.fetch.progress.add_downloaded(length as u64);
        self.came.fetch_add(length as u64, Ordering::Relaxed);
    }

    /// Writes as much of some bytes as belongs there.
    async fn write(&self, to: Range<u64>, batch: Vec<Bytes>) -> Result<()> {
        let mut left = usize::try_from(to.end - to.start).unwrap_or(usize::MAX);
        let mut parts = batch;
        for bytes in &mut parts {
            bytes.truncate(left);
            left -= bytes.len();
        }
        parts.retain(|bytes| !bytes.is_empty());
        self.arrival.room(to.start).await;
        self.sparse.write_parts_at(to.start, parts).await?;
        self.gained.fetch_add(to.end - to.start, Ordering::Relaxed);
        Ok(())
    }

    /// Fills the gaps from one stream that has everything from the first of them on, if not more.
    async fn sweep(&self, begun: Option<Body>) -> Result<()> {
        let total = self.descriptor.size;
        let gaps = self.sparse.gaps().await?;
        let Some(first) = gaps.first().map(|gap| gap.start) else { return Ok(()) };
        let dealer = Mutex::new(Dealer::new(total, &gaps, self.fetch.parts.size, 0));
        let body = match begun.filter(|body| body.offset <= first) {
            Some(body) => body,
            None => self.fetch.fetcher.fetch(self.descriptor, ByteRange::from(first)).await?,
        };
        let Body { offset: mut at, size, mut stream } = body;
        if let Some(size) = size.filter(|size| *size != total) {
            return Err(wrong_size(size, total));
        }
        if at > first {
            return Err(Error::unavailable(format!("the source begins at byte {at}, {first} was asked for")));
        }
        while let Some(bytes) = stream.next().await {
            let bytes = bytes?;
            self.count(bytes.len());
            let missing = lock(&dealer).passed(at, bytes.len());
            for range in missing {
                let inside = |offset: u64| usize::try_from(offset - at).unwrap_or(usize::MAX);
                let part = bytes.slice(inside(range.start)..inside(range.end));
                self.write(range, vec![part]).await?;
            }
            at += bytes.len() as u64;
            self.report(&dealer);
        }
        match at {
            _ if at > total => Err(wrong_size(at, total)),
            _ if at < total => {
                Err(Error::unavailable(format!("the source ended after {at} of {total} bytes")).coded("truncated"))
            }
            _ => Ok(()),
        }
    }

    fn report(&self, dealer: &Mutex<Dealer>) {
        let offset = lock(dealer).here();
        self.task.set(State::Fetching { offset, total: self.descriptor.size });
    }
}

/// Takes what has come already behind some bytes, so that they are written at once; and the error that ended it.
pub(crate) fn gather(first: Bytes, stream: &mut ByteStream) -> (Vec<Bytes>, Option<Error>) {
    let mut length = first.len();
    let mut batch = vec![first];
    while length < BATCH {
        match stream.next().now_or_never() {
            Some(Some(Ok(bytes))) => {
                length += bytes.len();
                batch.push(bytes);
            }
            Some(Some(Err(error))) => return (batch, Some(error)),
            Some(None) => return (batch, Some(Error::unavailable("the source ended before the end of the part"))),
            None => break,
        }
    }
    (batch, None)
}

/// Takes note of how a part ended.
fn settle(dealer: &Mutex<Dealer>, crew: &mut Crew, id: Id, outcome: Outcome) -> Result<()> {
    let speed = crew.running.remove(&id).map(|running| running.meter.speed());
    if let (Outcome::Complete | Outcome::Slow, Some(speed)) = (&outcome, speed) {
        crew.lately.add(speed);
    }
    lock(dealer).give_back(id);
    match outcome {
        Outcome::Complete => crew.failures = 0,
        Outcome::Slow | Outcome::Whole(_) => {}
        Outcome::Broken(error) => {
            crew.failures += 1;
            if crew.running.is_empty() || crew.failures >= MAX_FAILURES {
                return Err(error);
            }
            tracing::debug!(%error, "a part did not come, and is asked for again");
        }
        Outcome::Fatal(error) => return Err(error),
    }
    Ok(())
}

fn wrong_size(found: u64, declared: u64) -> Error {
    Error::data_loss(format!("the source has {found} bytes, {declared} are declared")).coded("size-mismatch")
}
