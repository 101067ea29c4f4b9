//! Garbage collection: what nothing refers to any more goes.
//!
//! 1. in one transaction: expired leases go, what is reachable from the roots is marked, and every record of content,
//!    snapshots and expired images that is not goes  2. blobs that no record is left of  3. snapshots behind that no
//!    record is left of, children first  4. ingests that nobody holds and nobody touched for a day
//!
//! Only 1 makes writers wait, and readers never. A crash after 1 leaves bytes without records, which the next
//! collection finds: 2 and 3 do not go by what 1 removed but by what is there.

mod mark;
mod records;
mod sweep;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use windlass_core::{Error, Result};

use crate::blocking::to_the_end;
pub(crate) use windlass_core::gc::Deletion;

use crate::store::Shared;
use records::Removed;

/// How long an ingest that nobody holds is kept, so that it can be continued.
const INGEST_AGE: Duration = Duration::from_hours(24);

/// How much of one kind was collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many objects.
    pub count: u64,
    /// How many bytes on disk they took up.
    pub bytes: u64,
}

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Leases that had expired.
    pub leases: u64,
    /// Images that had expired.
    pub images: u64,
    /// Records of blobs, of all namespaces.
    pub contents: u64,
    /// Blobs.
    pub blobs: Tally,
    /// Snapshots of all snapshotters.
    pub snapshots: Tally,
    /// Ingests that were given up.
    pub ingests: Tally,
    /// How long writers had to wait.
    pub pause: Duration,
}

impl Collected {
    /// Returns how many bytes were freed.
    pub fn bytes(&self) -> u64 {
        self.blobs.bytes + self.snapshots.bytes + self.ingests.bytes
    }
}

impl Tally {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What went wrong with single objects; the others were collected nevertheless.
#[derive(Default)]
struct Failures {
    first: Option<Error>,
    count: u64,
}

impl Failures {
    fn note(&mut self, error: Error) {
        tracing::warn!(%error, "an object was not collected");
        self.count += 1;
        self.first.get_or_insert(error);
    }

    /// Notes a failure and goes on without a value.
    fn settle<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.note(error)).ok()
    }

    fn into_result(self) -> Result<()> {
        match (self.first, self.count) {
            (None, _) => Ok(()),
            (Some(error), 1) => Err(error.context("collect garbage")),
            (Some(error), count) => Err(error.context(format!("collect garbage: the first of {count} failures"))),
        }
    }
}

/// Removes what nothing refers to. A second collection waits for the first.
pub(crate) async fn collect(shared: &Arc<Shared>) -> Result<Collected> {
    let shared = shared.clone();
    to_the_end(async move {
        let _one = shared.collecting.lock().await;
        run(&shared).await
    })
    .await
}

/// Does what a deletion asked for: with [`Deletion::Synchronous`] returns after a collection that saw it.
pub(crate) async fn after(shared: &Arc<Shared>, deletion: Deletion) -> Result<()> {
    match deletion {
        Deletion::Background => Ok(()),
        Deletion::Synchronous => collect(shared).await.map(|_| ()),
    }
}

async fn run(shared: &Arc<Shared>) -> Result<Collected> {
    let now = SystemTime::now();
    let (removed, pause) = shared
        .db
        .write(move |tx| {
            let started = std::time::Instant::now();
            let removed = records::collect(tx, now)?;
            Ok((removed, started.elapsed()))
        })
        .await?;
    shared.faults.reach("collect: records removed").await;
    let Removed { leases, images, contents, held_ingests } = removed;
    let mut collected = Collected { leases, images, contents, pause, ..Collected::default() };
    let mut failures = Failures::default();
    sweep::blobs(shared, &mut collected, &mut failures).await;
    sweep::snapshots(shared, &mut collected, &mut failures).await;
    sweep::ingests(shared, &held_ingests, now - INGEST_AGE, &mut collected, &mut failures).await;
    failures.into_result()?;
    Ok(collected)
}
