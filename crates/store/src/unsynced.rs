//! Roots that are written without syncs: a file in the root says so, and in which boot, so that whoever opens the root in
//! another boot knows that any of it may be lost.
//!
//! ```text
//! written without syncs in this boot ─► nothing is lost; opened with syncs, all of it is synced, and the file goes
//! written without syncs in another one ─► what is recorded may be damaged: `dist fsck` tells, and its repair ends that
//! ```

use std::path::Path;

use windlass_core::{Durability, Kind, Result, ResultExt};

use crate::disk::{Disk, How};

/// What the file is called.
pub(crate) const FILE: &str = "unsynced";
/// The mode of the file.
const MODE: u32 = 0o600;
/// A boot's identity and a bit.
const MAX_LEN: usize = 256;

/// What is known of a root before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// What is recorded is there.
    Full,
    /// It may be damaged, the database too.
    Doubt,
}

/// Prepares a root for being written with or without syncs. Blocking.
///
/// Without: 1. write `unsynced` and sync it  2. sync the root  3. write anything else. With, after it was written without in
/// the same boot: 1. sync everything  2. remove `unsynced`.
pub(crate) fn prepare(disk: &Disk, root: &Path, durability: Durability) -> Result<Trust> {
    if is_doubtful(disk, root)? {
        tracing::warn!(
            root = %root.display(),
            "the root was written without syncs, and the machine has been restarted since: what it has may be damaged \
             (`dist fsck` tells, `dist fsck --repair` repairs it)"
        );
        return Ok(Trust::Doubt);
    }
    let path = root.join(FILE);
    match (disk.look(&path)?, durability) {
        (None, Durability::Unsynced) => {
            let file = disk.open(&path, How::Replace(MODE))?;
            file.write_all_at(disk.boot().unwrap_or_default().as_bytes(), 0)?;
            file.sync_all()?;
            disk.sync_dir(root)?;
        }
        (Some(_), Durability::Synced) => {
            settle(disk, root).context(|| format!("sync what is in {}", root.display()))?;
        }
        (None, Durability::Synced) | (Some(_), Durability::Unsynced) => {}
    }
    Ok(Trust::Full)
}

/// Tells whether a root was written without syncs in another boot. Blocking.
pub(crate) fn is_doubtful(disk: &Disk, root: &Path) -> Result<bool> {
    let then = disk.read(&root.join(FILE), MAX_LEN)?;
    let boot = disk.boot().unwrap_or_default();
    Ok(then.is_some_and(|then| boot.is_empty() || then != boot.as_bytes()))
}

/// Makes everything in a root durable, and says that it is. Blocking.
pub(crate) fn settle(disk: &Disk, root: &Path) -> Result<()> {
    disk.filesystem(root)?.sync()?;
    // Snapshotters may be on filesystems of their own.
    let snapshots = root.join("snapshots");
    let mut names = Vec::new();
    match disk.list(&snapshots, |name| names.push(name.to_owned())) {
        Err(error) if error.is(Kind::NotFound) => {}
        listed => listed?,
    }
    for name in names {
        disk.filesystem(&snapshots.join(name))?.sync()?;
    }
    disk.remove_file(&root.join(FILE))?;
    disk.sync_dir(root)
}
