//! Downloads: a large blob into the content store, continued where it broke off, in one stream or in parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use windlass_core::claim::Claim;
use windlass_core::content::{self, Commit, Expected, Source, Writer};
use windlass_core::progress::{State, Task};
use windlass_core::remote::{Body, ByteRange, Lane, Trouble};
use windlass_core::room::{Keeps, Size};
use windlass_core::{Descriptor, Error, Kind, Result};

use crate::arrival::Arrival;
use crate::fetch::{Fetch, POLL, Patience};
use crate::missing;
use crate::parts::{InParts, TICK};

/// What to do about a blob that is not what its descriptor says.
const CONTRADICTION: &str =
    "the manifest and the blob do not belong together; its publisher has to push the image again";

/// A blob that is brought into the content store.
pub(crate) struct Download<'a> {
    pub(crate) fetch: &'a Fetch,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) task: &'a Task,
    pub(crate) arrival: &'a Arrival,
    /// How many bytes came, in all tries.
    pub(crate) came: Arc<AtomicU64>,
    /// How many of them were missing.
    pub(crate) gained: Arc<AtomicU64>,
}

/// One try, as far as the next one has to know.
#[derive(Default)]
struct Try {
    /// Whether there was an ingest before.
    continued: bool,
    /// Whether several parts were fetched at once.
    in_parts: bool,
}

impl Download<'_> {
    /// Brings the blob here.
    ///
    /// An ingest that was left by an earlier try is continued; one that somebody else is writing is waited for.
    pub(crate) async fn run(&self) -> Result<()> {
        let mut patience = Patience::default();
        let (mut from_scratch, mut distrusted, mut foreign) = (false, false, None);
        let mut before = self.fetch.offset(self.descriptor).await.unwrap_or(0);
        loop {
            let mut tried = Try { continued: self.fetch.offset(self.descriptor).await.is_some(), in_parts: false };
            // What was begun before this download may have been damaged by whatever ended the process that did.
            let is_foreign = *foreign.get_or_insert(tried.continued);
            let result = self.once(&mut tried).await;
            let Err(error) = result else {
                let came = self.came.load(Ordering::Relaxed);
                self.fetch.progress.add_reused(self.descriptor.size.saturating_sub(came));
                self.arrival.is_here();
                return Ok(());
            };
            if error.is(Kind::DataLoss) {
                let reason = error.to_string();
                let is_ours = !is_foreign || (before == 0 && !tried.in_parts);
                let passed_over = if is_ours { self.pass_over(error) } else { Err(error) };
                let in_parts = tried.in_parts && !is_foreign && !distrusted;
                let damaged = (before > 0 || tried.in_parts) && !from_scratch;
                // Bytes that an earlier process left may have been damaged since, and parts may be others than they were said
                // to be: once each is worth another download.
                match passed_over {
                    Err(error) if !in_parts && !damaged => return Err(self.failed(error)),
                    Err(_) if in_parts => {
                        distrusted = true;
                        self.fetch.fetcher.distrust_parts();
                    }
                    _ => {}
                }
                (from_scratch, foreign, before) = (true, Some(false), 0);
                self.fetch.fetcher.start_over(&self.descriptor.digest);
                self.arrival.starts_over();
                self.task.set(State::Retrying { reason });
                continue;
            }
            self.arrival.pauses();
            before = self.fetch.offset(self.descriptor).await.unwrap_or(0);
            // Bytes behind a gap are progress too, although nothing can be read there yet.
            let gained = self.gained.load(Ordering::Relaxed);
            let borne = patience.bear(&*self.fetch.fetcher, self.descriptor, self.task, gained, error).await;
            borne.map_err(|error| self.failed(error))?;
        }
    }

    /// Has the blob asked for elsewhere, because what came is not it.
    fn pass_over(&self, error: Error) -> Result<()> {
        self.fetch.fetcher.pass_over(&self.descriptor.digest, Trouble::Wrong, error)
    }

    fn failed(&self, error: Error) -> Error {
        self.task.set(State::Failed { reason: error.to_string() });
        error.context(format!("fetch {}", self.descriptor.ingest_ref()))
    }

    async fn once(&self, tried: &mut Try) -> Result<()> {
        let Some(mut writer) = self.fetch.open(self.descriptor, self.task).await? else {
            self.task.set(State::Exists);
            return Ok(());
        };
        let _claim = self.fetch.claim(self.descriptor, self.task);
        let brought = async {
            self.arrival.comes(writer.tail().await?);
            self.bring(&mut *writer, tried).await
        };
        match brought.await {
            Ok(()) => {}
            // More or other bytes than were promised: no continuation can make them right.
            Err(error) if matches!(error.kind(), Kind::OutOfRange | Kind::DataLoss) => {
                drop(writer);
                self.fetch.discard(self.descriptor).await;
                return Err(error.hint(CONTRADICTION));
            }
            Err(error) => return Err(self.fetch.explained(error, self.descriptor).await),
        }
        match writer.commit(Commit { labels: self.fetch.labels.clone(), ..Commit::default() }).await {
            Err(error) if error.is(Kind::DataLoss) => Err(error),
            Err(error) if !error.is(Kind::AlreadyExists) => Err(self.fetch.explained(error, self.descriptor).await),
            _ => {
                self.task.set(State::Fetched);
                Ok(())
            }
        }
    }

    /// Brings what the writer lacks: in one stream, until one more would be worth it.
    async fn bring(&self, writer: &mut dyn Writer, tried: &mut Try) -> Result<()> {
        let mut source = FromRemote { download: self, received: Arc::default() };
        let splits = self.fetch.parts.at_once > 1 && self.descriptor.size >= self.fetch.parts.threshold;
        let mut lane = None;
        // What was begun may have gaps.
        if splits && !tried.continued {
            let left = self.descriptor.size;
            let received = source.received.clone();
            let copied = tokio::select! {
                copied = content::copy(writer, &mut source, Some(self.task)) => Some(copied),
                worth = self.lane(left, &received) => {
                    lane = Some(worth);
                    None
                }
            };
            if let Some(copied) = copied {
                return copied.map(drop);
            }
        }
        if splits
            && (tried.continued || lane.is_some())
            && let Some(sparse) = writer.sparse().await?
        {
            tried.in_parts = true;
            let Self { fetch, descriptor, task, arrival, came, gained } = self;
            return InParts { fetch, descriptor, arrival, task, came, gained, sparse }.run(lane).await;
        }
        content::copy(writer, &mut source, Some(self.task)).await.map(drop)
    }

    /// Waits until a second request is worth it, which is never when too little is left.
    async fn lane(&self, left: u64, received: &AtomicU64) -> Lane {
        loop {
            tokio::time::sleep(TICK).await;
            let left = left.saturating_sub(received.load(Ordering::Relaxed));
            if left < 2 * self.fetch.parts.size {
                return std::future::pending().await;
            }
            if let Some(lane) = self.fetch.fetcher.lane() {
                return lane;
            }
        }
    }
}

