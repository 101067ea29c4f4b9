//! The check of a root: whether bytes, records and what is derived from them belong together. Reads, and changes nothing.
//!
//! The database is read from a copy (`copy`), because opening one writes to it. Each part compares one thing and returns
//! findings; `affected` then adds the images that they affect. Not here: what only the snapshotters know, which is
//! handed in, and the repair.

mod affected;
mod blobs;
mod bytes;
mod condemned;
mod copy;
mod damaged;
mod derived;
mod documents;
mod hashing;
mod ingests;
mod inner;
mod mend;
mod nodes;
mod rebuild;
mod records;
mod salvage;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use windlass_core::fsck::{Finding, Problem};
use windlass_core::progress::Tracker;
use windlass_core::snapshot::{Info, Key};
use windlass_core::{Error, Kind, Result, ResultExt};

use crate::db;
use crate::disk::Disk;
use crate::elsewhere::Elsewhere;
use crate::unsynced;

use bytes::Bytes;
pub(crate) use condemned::Condemned;
pub use mend::Placed;
pub use rebuild::rebuild;
pub use windlass_core::fsck::Depth;

/// What a snapshotter says of itself.
#[derive(Debug, Default)]
pub struct Behind {
    /// The snapshots that it has.
    pub snapshots: Vec<Shelved>,
    /// The keys of the views that are mounted.
    pub mounted: BTreeSet<Key>,
    /// What is wrong there.
    pub findings: Vec<Finding>,
}

/// One snapshot of a snapshotter.
#[derive(Debug)]
pub struct Shelved {
    /// The snapshotter's record.
    pub info: Info,
    /// What it takes up.
    pub bytes: u64,
}

/// Looks at everything in a root but the insides of the snapshotters, which have been looked at. Blocking; the caller has
/// the root's lock, and nobody has the store open. `elsewhere` is the store that has the bytes of the root's blobs.
///
/// # Errors
/// Those of the filesystem, and of that store; `FailedPrecondition` for a root of a newer format, and for one whose blobs are
/// elsewhere and nobody says where. What is damaged is a finding.
pub fn inspect(
    root: &Path,
    elsewhere: Option<&Elsewhere>,
    depth: Depth,
    behind: &BTreeMap<String, Behind>,
    progress: &Tracker,
) -> Result<Vec<Finding>> {
    let bytes = &Bytes::of(root, elsewhere)?;
    let mut findings: Vec<Finding> = behind.values().flat_map(|behind| behind.findings.clone()).collect();
    let stored = bytes.list(&mut findings)?;
    ingests::temporary(root, &mut findings)?;
    if unsynced::is_doubtful(&Disk::real(), root)? {
        findings.push(Finding::new(Problem::WrittenWithoutSyncs));
    }
    match open(root)? {
        Opened::Sound(database) => {
            let looked = db::read(&database, |view| sound(bytes, depth, behind, progress, view, stored, &mut findings));
            looked.context(|| format!("check {}", root.display()))?;
        }
        Opened::Damaged(detail) => {
            let (records, shelved) =
                (salvage::salvage(root).len(), behind.values().map(|behind| behind.snapshots.len()).sum::<usize>());
            let blobs = stored.len();
            let detail = format!(
                "{detail}; {blobs} blobs and {shelved} snapshots are here, and {records} records can still be read"
            );
            findings.push(Finding::new(Problem::DatabaseDamaged { file: db::FILE.to_owned(), detail }));
            // What a rebuild can use.
            let named: BTreeMap<_, _> = stored.into_iter().collect();
            hashing::check(bytes, depth, &named, progress, &mut findings)?;
        }
        // Nothing was ever stored. A root that says that its blobs are elsewhere had a database.
        Opened::Absent
            if stored.is_empty()
                && behind.values().all(|behind| behind.snapshots.is_empty())
                && !bytes.are_elsewhere() => {}
        Opened::Absent => {
            findings.push(Finding::new(Problem::DatabaseMissing { file: db::FILE.to_owned() }));
            let named: BTreeMap<_, _> = stored.into_iter().collect();
            hashing::check(bytes, depth, &named, progress, &mut findings)?;
        }
    }
    findings.sort_by(|a, b| (a.severity(), &a.problem).cmp(&(b.severity(), &b.problem)));
    Ok(findings)
}

/// What became of opening the database.
enum Opened {
    Absent,
    Sound(redb::Database),
    Damaged(String),
}

fn open(root: &Path) -> Result<Opened> {
    let path = root.join(db::FILE);
    let opened = copy::open(&path).and_then(|mut database| {
        if !db::is_intact(&mut database)? {
            return Err(db::damage::damaged("its checksums do not fit"));
        }
        db::check_format(&database, root)?;
        Ok(database)
    });
    match opened {
        Ok(database) => Ok(Opened::Sound(database)),
        Err(error) if error.is(Kind::NotFound) => Ok(Opened::Absent),
        Err(error) if matches!(error.kind(), Kind::DataLoss | Kind::Internal) => {
            Ok(Opened::Damaged(error.message().to_owned()))
        }
        // The disk does not give it back.
        Err(error) if is_unreadable(&error) => Ok(Opened::Damaged(error.to_string())),
        Err(error) => Err(error),
    }
}

fn is_unreadable(error: &Error) -> bool {
    error.os_cause().and_then(std::io::Error::raw_os_error) == Some(rustix::io::Errno::IO.raw_os_error())
}

fn sound(
    bytes: &Bytes,
    depth: Depth,
    behind: &BTreeMap<String, Behind>,
    progress: &Tracker,
    view: &redb::ReadTransaction,
    stored: blobs::Stored,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let recorded = records::contents(view, &stored, depth, findings)?;
    blobs::compare(&recorded, &stored, findings);
    let present: BTreeMap<_, _> = stored.into_iter().filter(|(digest, _)| recorded.contains_key(digest)).collect();
    let good = hashing::check(bytes, depth, &present, progress, findings)?;
    records::sizes(view, &good, depth, findings)?;
    records::images(view, findings)?;
    records::containers(view, findings)?;
    records::leases(view, findings)?;
    records::dangling(view, findings)?;
    records::namespaces(view, findings)?;
    snapshots::compare(view, behind, findings)?;
    documents::compare(bytes, view, findings)?;
    ingests::compare(bytes.root(), view, findings)?;
    affected::add(view, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_the_disk_does_not_give_back_is_damaged() {
        let io = |number: rustix::io::Errno| Error::io("read", number.into()).context("use the database");
        assert!(is_unreadable(&io(rustix::io::Errno::IO)));
        assert!(!is_unreadable(&io(rustix::io::Errno::ACCESS)));
    }
}
