//! What is below the layer: the lower directories of an overlay, seen as the one tree that they make.
//!
//! Kernel documentation, `filesystems/overlayfs.rst`: a character device 0/0 hides a name, `overlay.opaque` on a
//! directory hides what the directories below it have. Directories that were renamed within an overlay
//! (`overlay.redirect`) are seen under their new name without what they had below: layers never have them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use windlass_core::Result;

use super::dirs;
use super::metadata::{self, names_of};
use super::os_error;
use crate::path::LayerPath;

/// The lower directories, topmost first.
#[derive(Debug)]
pub(super) struct Lower {
    roots: Vec<OwnedFd>,
    opaque: &'static str,
}

/// What the lower directories have under a name.
#[derive(Debug)]
pub(super) enum Found {
    /// A directory; the topmost one says its properties.
    Directory(OwnedFd),
    /// Anything else, in this directory.
    Other(OwnedFd, Stat),
}

impl Lower {
    pub(super) fn open(paths: &[PathBuf], opaque: &'static str) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = |path: &PathBuf| {
            openat(CWD, path, flags, Mode::empty())
                .map_err(|e| os_error(e, format!("open lower directory {}", path.display())))
        };
        Ok(Self { roots: paths.iter().map(root).collect::<Result<_>>()?, opaque })
    }

    /// Returns the topmost root.
    pub(super) fn root(&self) -> Option<&OwnedFd> {
        self.roots.first()
    }

    /// Looks a path up; none of its components may be a symbolic link.
    pub(super) fn find(&self, path: &LayerPath) -> Result<Option<Found>> {
        let attempt = |e| os_error(e, format!("look {path} up in the layers below"));
        let mut stack: Vec<OwnedFd> = Vec::new();
        let depths = path.components().count();
        for (depth, name) in path.components().enumerate() {
            // A name that is not a directory hides everything under it.
            let last = depth + 1 == depths;
            let parents: Vec<_> = match depth {
                0 => self.roots.iter().map(AsFd::as_fd).collect(),
                _ => stack.iter().map(AsFd::as_fd).collect(),
            };
            let mut next = Vec::new();
            let mut other = None;
            for parent in parents {
                let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(attempt(e)),
                };
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    if next.is_empty() && !metadata::is_whiteout(&stat) {
                        other = Some((parent.try_clone_to_owned().map_err(|e| attempt(errno(&e)))?, stat));
                    }
                    break;
                }
                let dir = dirs::open(parent, name).map_err(attempt)?;
                let opaque = metadata::is_opaque(&dir, self.opaque).map_err(attempt)?;
                next.push(dir);
                if opaque {
                    break;
                }
            }
            match (other, next.is_empty()) {
                (Some((parent, stat)), _) if last => return Ok(Some(Found::Other(parent, stat))),
                (Some(_), _) | (None, true) => return Ok(None),
                (None, false) => stack = next,
            }
        }
        Ok(stack.into_iter().next().map(Found::Directory))
    }

    /// Returns the names in the root.
    pub(super) fn root_names(&self) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        for root in &self.roots {
            let found = names_of(root).map_err(|e| os_error(e, "list a lower directory".to_owned()))?;
            names.extend(found.into_iter().map(|(name, _)| name));
        }
        Ok(names)
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
