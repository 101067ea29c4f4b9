//! The directories of a snapshotter, one per snapshot, named by a number.
//!
//! ```text
//! snapshots/<id>/       a snapshot's own, once it is complete
//! snapshots/new-<id>/   one that is being made
//! snapshots/rm-<id>/    one that is being deleted
//! ```
//!
//! A number is used once. Which numbers belong to a record is not known here.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_core::error::{IoResultExt as _, Result};

use crate::in_use;
use crate::steps::Steps;
use crate::tree;

const NEW: &str = "new-";
const REMOVED: &str = "rm-";

/// The directory that has the snapshots' directories.
pub(crate) struct Directories {
    root: PathBuf,
    next: AtomicU64,
    /// Numbers that were given out and are neither recorded nor given up, with how many hold each: two may be about to remove
    /// the same snapshot, and the one that comes too late lets go while the other one still deletes.
    pending: Mutex<BTreeMap<u64, usize>>,
    /// Held by the one cleanup that runs.
    cleaning: Mutex<()>,
}

impl Directories {
    /// Opens, or creates, `DIR/snapshots`. Only root may look inside: a setuid file of an image is not for everybody.
    pub(crate) fn open(directory: &Path, next_recorded: u64) -> Result<Self> {
        let root = directory.join("snapshots");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .attempt(|| format!("create {}", root.display()))?;
        let root = fs::canonicalize(&root).attempt(|| format!("find {}", root.display()))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))
            .attempt(|| format!("close {}", root.display()))?;
        let directories =
            Self { root, next: AtomicU64::new(next_recorded), pending: Mutex::default(), cleaning: Mutex::default() };
        let there = directories.list()?.into_iter().map(|(id, _)| id).max().map_or(0, |id| id + 1);
        directories.next.fetch_max(there, Ordering::Relaxed);
        Ok(directories)
    }

    /// Returns the directory that has the others.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory of a number.
    pub(crate) fn of(&self, id: u64) -> PathBuf {
        self.root.join(id.to_string())
    }

    /// Makes a directory that nobody knows of yet.
    pub(crate) fn draft<'a>(&'a self, steps: &'a Steps) -> Result<Draft<'a>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let reserved = self.reserve(id);
        let draft = Draft { reserved, steps, path: self.root.join(format!("{NEW}{id}")), kept: false };
        fs::DirBuilder::new().mode(0o700).create(&draft.path).attempt(|| format!("create {}", draft.path.display()))?;
        Ok(draft)
    }

    /// Keeps a cleanup from the directory of a number that is about to be removed.
    pub(crate) fn reserve(&self, id: u64) -> Reserved<'_> {
        *self.pending().entry(id).or_default() += 1;
        Reserved { directories: self, id }
    }

    /// Renames the directory of a number away, if it is there; [`Directories::delete_removed`] deletes it.
    pub(crate) fn set_aside(&self, id: u64) -> Result<()> {
        let (from, to) = (self.of(id), self.root.join(format!("{REMOVED}{id}")));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            renamed => renamed.attempt(|| format!("rename {} to {}", from.display(), to.display())),
        }
    }

    /// Deletes what was set aside of a number.
    pub(crate) fn delete_removed(&self, id: u64) -> Result<()> {
        tree::remove(&self.root.join(format!("{REMOVED}{id}")))
    }

    /// Deletes every directory that `recorded` does not know, and everything temporary.
    pub(crate) fn delete_others(&self, recorded: impl FnOnce() -> Result<HashSet<u64>>) -> Result<()> {
        let _alone = self.cleaning.lock().unwrap_or_else(PoisonError::into_inner);
        // The order matters: a number that is neither pending now nor recorded afterwards was not on its way.
        let found = self.list()?;
        let pending = self.pending().clone();
        let recorded = recorded()?;
        for (id, Found { name, complete, .. }) in found {
            if pending.contains_key(&id) || (complete && recorded.contains(&id)) {
                continue;
            }
            let path = self.root.join(&name);
            // Whoever looks at it through a mount keeps it, recorded or not.
            if complete && let Err(error) = in_use::check(&self.root, id) {
                tracing::warn!(%error, "a snapshot directory without a record stays");
                continue;
            }
            tracing::info!(directory = %path.display(), "delete a snapshot directory without a record");
            if complete {
                self.set_aside(id)?;
                self.delete_removed(id)?;
            } else {
                tree::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Lists what is there; names of another form are not ours and stay.
    fn list(&self) -> Result<Vec<(u64, Found)>> {
        Ok(look(&self.root)?.into_iter().filter_map(|found| Some((found.id?, found))).collect())
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists what is in the directory of all snapshots, which may be missing.
pub(crate) fn look(root: &Path) -> Result<Vec<Found>> {
    let attempt = || format!("list {}", root.display());
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.attempt(attempt)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.attempt(attempt)?.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(NEW).or_else(|| name.strip_prefix(REMOVED));
        let complete = number.is_none();
        found.push(Found { id: number.unwrap_or(&name).parse().ok(), name, complete });
    }
    Ok(found)
}

/// Something in the directory of all snapshots.
pub(crate) struct Found {
    /// The number, if the name has the form that ours have.
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    /// Whether it is neither being made nor being removed.
    pub(crate) complete: bool,
}

/// A number that a cleanup leaves alone.
pub(crate) struct Reserved<'a> {
    directories: &'a Directories,
    id: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut pending = self.directories.pending();
        match pending.get_mut(&self.id) {
            Some(holders) if *holders > 1 => *holders -= 1,
            _ => {
                pending.remove(&self.id);
            }
        }
    }
}

/// A directory on its way; deleted when it is dropped before [`Draft::keep`].
pub(crate) struct Draft<'a> {
    reserved: Reserved<'a>,
    steps: &'a Steps,
    path: PathBuf,
    kept: bool,
}

impl Draft<'_> {
    pub(crate) fn id(&self) -> u64 {
        self.reserved.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory its final name.
    pub(crate) fn place(&mut self) -> Result<()> {
        let to = self.reserved.directories.of(self.reserved.id);
        fs::rename(&self.path, &to).attempt(|| format!("rename {} to {}", self.path.display(), to.display()))?;
        self.path = to;
        Ok(())
    }

    /// Says that the directory is recorded.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept
            && !self.steps.stopped()
            && let Err(error) = tree::remove(&self.path)
        {
            tracing::warn!(directory = %self.path.display(), %error, "a directory stays until the next cleanup");
        }
    }
}
