//! Removing what is in the way: files, and trees without following anything out of them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Stat, fstat, statat, unlinkat};
use rustix::io::Errno;
use windlass_core::{Error, Result};

use super::dirs::{self, Dir};
use super::{Extractor, metadata, os_error};
use crate::path::LayerPath;

/// What of a tree stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing.
    Nothing,
    /// What the layer brought, and the directories that it is in.
    Ours,
}

/// A directory that is being removed.
struct Level {
    path: LayerPath,
    inode: u64,
    /// What is in it and was not looked at.
    names: Vec<(Vec<u8>, FileType)>,
    /// Whether something stays, the directory itself among it.
    stays: bool,
}

impl Extractor {
    /// Removes what is there to make room for an entry.
    pub(super) fn displace(&mut self, parent: &Dir, name: &[u8], path: &LayerPath, stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        self.remove(parent, parent.inode, (name, kind), path, Keep::Nothing).map(drop)
    }

    /// Removes something in a directory, as far as it is not to be kept; returns whether it is gone.
    pub(super) fn remove(
        &mut self,
        dir: impl AsFd,
        inode: u64,
        (name, kind): (&[u8], FileType),
        path: &LayerPath,
        keep: Keep,
    ) -> Result<bool> {
        self.writers.settle_all()?;
        let dir = dir.as_fd();
        let attempt = |e| os_error(e, format!("remove {path}"));
        let mut stays = keep == Keep::Ours && self.is_ours(inode, name, path);
        if stays && kind == FileType::CharacterDevice {
            // A mark of a deleted name goes with the directory that it is in, or is hidden with what it hides.
            stays = !self.is_mark(&statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(attempt)?);
        }
        match kind {
            FileType::Directory => {}
            _ if stays => return Ok(false),
            _ => {
                unlinkat(dir, name, AtFlags::empty()).map_err(attempt)?;
                self.copied.remove(path);
                return Ok(true);
            }
        }
        if !self.empty(dir, name, path, stays, keep)? {
            return Ok(false);
        }
        unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(attempt)?;
        self.forget_directory(path);
        Ok(true)
    }

    /// Empties a directory, and returns whether it is to go too. One directory is open at a time, however deep the tree is:
    /// the way back is `..`, which must lead to where we came from.
    fn empty(&mut self, top: impl AsFd, name: &[u8], path: &LayerPath, stays: bool, keep: Keep) -> Result<bool> {
        let (mut dir, level) = self.open_level(top, name, path.clone(), stays)?;
        let mut levels = vec![level];
        loop {
            let Some(level) = levels.last_mut() else { return Ok(true) };
            let inode = level.inode;
            if let Some((child, kind)) = level.names.pop() {
                let path = level.path.join(&child);
                let kind = known(&dir, &child, kind).map_err(|e| os_error(e, format!("remove {path}")))?;
                if kind != FileType::Directory {
                    level.stays |= !self.remove(&dir, inode, (&child, kind), &path, keep)?;
                    continue;
                }
                let stays = keep == Keep::Ours && self.is_ours(inode, &child, &path);
                let (next, level) = self.open_level(&dir, &child, path, stays)?;
                dir = next;
                levels.push(level);
                continue;
            }
            let Some(done) = levels.pop() else { return Ok(true) };
            let Some(parent) = levels.last_mut() else { return Ok(!done.stays) };
            let attempt = |e| os_error(e, format!("remove {}", done.path));
            dir = dirs::open(&dir, b"..").map_err(attempt)?;
            if fstat(&dir).map_err(attempt)?.st_ino != parent.inode {
                return Err(Error::failed_precondition(format!("{} was moved while it was removed", done.path)));
            }
            if done.stays {
                parent.stays = true;
            } else if let Some((_, name)) = done.path.split() {
                unlinkat(&dir, name, AtFlags::REMOVEDIR).map_err(attempt)?;
                self.forget_directory(&done.path);
            }
        }
    }

    fn open_level(&mut self, parent: impl AsFd, name: &[u8], path: LayerPath, stays: bool) -> Result<(OwnedFd, Level)> {
        let attempt = |e| os_error(e, format!("remove {path}"));
        let dir = dirs::open(parent, name).map_err(attempt)?;
        let stat = fstat(&dir).map_err(attempt)?;
        let names = metadata::names_of(&dir).map_err(attempt)?;
        // It may turn out that it stays.
        self.times.opened(&path, metadata::mtime(&stat));
        Ok((dir, Level { path, inode: stat.st_ino, names, stays }))
    }

    /// Drops what was known of a directory that is gone.
    fn forget_directory(&mut self, path: &LayerPath) {
        self.dirs.forget();
        self.times.forget(path);
        self.opaque.remove(path);
        self.copied.remove(path);
    }
}

/// Returns the type of a file; not every file system tells it with the name.
pub(super) fn known(dir: impl AsFd, name: &[u8], kind: FileType) -> Result<FileType, Errno> {
    if kind != FileType::Unknown {
        return Ok(kind);
    }
    Ok(FileType::from_raw_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode))
}
