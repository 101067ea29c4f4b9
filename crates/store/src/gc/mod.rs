//! Garbage collection: what nothing refers to any more goes.
//!
//! 1. from one commit of the database, while everybody goes on: the graph is read and what can be reached from the roots
//!    is marked  2. in many short transactions, expired leases and every record that is not marked go, what refers before
//!    what it refers to; what became referred to since 1 is marked first  3. blobs that no record is left of  4. snapshots
//!    behind that no record is left of, children first  5. ingests that nobody holds and nobody touched for a day
//!
//! Only 2 makes writers wait, for a few milliseconds at a time, and readers never wait. A crash within 2 leaves records
//! that are still garbage; a crash after it leaves bytes without records. Both are found by the next collection: 3 to 5 do
//! not go by what 2 removed but by what is there.

mod explain;
mod graph;
mod remove;
mod runs;
mod scan;
mod schedule;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use windlass_core::{Error, Result};

use crate::blocking::{giving_way, to_the_end};
use crate::db::Count;
pub(crate) use windlass_core::gc::{Collected, Deletion};

pub(crate) use explain::{has_expired_leases, plan, why};
pub use remove::Observer;
pub use runs::Collections;
pub(crate) use runs::Runs;
pub use schedule::{Policy, Schedule};

use crate::store::Shared;
use remove::Marks;
use scan::Seen;

/// How long an ingest that nobody holds is kept, so that it can be continued.
pub(crate) const INGEST_AGE: Duration = windlass_core::content::ABANDONED_AFTER;

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

/// Removes what nothing refers to, as it is now. Who asks while a collection runs shares the one after it.
pub(crate) async fn collect(shared: &Arc<Shared>) -> Result<Collected> {
    let shared = shared.clone();
    to_the_end(async move {
        let work = || async {
            // What happened before is seen by this collection; what it does itself is no reason for another one.
            let mut seen = shared.db.activity().count();
            let outcome = run(&shared, &mut seen).await;
            (outcome, seen)
        };
        shared.collections.share(work).await
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

async fn run(shared: &Arc<Shared>, count: &mut Count) -> Result<Collected> {
    let now = SystemTime::now();
    let began = std::time::Instant::now();
    let watch = shared.db.activity().watch();
    // Whatever was queued before the watch began is in the commit that is read below.
    shared.db.write(|_| Ok(())).await?;
    let commit = shared.db.snapshot()?;
    let (commit, marks) = giving_way(move || {
        let seen = Seen::read(&commit, now)?;
        Ok((commit, seen))
    })
    .await
    .map(|(commit, seen)| (commit, (seen.ends, Arc::new(Marks::new(seen)))))?;
    let (next_expiry, marks) = marks;
    let marking = began.elapsed();
    shared.faults.reach("collect: marked").await;
    let removed = remove::run(shared, commit, &marks, now).await?;
    // From here on the marks are of no use, and nobody has to note anything for them.
    drop(watch);
    count.mutations += removed.transactions;
    count.deletions += removed.leases;
    shared.faults.reach("collect: records removed").await;
    let mut collected = Collected {
        leases: removed.leases,
        images: removed.images,
        contents: removed.contents,
        marking,
        pause: removed.pause,
        longest_pause: removed.longest_pause,
        next_expiry,
        ..Collected::default()
    };
    let mut failures = Failures::default();
    sweep::blobs(shared, &mut collected, &mut failures).await;
    shared.faults.reach("collect: blobs removed").await;
    sweep::snapshots(shared, &mut collected, &mut failures).await;
    shared.faults.reach("collect: snapshots removed").await;
    sweep::ingests(shared, now - INGEST_AGE, &mut collected, &mut failures).await;
    failures.into_result()?;
    Ok(collected)
}
