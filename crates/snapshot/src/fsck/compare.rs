//! The comparison of what is recorded with what is derived from it and with what is there: plain data, and no files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use windlass_core::error::{IoResultExt as _, Result};
use windlass_core::fsck::{Finding, Problem, Remedy};
use windlass_core::snapshot::{Name, Usage};

use super::Snapshot;
use crate::directories::Found;

/// What the database says.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) records: Vec<Snapshot>,
    /// Keys of records that do not decode, and why.
    pub(super) undecodable: Vec<(String, String)>,
    pub(super) children: BTreeSet<(String, String)>,
    pub(super) ids: BTreeMap<u64, String>,
}

/// Compares the tables with each other; those that are derived only when all records could be read.
pub(super) fn records(snapshotter: &str, file: &str, tables: &Tables, whole: bool) -> Vec<Finding> {
    let mut findings: Vec<Finding> = tables
        .undecodable
        .iter()
        .map(|(key, detail)| {
            Finding::new(Problem::RecordDamaged {
                file: file.to_owned(),
                table: "snapshots".to_owned(),
                key: key.clone(),
                detail: detail.clone(),
            })
        })
        .map(|finding| finding.remedied_by(Remedy::Unpack))
        .collect();
    let names: BTreeSet<&str> = tables.records.iter().map(|record| record.info.key.as_str()).collect();
    for record in &tables.records {
        let Some(parent) = record.info.parent.as_ref().map(Name::as_str) else { continue };
        if !names.contains(parent) && !tables.undecodable.iter().any(|(key, _)| key == parent) {
            findings.push(Finding::new(Problem::InnerParentMissing {
                snapshotter: snapshotter.to_owned(),
                inner: record.info.key.to_string(),
                parent: parent.to_owned(),
            }));
        }
    }
    if whole && tables.undecodable.is_empty() {
        let wrong = |detail| Finding::new(Problem::IndexWrong { snapshotter: snapshotter.to_owned(), detail });
        findings.extend(contradictions(tables).into_iter().map(wrong));
    }
    findings
}

/// Says how the derived tables differ from what they are derived from.
fn contradictions(tables: &Tables) -> Vec<String> {
    let children: BTreeSet<(String, String)> = tables
        .records
        .iter()
        .filter_map(|record| Some((record.info.parent.as_ref()?.to_string(), record.info.key.to_string())))
        .collect();
    let ids: BTreeMap<u64, String> =
        tables.records.iter().map(|record| (record.id, record.info.key.to_string())).collect();
    let mut wrong = Vec::new();
    for (parent, child) in children.difference(&tables.children) {
        wrong.push(format!("{child} is not listed as a child of {parent}"));
    }
    for (parent, child) in tables.children.difference(&children) {
        wrong.push(format!("{child} is listed as a child of {parent} and is none"));
    }
    for (id, key) in &ids {
        if tables.ids.get(id) != Some(key) {
            wrong.push(format!("directory {id} is not listed as that of {key}"));
        }
    }
    for (id, key) in &tables.ids {
        if !ids.contains_key(id) {
            wrong.push(format!("directory {id} is listed as that of {key} and is not"));
        }
    }
    wrong
}

/// Says what is wrong with a directory, given its size.
pub(super) fn directory(
    snapshotter: &str,
    found: &Found,
    tables: &Tables,
    whole: bool,
) -> Option<impl FnOnce(u64) -> Problem> {
    let recorded = found.complete && tables.records.iter().any(|record| Some(record.id) == found.id);
    // One whose record is damaged is dealt with by that finding, as all of them are by one of the database.
    let unknown = !whole || !tables.undecodable.is_empty();
    if recorded || (found.complete && found.id.is_some() && unknown) {
        return None;
    }
    let (snapshotter, directory, ours) = (snapshotter.to_owned(), found.name.clone(), found.id.is_some());
    Some(move |size| {
        if ours {
            return Problem::DirectoryUnrecorded { snapshotter, directory, size };
        }
        Problem::ForeignFile { path: format!("snapshots/{snapshotter}/snapshots/{directory}"), size }
    })
}

/// Tells whether a committed tree is not the one that was measured. Inodes are counted alike everywhere; blocks only
/// where the filesystem keeps giving the same number.
pub(super) fn changed(recorded: Usage, found: Usage, blocks_are_stable: bool) -> bool {
    found.inodes != recorded.inodes || (blocks_are_stable && found.bytes < recorded.bytes)
}

/// Tells whether `st_blocks` of a file that is not touched stays the same: ext4, XFS and tmpfs, but not those that
/// compress or allocate behind one's back (btrfs, bcachefs, f2fs, ZFS). statfs(2) has the numbers.
pub(super) fn blocks_are_stable(tree: &Path) -> Result<bool> {
    const STABLE: [i64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];
    let stat = rustix::fs::statfs(tree).attempt(|| format!("look at the filesystem of {}", tree.display()))?;
    Ok(STABLE.contains(&stat.f_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;
    use windlass_core::Labels;
    use windlass_core::snapshot::{Info, State};

    fn snapshot(id: u64, key: &str, parent: Option<&str>) -> Snapshot {
        let info = Info {
            state: State::Committed,
            key: key.parse().unwrap(),
            parent: parent.map(|parent| parent.parse().unwrap()),
            labels: Labels::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
        };
        Snapshot { id, info, usage: None }
    }

    fn tables() -> Tables {
        Tables {
            records: vec![snapshot(1, "a", None), snapshot(2, "b", Some("a"))],
            undecodable: Vec::new(),
            children: BTreeSet::from([("a".to_owned(), "b".to_owned())]),
            ids: BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned())]),
        }
    }

    fn found(tables: &Tables) -> Vec<String> {
        records("s", "f", tables, true).iter().map(|finding| finding.problem.to_string()).collect()
    }

    #[test]
    fn each_row_that_does_not_follow_from_the_records_is_named() {
        assert_eq!(found(&tables()), [""; 0]);
        let mut wrong = tables();
        wrong.children = BTreeSet::from([("a".to_owned(), "c".to_owned())]);
        wrong.ids = BTreeMap::from([(1, "b".to_owned()), (3, "c".to_owned())]);
        let text = found(&wrong).join("\n");
        for expected in ["b is not listed", "c is listed as a child", "directory 1 is", "directory 2 is", "directory 3"]
        {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn a_parent_that_is_not_there_is_named_once() {
        let mut wrong = tables();
        wrong.records.remove(0);
        wrong.ids.remove(&1);
        assert_eq!(found(&wrong), ["snapshotter s has b on a, which it has not"]);
    }

    #[test]
    fn fewer_inodes_count_everywhere_and_fewer_blocks_only_where_they_are_stable() {
        let usage = |inodes, bytes| Usage { inodes, bytes };
        let recorded = usage(3, 4096);
        assert!(!changed(recorded, recorded, true));
        assert!(!changed(recorded, usage(3, 8192), true));
        assert!(changed(recorded, usage(2, 4096), false));
        assert!(changed(recorded, usage(3, 0), true));
        assert!(!changed(recorded, usage(3, 0), false));
    }
}
