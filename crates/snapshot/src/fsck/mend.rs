//! The repair of a snapshotter's records, while nobody has the snapshotter open.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
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

/// What has the snapshots' directories.
const SNAPSHOTS: &str = "snapshots";

/// Removes the records that do not decode and derives the other tables anew, in one transaction. Whose directories those
/// records had nobody knows any more: every directory without a record that decodes goes to `aside` first, because what was
/// written there cannot be made again.
///
/// # Errors
/// Those of the filesystem and of the database.
pub fn reindex(directory: &Path, aside: &Path) -> Result<()> {
    let path = directory.join(RECORDS);
    let read::Read::Sound(tables) = read::tables(&path)? else { return Ok(()) };
    if !tables.undecodable.is_empty() {
        set_others_aside(directory, &tables.records, aside)?;
    }
    guarded(|| {
        let database = Database::builder().open(&path)?;
        write(&database, &tables)
    })
}

/// Replaces the records of a snapshotter by those of them that can still be read and whose directories are here. The
/// damaged file stays beside the new one, as `records.redb.damaged-<n>`. Directories that then belong to nobody go to
/// `aside`: which of them were layers, and which somebody wrote into, only the records knew.
///
/// 1. make the new file under another name  2. move the directories away  3. give the old file its second name
/// 4. rename the new one over the first  5. sync the directory
///
/// A repair that is killed before 4 is done anew by the next one.
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
    let kept = Tables { records: plausible(tables.records, &directory.join(SNAPSHOTS)), ..Tables::default() };
    let new = directory.join("records.redb.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        removed => removed.attempt(|| format!("remove {}", new.display()))?,
    }
    guarded(|| write(&Database::builder().create(&new)?, &kept))?; // 1.
    set_others_aside(directory, &kept.records, aside)?; // 2.
    if path.try_exists().attempt(|| format!("look for {}", path.display()))? {
        let second = free_name(directory, &format!("{RECORDS}.damaged-"))?;
        std::fs::hard_link(&path, &second).attempt(|| format!("keep {} as {}", path.display(), second.display()))?; // 3.
    }
    std::fs::rename(&new, &path).attempt(|| format!("rename {} to {}", new.display(), path.display()))?; // 4.
    sync(directory) // 5.
}

/// Moves a directory that belongs to no snapshot out of the way, if it is a whole one: what is half made or half deleted is
/// left for the snapshotter's cleanup. Tells whether it has been moved.
///
/// # Errors
/// `FailedPrecondition` when it is mounted; those of the filesystem.
pub fn set_aside(directory: &Path, name: &str, aside: &Path) -> Result<bool> {
    let Ok(id) = name.parse() else { return Ok(false) };
    // Mounts are known by their real paths.
    let root = directory.join(SNAPSHOTS);
    let root = std::fs::canonicalize(&root).attempt(|| format!("find {}", root.display()))?;
    in_use::check(&root, id)?;
    move_away(&root, name, aside)?;
    Ok(true)
}

fn move_away(root: &Path, name: &str, aside: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(aside).attempt(|| format!("create {}", aside.display()))?;
    let (from, to) = (root.join(name), free_name(aside, &format!("{name}."))?);
    std::fs::rename(&from, &to).attempt(|| format!("rename {} to {}", from.display(), to.display()))?;
    sync(aside)?;
    tracing::info!(directory = %from.display(), to = %to.display(), "a snapshot directory without a record is set aside");
    Ok(())
}

/// Returns the records that may be right: a directory each, and parents that are there.
fn plausible(records: Vec<Snapshot>, root: &Path) -> Vec<Snapshot> {
    let mut ids = BTreeSet::new();
    let here = |record: &Snapshot| crate::snapshots::tree_of(&root.join(record.id.to_string())).exists();
    records.into_iter().filter(|record| here(record) && ids.insert(record.id)).collect()
}

