//! The repair: databases first, then records and leftovers, then bytes, then snapshots, because each stands on the one
//! before.

mod blobs;
mod order;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use windlass_core::fsck::{Finding, Outcome, Problem, Remedy};
use windlass_core::progress::Tracker;
use windlass_core::remote::Resolver;
use windlass_core::{Error, Result, ResultExt};
use windlass_snapshot::fsck as snapshotters;
use windlass_store::fsck as store;
use windlass_store::{Elsewhere, LockWait, RootLock};

use super::Fsck;
use super::look::{self, Closely};
use crate::SNAPSHOTTERS;
use crate::parts::{Choice, Parts};

/// What a repair could not do, by what it was to do.
pub(super) type Failed = BTreeMap<Problem, String>;

/// Where files of snapshots go that cannot be attributed.
const LOST: &str = "lost+found";
/// What the store's database is called in findings.
const META: &str = "meta.redb";
/// How often it is looked again: what one repair uncovers, the next one repairs.
const ROUNDS: usize = 6;
/// How long the root is waited for between two steps.
const CLOSING: Duration = Duration::from_secs(30);

/// Repairs everything that can be repaired and returns all that was found, with what became of it. The root is taken again
/// between the steps, and waited for as `fsck` says when somebody else got it.
pub(super) async fn everything(
    lock: RootLock,
    fsck: &Fsck,
    resolver: &dyn Resolver,
    progress: &Tracker,
) -> Result<Vec<Finding>> {
    let (root, closely, elsewhere) = (lock.root().to_owned(), fsck.closely(), fsck.content.as_ref());
    let mut lock = Arc::new(lock);
    let mut all: Vec<Finding> = Vec::new();
    let mut failed = Failed::new();
    let mut now = closely;
    for _ in 0..ROUNDS {
        let found = look::everything(&root, elsewhere, now, progress).await?;
        order::spare(&found, &mut failed);
        let new: Vec<Finding> =
            found.iter().filter(|finding| !failed.contains_key(&finding.problem)).cloned().collect();
        note(&mut all, &found);
        settle(&mut all, &found, &failed);
        if new.is_empty() {
            return Ok(all);
        }
        let databases: Vec<&Finding> = new.iter().filter(|finding| is_database(&finding.problem)).collect();
        if databases.is_empty() {
            let turn = order::first(new);
            // Nothing may have the databases open while they are looked at.
            let held = Arc::into_inner(lock).ok_or_else(|| Error::internal("the lock of the root is in use"))?;
            let repaired = online(held, elsewhere, &turn, resolver, progress, &mut failed).await;
            lock = Arc::new(RootLock::acquire(&root, patience(fsck.lock_wait)).await?);
            repaired?;
            // The bytes have been read, and those of blobs that were brought since are verified; but not of what has a
            // record only now.
            now = if order::uncovers(&turn) { closely } else { Closely { blobs: store::Depth::Sizes, ..closely } };
        } else {
            offline(&lock, elsewhere, &databases, progress, &mut failed).await?;
            // Nothing was done about blobs: all that is wrong with them has to be found again.
            now = closely;
        }
    }
    let found = look::everything(&root, elsewhere, now, progress).await?;
    note(&mut all, &found);
    settle(&mut all, &found, &failed);
    Ok(all)
}

/// What the last round opened may take a moment to close.
fn patience(wait: LockWait) -> LockWait {
    match wait {
        LockWait::Forever => wait,
        LockWait::UpTo(limit) => LockWait::UpTo(limit.max(CLOSING)),
        LockWait::Fail => LockWait::UpTo(CLOSING),
    }
}

fn note(all: &mut Vec<Finding>, found: &[Finding]) {
    for finding in found {
        if !all.iter().any(|known| known.problem == finding.problem) {
            all.push(finding.clone());
        }
    }
    all.sort_by(|a, b| (a.severity(), &a.problem).cmp(&(b.severity(), &b.problem)));
}

/// Says of each finding what became of it, by what was found last.
fn settle(all: &mut [Finding], found: &[Finding], failed: &Failed) {
    let left: BTreeSet<&Problem> = found.iter().map(|finding| &finding.problem).collect();
    for finding in all {
        let is_left = left.contains(&finding.problem);
        finding.outcome = match failed.get(&finding.problem) {
            // What one repair could not do may have come with another; but bytes are not always read again.
            Some(reason) if is_left || is_of_bytes(&finding.problem) => Outcome::Remains { reason: reason.clone() },
            None if is_left => Outcome::Remains { reason: reason_of(finding) },
            _ => Outcome::Repaired,
        };
    }
}

fn is_of_bytes(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::BlobSize { .. }
            | Problem::BlobDigest { .. }
            | Problem::BlobUnreadable { .. }
            | Problem::RecordSize { .. }
    )
}

fn reason_of(finding: &Finding) -> String {
    match &finding.remedy {
        Remedy::Nothing { reason } => reason.clone(),
        _ => "it is still there after the repair".to_owned(),
    }
}

/// Tells whether a problem is one of a database, which has to be solved while nobody has it open.
fn is_database(problem: &Problem) -> bool {
    match problem {
        Problem::DatabaseDamaged { .. } | Problem::DatabaseMissing { .. } | Problem::IndexWrong { .. } => true,
        Problem::RecordDamaged { file, .. } => file != META,
        _ => false,
    }
}

