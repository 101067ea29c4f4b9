//! Removing what is in the way: files, and trees without following anything out of them.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Stat, statat, unlinkat};
use rustix::io::Errno;
use windlass_core::Result;

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

impl Extractor {
    /// Removes what is there to make room for an entry.
    pub(super) fn displace(&mut self, parent: &Dir, name: &[u8], path: &LayerPath, stat: &Stat) -> Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                self.remove_tree(parent.as_fd(), parent.inode, name, path, Keep::Nothing)?;
            }
            kind => {
                if kind == FileType::Symlink {
                    self.dirs.forget();
                }
                unlinkat(parent, name, AtFlags::empty()).map_err(|e| os_error(e, format!("remove {path}")))?;
            }
        }
        Ok(())
    }

    /// Removes a directory and what is in it, as far as it is not to be kept; returns whether it is gone.
    pub(super) fn remove_tree(
        &mut self,
        parent: impl AsFd,
        parent_inode: u64,
        name: &[u8],
        path: &LayerPath,
        keep: Keep,
    ) -> Result<bool> {
        let parent = parent.as_fd();
        let attempt = |e| os_error(e, format!("remove {path}"));
        let fd = dirs::open(parent, name).map_err(attempt)?;
        let inode = rustix::fs::fstat(&fd).map_err(attempt)?.st_ino;
        let mut empty = true;
        for (child, kind) in metadata::names_of(&fd).map_err(attempt)? {
            empty &= self.remove_child(&fd, inode, &child, kind, &path.join(&child), keep)?;
        }
        drop(fd);
        if !empty || keep == Keep::Ours && self.is_ours(parent_inode, name, path) {
            return Ok(false);
        }
        unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(attempt)?;
        self.forget_directory(path);
        Ok(true)
    }

    /// Removes something in a directory, as far as it is not to be kept; returns whether it is gone.
    pub(super) fn remove_child(
        &mut self,
        dir: impl AsFd,
        inode: u64,
        name: &[u8],
        kind: FileType,
        path: &LayerPath,
        keep: Keep,
    ) -> Result<bool> {
        let dir = dir.as_fd();
        let attempt = |e| os_error(e, format!("remove {path}"));
        let kind = match kind {
            // Not every file system tells with the name.
            FileType::Unknown => match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => return Ok(true),
                Err(e) => return Err(attempt(e)),
            },
            kind => kind,
        };
        if kind == FileType::Directory {
            return self.remove_tree(dir, inode, name, path, keep);
        }
        if keep == Keep::Ours && self.is_ours(inode, name, path) {
            return Ok(false);
        }
        if kind == FileType::Symlink {
            self.dirs.forget();
        }
        unlinkat(dir, name, AtFlags::empty()).map_err(attempt)?;
        self.copied.remove(path);
        Ok(true)
    }

    /// Drops what was known of a directory that is gone.
    fn forget_directory(&mut self, path: &LayerPath) {
        self.dirs.forget();
        self.times.remove(path);
        self.opaque.remove(path);
        self.implied.remove(path);
        self.copied.remove(path);
    }
}
