//! Open directories of the target, kept for the entries to come.
//!
//! A directory is opened once, relative to its parent and without following a link, and everything in it is then done
//! by its handle. That is what keeps entries inside the root, and it is quicker than paths.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::path::LayerPath;

/// How many directories are kept open: deeper than trees are, and few enough for many layers at once.
const OPEN_AT_MOST: usize = 128;

/// An open directory of the target.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(super) fd: OwnedFd,
    /// Where it is, without any symbolic link on the way.
    pub(super) path: LayerPath,
    pub(super) inode: u64,
    /// The group that new files get, when it is the directory's and not the process'.
    pub(super) setgid: Option<u32>,
    /// Nothing of the layers below shows in here.
    pub(super) hidden: bool,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a directory in another one; a symbolic link is not a directory.
pub(super) fn open(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// The directories that are open, by where they are. A path that leads through a symbolic link is not kept: what the link
/// is can change without anything being removed here, when the link is below the layer.
#[derive(Debug)]
pub(super) struct Dirs {
    root: Arc<Dir>,
    open: HashMap<LayerPath, (u64, Arc<Dir>)>,
    clock: u64,
}

impl Dirs {
    pub(super) fn new(root: Dir) -> Self {
        Self { root: Arc::new(root), open: HashMap::new(), clock: 0 }
    }

    pub(super) fn root(&self) -> Arc<Dir> {
        Arc::clone(&self.root)
    }

    /// Returns the directory of that path, if it is open.
    pub(super) fn get(&mut self, path: &LayerPath) -> Option<Arc<Dir>> {
        if path.is_root() {
            return Some(self.root());
        }
        self.clock += 1;
        let (used, dir) = self.open.get_mut(path)?;
        *used = self.clock;
        Some(Arc::clone(dir))
    }

    /// Keeps a directory open, at the cost of those used longest ago.
    pub(super) fn put(&mut self, dir: &Arc<Dir>) {
        if self.open.len() >= OPEN_AT_MOST {
            let mut used: Vec<u64> = self.open.values().map(|(used, _)| *used).collect();
            let (_, median, _) = used.select_nth_unstable(OPEN_AT_MOST / 2);
            let oldest = *median;
            self.open.retain(|_, (used, _)| *used > oldest);
        }
        self.clock += 1;
        self.open.insert(dir.path.clone(), (self.clock, Arc::clone(dir)));
    }

    /// Forgets all of them, because one of them is not what it was.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }
}