/// Repairs databases that nobody has open: those of the snapshotters first, whose names the store's is made of.
async fn offline(
    lock: &Arc<RootLock>,
    elsewhere: Option<&Elsewhere>,
    findings: &[&Finding],
    progress: &Tracker,
    failed: &mut Failed,
) -> Result<()> {
    let root = lock.root();
    for finding in findings {
        let (name, lost) = match &finding.problem {
            Problem::DatabaseDamaged { file, .. } | Problem::DatabaseMissing { file } => (of_file(file), true),
            Problem::RecordDamaged { file, .. } => (of_file(file), false),
            Problem::IndexWrong { snapshotter, .. } => (Some(snapshotter.as_str()), false),
            _ => continue,
        };
        let Some(name) = name else { continue };
        let (directory, aside) = of_snapshotter(root, name);
        // What was begun is finished, even when nobody waits for it any more; the root is not free until then.
        let held = lock.clone();
        let work = move || {
            let _held = held;
            if lost { snapshotters::rebuild(&directory, &aside) } else { snapshotters::reindex(&directory, &aside) }
        };
        note_failure(failed, finding, blocking(work).await);
    }
    for finding in findings.iter().filter(|finding| is_meta(&finding.problem)) {
        let behind = look::behind(root, look::QUICKLY, progress).await?;
        note_failure(failed, finding, store::rebuild(root, elsewhere, behind, progress).await);
    }
    Ok(())
}

fn is_meta(problem: &Problem) -> bool {
    matches!(problem, Problem::DatabaseDamaged { file, .. } | Problem::DatabaseMissing { file } if file == META)
}

/// Returns the snapshotter whose file that is.
fn of_file(file: &str) -> Option<&'static str> {
    SNAPSHOTTERS.into_iter().find(|name| file.starts_with(&format!("snapshots/{name}/")))
}

/// Repairs what the opened stores can.
async fn online(
    lock: RootLock,
    elsewhere: Option<&Elsewhere>,
    findings: &[Finding],
    resolver: &dyn Resolver,
    progress: &Tracker,
    failed: &mut Failed,
) -> Result<()> {
    let root = lock.root().to_owned();
    let options = windlass_store::Options { content: elsewhere.cloned(), ..windlass_store::Options::default() };
    let parts = Parts::open(lock, options, Choice::default())
        .await
        .context(|| format!("open root {} for repair", root.display()))?;
    unmount(findings, failed).await;
    set_aside(&root, findings, failed).await;
    let open = findings.iter().filter(|finding| !failed.contains_key(&finding.problem)).collect();
    let refused = mend(&parts, open, failed).await;
    let host = parts.host();
    blobs::fetch(&parts, &host, findings, resolver, progress, failed).await?;
    // What is recorded anew of a blob that was not right until now.
    mend(&parts, refused, failed).await;
    snapshots::unpack(&parts, &host, findings, resolver, progress, failed).await
}

/// Repairs what the store can, in whatever order works: snapshots stand on each other. Returns what it refused.
async fn mend<'a>(parts: &Parts, mut open: Vec<&'a Finding>, failed: &mut Failed) -> Vec<&'a Finding> {
    loop {
        let before = open.len();
        let mut refused = Vec::new();
        for finding in open {
            match parts.store.mend(finding).await {
                Ok(_) => drop(failed.remove(&finding.problem)),
                Err(error) => {
                    note_failure(failed, finding, Err(error));
                    refused.push(finding);
                }
            }
        }
        if refused.is_empty() || refused.len() == before {
            return refused;
        }
        open = refused;
    }
}

/// Moves directories of no snapshot away before anything cleans up: what was written there cannot be made again.
async fn set_aside(root: &Path, findings: &[Finding], failed: &mut Failed) {
    let unrecorded = |finding: &&Finding| matches!(finding.problem, Problem::DirectoryUnrecorded { .. });
    let mut stuck = BTreeSet::new();
    for finding in findings.iter().filter(unrecorded) {
        let Problem::DirectoryUnrecorded { snapshotter, directory: name, .. } = &finding.problem else { continue };
        let ((directory, aside), name) = (of_snapshotter(root, snapshotter), name.clone());
        let moved = blocking(move || snapshotters::set_aside(&directory, &name, &aside).map(|_| ())).await;
        if moved.is_err() {
            stuck.insert(snapshotter);
        }
        note_failure(failed, finding, moved);
    }
    // A cleanup would take all of them.
    for finding in findings.iter().filter(unrecorded) {
        if let Problem::DirectoryUnrecorded { snapshotter, .. } = &finding.problem
            && stuck.contains(snapshotter)
        {
            let reason = "another directory of no snapshot could not be set aside".to_owned();
            failed.entry(finding.problem.clone()).or_insert(reason);
        }
    }
}

/// Returns the directory of a snapshotter, and where its directories go that cannot be attributed.
fn of_snapshotter(root: &Path, name: &str) -> (PathBuf, PathBuf) {
    (root.join("snapshots").join(name), root.join(LOST).join(name))
}

async fn unmount(findings: &[Finding], failed: &mut Failed) {
    for finding in findings {
        let Problem::MountStale { target, .. } = &finding.problem else { continue };
        let path = PathBuf::from(target);
        note_failure(failed, finding, blocking(move || crate::mount::unmount(&path)).await);
    }
}

fn note_failure(failed: &mut Failed, finding: &Finding, result: Result<()>) {
    if let Err(error) = result {
        let reason = match error.hint_text() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        failed.insert(finding.problem.clone(), reason);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(Error::internal("a repair ended early").source(error)))
}