impl Fetch {
    /// Returns how much of a blob is here, from its first byte on; none when nothing was begun.
    pub(crate) async fn offset(&self, descriptor: &Descriptor) -> Option<u64> {
        self.content.status(&descriptor.ingest_ref()).await.ok().map(|status| status.offset)
    }

    /// Lets others know who writes a blob. Whoever has the writer has the claim, but for the moment in between.
    fn claim(&self, descriptor: &Descriptor, task: &Task) -> Option<Claim> {
        self.claims.claim(self.work(descriptor), &*self.by, task).ok()
    }

    fn work(&self, descriptor: &Descriptor) -> String {
        format!("{} content {}", self.namespace, descriptor.ingest_ref())
    }

    /// Opens the ingest of a blob; `None` when the blob is here. While somebody else writes it, waits: either the blob
    /// appears, or the other one gives up and this one continues.
    pub(crate) async fn open(&self, descriptor: &Descriptor, task: &Task) -> Result<Option<Box<dyn Writer>>> {
        loop {
            match self.content.writer(&descriptor.ingest_ref(), Expected::from(descriptor)).await {
                Ok(writer) => return Ok(Some(writer)),
                Err(error) if error.is(Kind::AlreadyExists) => return Ok(None),
                Err(error) if error.is(Kind::Unavailable) => {
                    let reason = self.claims.claimed(&self.work(descriptor)).map(|claimed| claimed.to_string());
                    task.set(State::Waiting { reason: reason.unwrap_or_else(|| error.to_string()) });
                    tokio::time::sleep(POLL).await;
                }
                // An ingest under this ref that was declared with another size: a descriptor lied, then or now.
                Err(error) if error.is(Kind::FailedPrecondition) => {
                    self.content.abort(&descriptor.ingest_ref()).await?;
                }
                Err(error) => return Err(self.explained(error, descriptor).await),
            }
        }
    }

    /// Says of a full disk how much of the blob is here, how much it lacks, and what is free.
    async fn explained(&self, error: Error, descriptor: &Descriptor) -> Error {
        let here = self.offset(descriptor).await.unwrap_or(0);
        let (size, more) = (Size(descriptor.size), Size(descriptor.size.saturating_sub(here)));
        let reached = format!("{} of {size} are here, {more} more are needed", Size(here));
        missing::explain(error, &*self.room, Keeps::Content, &reached).await
    }
}

/// A blob of a remote, as it is downloaded in one stream.
struct FromRemote<'a> {
    download: &'a Download<'a>,
    /// How many bytes came.
    received: Arc<AtomicU64>,
}

#[async_trait]
impl Source for FromRemote<'_> {
    async fn open(&mut self, missing: u64) -> Result<Body> {
        let Download { fetch, descriptor, arrival, came, gained, .. } = self.download;
        let Body { offset, size, stream } = fetch.fetcher.fetch(descriptor, ByteRange::from(missing)).await?;
        let (progress, arrival) = (fetch.progress.clone(), Arrival::clone(arrival));
        let (received, came, gained) = (self.received.clone(), came.clone(), gained.clone());
        let mut at = offset;
        let counted = stream.and_then(move |part| {
            let length = part.len() as u64;
            progress.add_downloaded(length);
            received.fetch_add(length, Ordering::Relaxed);
            came.fetch_add(length, Ordering::Relaxed);
            let (arrival, begins) = (arrival.clone(), at);
            at += length;
            gained.fetch_add(at.saturating_sub(missing).min(length), Ordering::Relaxed);
            async move {
                arrival.room(begins).await;
                Ok(part)
            }
        });
        Ok(Body { offset, size, stream: counted.boxed() })
    }
}
