//! The repair of a snapshotter's records, while nobody has the snapshotter open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableTable as _};
use windlass_core::error::{IoResultExt as _, Result};

use super::compare::Tables;
use super::{RECORDS, Snapshot, read};
use crate::directories;
use crate::in_use;
use crate::records::Failure;
use crate::records::damage::guarded;
use crate::records::schema::{CURRENT_FORMAT, FORMAT, NEXT_ID, Record, Tables as Open};

/// Removes the records that do not decode and derives the other tables anew, in one transaction.
///
/// # Errors
/// Those of the database.
pub fn reindex(directory: &Path) -> Result<()> {
    let path = directory.join(RECORDS);
    let read::Read::Sound(tables) = read::tables(&path)? else { return Ok(()) };
    guarded(|| {
        let database = Database::builder().open(&path)?;
        write(&database, &tables)
    })
}

/// Replaces the records of a snapshotter by those of them that can still be read and whose directories are here. The
/// damaged file stays beside the new one, as `records.redb.damaged-<n>`. Directories that then belong to nobody are left
/// for the snapshotter's cleanup, but for those that somebody wrote into, which `aside` gets: nothing can make them again.
///
/// 1. make the new file under another name  2. give the old one its second name  3. rename the new one over the first
/// 4. sync the directory
///
/// # Errors
/// Those of the filesystem.
pub fn rebuild(directory: &Path, aside: &Path) -> Result<()> {
    let path = directory.join(RECORDS);
    let tables = match read::tables(&path)? {
        read::Read::Sound(_) => return Ok(()),
        read::Read::Absent => Tables::default(),
        read::Read::Damaged { rest, .. } => rest,
    };
    let root = directory.join("snapshots");
    let kept = Tables { records: plausible(tables.records, &root), ..Tables::default() };
    let new = directory.join("records.redb.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.attempt(|| format!("remove {}", new.display()))?,
    }
    guarded(|| write(&Database::builder().create(&new)?, &kept))?; // 1.
    if path.try_exists().attempt(|| format!("look for {}", path.display()))? {
        let second = free_name(directory)?;
        std::fs::hard_link(&path, &second).attempt(|| format!("keep {} as {}", path.display(), second.display()))?; // 2.
    }
    std::fs::rename(&new, &path).attempt(|| format!("rename {} to {}", new.display(), path.display()))?; // 3.
    let sync = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    sync.attempt(|| format!("sync {}", directory.display()))?; // 4.
    let known: BTreeSet<u64> = kept.records.iter().map(|record| record.id).collect();
    set_aside(&root, &known, aside)
}

/// Returns the records that may be right: a directory each, and parents that are there.
fn plausible(records: Vec<Snapshot>, root: &Path) -> Vec<Snapshot> {
    let mut ids = BTreeSet::new();
    let here = |record: &Snapshot| crate::snapshots::tree_of(&root.join(record.id.to_string())).exists();
    records.into_iter().filter(|record| here(record) && ids.insert(record.id)).collect()
}

/// Moves the directories that were written into out of the way: those with the scratch space of an overlay.
fn set_aside(root: &Path, known: &BTreeSet<u64>, aside: &Path) -> Result<()> {
    for found in directories::look(root)? {
        let (Some(id), true) = (found.id, found.complete) else { continue };
        let from = root.join(&found.name);
        if known.contains(&id) || !from.join("work").exists() || in_use::check(root, id).is_err() {
            continue;
        }
        std::fs::create_dir_all(aside).attempt(|| format!("create {}", aside.display()))?;
        let to = aside.join(&found.name);
        std::fs::rename(&from, &to).attempt(|| format!("rename {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Writes the records and what is derived from them, in place of whatever there is.
fn write(database: &Database, tables: &Tables) -> Result<(), Failure> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    {
        let mut open = Open::open(&transaction)?;
        open.snapshots.retain(|_, _| false)?;
        open.children.retain(|_, ()| false)?;
        open.ids.retain(|_, _| false)?;
        for Snapshot { id, info, usage } in &tables.records {
            open.put(&Record { id: *id, info: info.clone(), usage: *usage })?;
            if let Some(parent) = &info.parent {
                open.children.insert((parent.as_str(), info.key.as_str()), ())?;
            }
        }
        let next = tables.records.iter().map(|record| record.id + 1).max().unwrap_or(1);
        let recorded = open.meta.get(NEXT_ID)?.map_or(1, |next| next.value());
        open.meta.insert(NEXT_ID, next.max(recorded))?;
        open.meta.insert(FORMAT, CURRENT_FORMAT)?;
    }
    transaction.commit()?;
    Ok(())
}

fn free_name(directory: &Path) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let path = directory.join(format!("{RECORDS}.damaged-{number}"));
        if !path.try_exists().attempt(|| format!("look for {}", path.display()))? {
            return Ok(path);
        }
        number += 1;
    }
}
