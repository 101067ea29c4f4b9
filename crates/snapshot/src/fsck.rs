//! The check of a snapshotter's directory: whether records and directories belong together. Reads, and changes nothing.
//!
//! The database is read from a copy in memory, because opening a redb database writes to it. Not here: what the records
//! of the store say of the snapshots, and the repair, which is [`crate::snapshots`]' own.

mod compare;
mod mend;
mod mounts;
mod read;

use std::path::Path;

use windlass_core::error::{IoResultExt as _, Result};
use windlass_core::fsck::{Finding, Problem};
use windlass_core::snapshot::{Info, State, Usage};

use crate::directories;
use crate::snapshots::measure;
use crate::tree::{self, Blocks};

use compare::Tables;
pub use mend::{rebuild, reindex, set_aside};
pub use mounts::{Shown, shown};

/// What the records file is called.
const RECORDS: &str = "records.redb";

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At every file of every committed snapshot.
    Files,
    /// At the directories themselves.
    Directories,
}

/// What was found in the directory of a snapshotter.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The snapshots that are recorded, as far as their records can be read.
    pub snapshots: Vec<Snapshot>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Whether all records could be read.
    pub sound: bool,
}

/// One snapshot, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The number of its directory.
    pub id: u64,
    /// The record.
    pub info: Info,
    /// What was measured at its commit.
    pub usage: Option<Usage>,
}

/// Looks at everything in the directory of a snapshotter, which may be missing. Blocking; nobody may have the snapshotter
/// open.
///
/// # Errors
/// Those of the filesystem. What is damaged is a finding.
pub fn inspect(directory: &Path, snapshotter: &str, depth: Depth) -> Result<Inspection> {
    let file = format!("snapshots/{snapshotter}/{RECORDS}");
    let path = directory.join(RECORDS);
    let found = directories::look(&directory.join("snapshots"))?;
    let mut inspection = Inspection { sound: true, ..Inspection::default() };
    let tables = match read::tables(&path)? {
        read::Read::Absent if found.is_empty() => return Ok(inspection),
        read::Read::Absent => {
            inspection.findings.push(Finding::new(Problem::DatabaseMissing { file: file.clone() }));
            Tables::default()
        }
        read::Read::Damaged { detail, rest } => {
            inspection.findings.push(Finding::new(Problem::DatabaseDamaged { file: file.clone(), detail }));
            rest
        }
        read::Read::Sound(tables) => tables,
    };
    // Without its database every directory is without a record, which one finding says.
    let whole = inspection.findings.is_empty();
    inspection.findings.extend(compare::records(snapshotter, &file, &tables, whole));
    for found in found {
        let path = directory.join("snapshots").join(&found.name);
        if let Some(problem) = compare::directory(snapshotter, &found, &tables, whole) {
            let bytes = tree::usage(&path, Blocks::All).map_or(0, |usage| usage.bytes);
            inspection.findings.push(Finding::new(problem(bytes)));
        }
    }
    for record in &tables.records {
        let own = directory.join("snapshots").join(record.id.to_string());
        inspection.findings.extend(tree_finding(snapshotter, record, &own, depth)?);
    }
    inspection.sound = whole && tables.undecodable.is_empty();
    inspection.snapshots = tables.records;
    Ok(inspection)
}

fn tree_finding(snapshotter: &str, record: &Snapshot, directory: &Path, depth: Depth) -> Result<Option<Finding>> {
    let tree = crate::snapshots::tree_of(directory);
    let missing = || Problem::DirectoryMissing {
        snapshotter: snapshotter.to_owned(),
        inner: record.info.key.to_string(),
        id: record.id,
        state: record.info.state.into(),
    };
    if !tree.try_exists().attempt(|| format!("look for {}", tree.display()))? {
        let bytes = record.usage.map_or(0, |usage| usage.bytes);
        return Ok(Some(Finding::new(missing()).with_bytes(bytes)));
    }
    let Some(recorded) = record.usage.filter(|_| record.info.state == State::Committed && depth == Depth::Files) else {
        return Ok(None);
    };
    // The record has the blocks of contents alone, so that those of the filesystem itself, which come and go, are none that are missing.
    let found = measure(directory, Blocks::All)?;
    let changed = compare::changed(recorded, found, compare::blocks_are_stable(&tree)?);
    Ok(changed.then(|| {
        Finding::new(Problem::TreeChanged {
            snapshotter: snapshotter.to_owned(),
            inner: record.info.key.to_string(),
            id: record.id,
            recorded: recorded.into(),
            found: found.into(),
        })
    }))
}
