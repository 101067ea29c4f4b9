//! A tree as a stack of directories, merged as overlayfs merges them.
//!
//! Kernel documentation, `filesystems/overlayfs.rst`: a character device 0/0 hides a name, `overlay.opaque` on a directory
//! hides what the directories below it have. Everything is opened by its path below the root of its layer, without
//! following a link: whoever writes to an active snapshot meanwhile cannot lead out of it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, statat};
use rustix::io::Errno;
use windlass_core::Result;

use super::entry::{Redirect, xattr_names};
use crate::extract::{is_whiteout, names_of, os_error, xattr};
use crate::path::shown;
use crate::target::Style;

/// One directory of a stack.
#[derive(Debug)]
pub(super) struct Layer {
    /// The same for what is the same.
    pub(super) number: usize,
    pub(super) root: OwnedFd,
    pub(super) style: Style,
}

/// What a tree is made of, topmost first.
#[derive(Debug, Clone, Default)]
pub(super) struct Stack(pub(super) Vec<Arc<Layer>>);

/// The two trees.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) lower: Stack,
    pub(super) upper: Stack,
}

/// What a tree has under a name.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The layers that have it, topmost first: one, but for directories.
    pub(super) layers: Stack,
    pub(super) stat: Stat,
}

impl Node {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Returns which file it is.
    pub(super) fn file(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// Opens it to be looked at, whatever it is.
    pub(super) fn handle(&self, path: &[u8]) -> Result<OwnedFd> {
        let attempt = |e| os_error(e, format!("open {}", shown(path)));
        let layer = self.layers.0.first().ok_or(Errno::NOENT).map_err(attempt)?;
        below(layer, path, OFlags::PATH).map_err(attempt)
    }
}

/// A directory of a tree, open in every layer that has it and shows there.
pub(super) struct Open {
    layers: Vec<(Arc<Layer>, OwnedFd)>,
}

fn below(layer: &Layer, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b"." } else { path };
    openat2(&layer.root, path, flags, Mode::empty(), resolve)
}

impl Stack {
    /// Returns the root of the tree; nothing without layers.
    pub(super) fn root(&self) -> Result<Option<Node>> {
        let Some(top) = self.0.first() else { return Ok(None) };
        let stat = fstat(&top.root).map_err(|e| os_error(e, "look at the root".to_owned()))?;
        Ok(Some(Node { layers: self.clone(), stat }))
    }

    /// Opens a directory that all of these layers have.
    pub(super) fn open(&self, path: &[u8]) -> Result<Result<Open, Redirect>> {
        let attempt = |e| os_error(e, format!("open {}", shown(path)));
        let mut layers = Vec::with_capacity(self.0.len());
        for (depth, layer) in self.0.iter().enumerate() {
            let fd = below(layer, path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(attempt)?;
            let names = xattr_names(fd.as_fd()).map_err(attempt)?;
            if Redirect::is_among(&names, layer.style) {
                return Ok(Err(Redirect));
            }
            let opaque = layer.style.opaque().filter(|name| names.iter().any(|it| it == name.as_bytes()));
            let value = match opaque {
                Some(name) => xattr(fd.as_fd(), name.as_bytes()).map_err(attempt)?,
                None => None,
            };
            layers.push((Arc::clone(layer), fd));
            match value.as_deref() {
                Some(b"y") => break,
                // Deletions are written down in yet another way here.
                Some(b"x") if depth + 1 < self.0.len() => return Ok(Err(Redirect)),
                _ => {}
            }
        }
        Ok(Ok(Open { layers }))
    }
}

impl Open {
    /// Returns how many layers at the end are the same in both.
    pub(super) fn shared(&self, other: &Self) -> usize {
        let pairs = self.layers.iter().rev().zip(other.layers.iter().rev());
        pairs.take_while(|((one, _), (two, _))| one.number == two.number).count()
    }

    /// Returns the names that all but so many layers at the end have, those of whiteouts among them.
    pub(super) fn names(&self, but_last: usize, path: &[u8], names: &mut BTreeSet<Vec<u8>>) -> Result<()> {
        for (_, fd) in self.layers.iter().take(self.layers.len().saturating_sub(but_last)) {
            let found = names_of(fd).map_err(|e| os_error(e, format!("list {}", shown(path))))?;
            names.extend(found.into_iter().map(|(name, _)| name));
        }
        Ok(())
    }

    /// Looks a name up.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Node>> {
        let mut found: Option<Node> = None;
        for (layer, fd) in &self.layers {
            let stat = match statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(os_error(e, format!("look at {}", shown(name)))),
            };
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            match &mut found {
                // What is no directory hides what is below, and is hidden by a directory.
                Some(node) if directory => node.layers.0.push(Arc::clone(layer)),
                Some(_) => break,
                None if is_whiteout(&stat) => break,
                None => found = Some(Node { layers: Stack(vec![Arc::clone(layer)]), stat }),
            }
            if !directory {
                break;
            }
        }
        Ok(found)
    }
}