/// Moves the whole directories that have no record out of the way, but for those that somebody has mounted.
fn set_others_aside(directory: &Path, known: &[Snapshot], aside: &Path) -> Result<()> {
    let known: BTreeSet<u64> = known.iter().map(|record| record.id).collect();
    let root = directory.join(SNAPSHOTS);
    for found in directories::look(&root)? {
        let Some(id) = found.id.filter(|id| found.complete && !known.contains(id)) else { continue };
        let root = std::fs::canonicalize(&root).attempt(|| format!("find {}", root.display()))?;
        match in_use::check(&root, id) {
            Ok(()) => move_away(&root, &found.name, aside)?,
            // Found again as a directory of no snapshot.
            Err(error) => tracing::warn!(%error, "a snapshot directory without a record stays"),
        }
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

fn sync(directory: &Path) -> Result<()> {
    let sync = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    sync.attempt(|| format!("sync {}", directory.display()))
}

/// Returns a path that nothing has: what a name begins with, and a number.
fn free_name(directory: &Path, begin: &str) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let path = directory.join(format!("{begin}{number}"));
        if !path.try_exists().attempt(|| format!("look for {}", path.display()))? {
            return Ok(path);
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;
    use windlass_core::Labels;
    use windlass_core::snapshot::{Commit, Snapshotter as _};

    use super::*;
    use crate::fsck::{Depth, inspect};
    use crate::native::Native;

    /// Makes a layer in directory 1 and an active snapshot on it in 2, which somebody wrote into.
    async fn written(directory: &Path) {
        let snapshots = Native::open(directory).await.unwrap();
        snapshots.prepare(&"work".parse().unwrap(), None, Labels::new()).await.unwrap();
        snapshots.commit(&"base".parse().unwrap(), &"work".parse().unwrap(), Commit::default()).await.unwrap();
        snapshots.prepare(&"mine".parse().unwrap(), Some(&"base".parse().unwrap()), Labels::new()).await.unwrap();
        std::fs::write(directory.join("snapshots/2/fs/file"), "written").unwrap();
    }

    fn kept(aside: &Path, name: &str) -> String {
        std::fs::read_to_string(aside.join(name).join("fs/file")).unwrap()
    }

    #[tokio::test]
    async fn what_was_written_under_a_record_that_does_not_decode_is_set_aside() {
        let (directory, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        written(directory.path()).await;
        let database = Database::open(directory.path().join(RECORDS)).unwrap();
        let change = database.begin_write().unwrap();
        let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
        change.open_table(table).unwrap().insert("mine", &b"\x01{"[..]).unwrap();
        change.commit().unwrap();
        drop(database);
        reindex(directory.path(), aside.path()).unwrap();
        assert_eq!(kept(aside.path(), "2.1"), "written");
        assert!(directory.path().join("snapshots/1/fs").exists());
        assert_eq!(inspect(directory.path(), "native", Depth::Files).unwrap().findings, []);
    }

    #[tokio::test]
    async fn what_was_written_is_set_aside_as_often_as_the_records_are_lost() {
        let (directory, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for number in 1..3 {
            written(directory.path()).await;
            std::fs::remove_file(directory.path().join(RECORDS)).unwrap();
            // Something is in the way of the first attempt.
            std::fs::create_dir(directory.path().join("records.redb.new")).unwrap();
            rebuild(directory.path(), aside.path()).unwrap_err();
            std::fs::remove_dir(directory.path().join("records.redb.new")).unwrap();
            rebuild(directory.path(), aside.path()).unwrap();
            assert_eq!(kept(aside.path(), &format!("2.{number}")), "written");
            assert_eq!(inspect(directory.path(), "native", Depth::Files).unwrap().findings, []);
        }
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_set_aside_keeps_the_damaged_records_in_their_place() {
        let (directory, blocked) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        written(directory.path()).await;
        let records = directory.path().join(RECORDS);
        std::fs::write(&records, "damaged").unwrap();
        rebuild(directory.path(), &blocked.path().join("aside")).unwrap_err();
        assert_eq!(std::fs::read_to_string(&records).unwrap(), "damaged");
        assert!(directory.path().join("snapshots/2/fs/file").exists());
    }
}
