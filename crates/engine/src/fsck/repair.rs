//! The repair: databases first, then records and leftovers, then bytes, then snapshots, because each stands on the one
//! before.

mod blobs;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use windlass_core::fsck::{Finding, Outcome, Problem, Remedy};
use windlass_core::progress::Tracker;
use windlass_core::remote::Resolver;
use windlass_core::{Error, Result, ResultExt};
use windlass_snapshot::fsck as snapshotters;
use windlass_store::fsck as store;
use windlass_store::{LockWait, RootLock};

use super::look::{self, Closely};
use crate::{Parts, SNAPSHOTTERS};

/// What a repair could not do, by what it was to do.
pub(super) type Failed = BTreeMap<Problem, String>;

/// Where files of snapshots go that cannot be attributed.
const LOST: &str = "lost+found";
/// What the store's database is called in findings.
const META: &str = "meta.redb";
/// How often it is looked again: what one repair uncovers, the next one repairs.
const ROUNDS: usize = 4;

/// Repairs everything that can be repaired and returns all that was found, with what became of it.
pub(super) async fn everything(
    lock: RootLock,
    closely: Closely,
    resolver: &dyn Resolver,
    progress: &Tracker,
) -> Result<Vec<Finding>> {
    let root = lock.root().to_owned();
    let mut lock = Some(lock);
    let mut all: Vec<Finding> = Vec::new();
    let mut failed = Failed::new();
    let mut closely = closely;
    for _ in 0..ROUNDS {
        let found = look::everything(&root, closely, progress).await?;
        // The bytes have been read: those of blobs that were brought since are verified.
        closely = Closely { blobs: store::Depth::Sizes, ..closely };
        let new: Vec<Finding> =
            found.iter().filter(|finding| !failed.contains_key(&finding.problem)).cloned().collect();
        note(&mut all, &found);
        let left: BTreeSet<&Problem> = found.iter().map(|finding| &finding.problem).collect();
        settle(&mut all, &left, &failed);
        if new.is_empty() {
            return Ok(all);
        }
        let databases: Vec<&Finding> = new.iter().filter(|finding| is_database(&finding.problem)).collect();
        if databases.is_empty() {
            let held = match lock.take() {
                Some(lock) => lock,
                // What the last round opened may take a moment to close.
                None => RootLock::acquire(&root, LockWait::Forever).await?,
            };
            let repaired = online(held, &new, resolver, progress, &mut failed).await;
            // Nothing may have the databases open while they are looked at.
            lock = Some(RootLock::acquire(&root, LockWait::Forever).await?);
            repaired?;
        } else {
            offline(&root, &databases, progress, &mut failed).await?;
        }
    }
    let found = look::everything(&root, closely, progress).await?;
    note(&mut all, &found);
    let left: BTreeSet<&Problem> = found.iter().map(|finding| &finding.problem).collect();
    settle(&mut all, &left, &failed);
    Ok(all)
}

fn note(all: &mut Vec<Finding>, found: &[Finding]) {
    for finding in found {
        if !all.iter().any(|known| known.problem == finding.problem) {
            all.push(finding.clone());
        }
    }
    all.sort_by(|a, b| (a.severity(), &a.problem).cmp(&(b.severity(), &b.problem)));
}

/// Says of each finding what became of it.
fn settle(all: &mut [Finding], left: &BTreeSet<&Problem>, failed: &Failed) {
    for finding in all {
        finding.outcome = match failed.get(&finding.problem) {
            Some(reason) => Outcome::Remains { reason: reason.clone() },
            None if left.contains(&finding.problem) => Outcome::Remains { reason: reason_of(finding) },
            None => Outcome::Repaired,
        };
    }
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
async fn offline(root: &Path, findings: &[&Finding], progress: &Tracker, failed: &mut Failed) -> Result<()> {
    for finding in findings {
        let (name, lost) = match &finding.problem {
            Problem::DatabaseDamaged { file, .. } | Problem::DatabaseMissing { file } => (of_file(file), true),
            Problem::RecordDamaged { file, .. } => (of_file(file), false),
            Problem::IndexWrong { snapshotter, .. } => (Some(snapshotter.as_str()), false),
            _ => continue,
        };
        let Some(name) = name else { continue };
        let (directory, aside) = (root.join("snapshots").join(name), root.join(LOST).join(name));
        let work = move || {
            if lost { snapshotters::rebuild(&directory, &aside) } else { snapshotters::reindex(&directory) }
        };
        note_failure(failed, finding, blocking(work).await);
    }
    for finding in findings.iter().filter(|finding| is_meta(&finding.problem)) {
        let behind = look::behind(root, look::QUICKLY, progress).await?;
        note_failure(failed, finding, store::rebuild(root, &behind, progress).await);
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
    findings: &[Finding],
    resolver: &dyn Resolver,
    progress: &Tracker,
    failed: &mut Failed,
) -> Result<()> {
    let root = lock.root().to_owned();
    let parts = Parts::open(lock, windlass_store::Options::default())
        .await
        .context(|| format!("open root {} for repair", root.display()))?;
    unmount(findings, failed).await;
    // Snapshots that stand on each other go in whatever order works.
    let mut open: Vec<&Finding> = findings.iter().collect();
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
            break;
        }
        open = refused;
    }
    let host = parts.host();
    blobs::fetch(&parts, &host, findings, resolver, progress, failed).await?;
    snapshots::unpack(&parts, &host, findings, progress, failed).await
}

async fn unmount(findings: &[Finding], failed: &mut Failed) {
    for finding in findings {
        let Problem::MountStale { target, .. } = &finding.problem else { continue };
        let path = std::path::PathBuf::from(target);
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
