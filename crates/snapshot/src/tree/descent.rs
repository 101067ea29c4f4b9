//! A path of open directories, entered and left one level at a time.
//!
//! However deep it goes, few descriptors are open: a level far above is closed, and found again through `..` on the way
//! back, where it must turn out to be the same directory.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use windlass_core::error::{Error, IoResultExt as _, Result};

/// How many levels above the current one stay open.
const OPEN_LEVELS: usize = 32;

/// How many levels a message shows from either end.
const SHOWN_LEVELS: usize = 16;

/// The directories from the root of a tree to the current one.
pub(crate) struct Descent {
    root: PathBuf,
    above: Vec<Level>,
    /// The name of the current directory, `None` for the root.
    name: Option<CString>,
    current: OwnedFd,
}

struct Level {
    name: Option<CString>,
    directory: Option<OwnedFd>,
    identity: (u64, u64),
}

/// Whether a directory that is the current one again had been closed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handle {
    Kept,
    Reopened,
}

impl Descent {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let current = directory(CWD, root).attempt(|| format!("open {}", root.display()))?;
        Ok(Self { root: root.to_owned(), above: Vec::new(), name: None, current })
    }

    /// Returns the current directory.
    pub(crate) fn current(&self) -> BorrowedFd<'_> {
        self.current.as_fd()
    }

    /// Makes a directory in the current one the current one.
    pub(crate) fn enter(&mut self, name: &CStr) -> Result<()> {
        let attempt = |this: &Self| format!("open {}", this.path(Some(name)).display());
        let child = directory(self.current(), name).attempt(|| attempt(self))?;
        let identity = identity(self.current()).attempt(|| attempt(self))?;
        let parent = std::mem::replace(&mut self.current, child);
        let parent_name = self.name.replace(name.to_owned());
        self.above.push(Level { name: parent_name, directory: Some(parent), identity });
        if let Some(far) = self.above.len().checked_sub(OPEN_LEVELS + 1).and_then(|index| self.above.get_mut(index)) {
            far.directory = None;
        }
        Ok(())
    }

    /// Makes the directory above the current one again, and returns the name of the one that was left; `None` at the
    /// root, which is not left.
    ///
    /// # Errors
    /// `Aborted` when somebody moved the directory meanwhile.
    pub(crate) fn leave(&mut self) -> Result<Option<(CString, Handle)>> {
        let Some(level) = self.above.pop() else { return Ok(None) };
        let (parent, handle) = match level.directory {
            Some(parent) => (parent, Handle::Kept),
            None => (self.reopen_above(level.identity)?, Handle::Reopened),
        };
        self.current = parent;
        Ok(std::mem::replace(&mut self.name, level.name).map(|name| (name, handle)))
    }

    fn reopen_above(&self, expected: (u64, u64)) -> Result<OwnedFd> {
        let attempt = || format!("go back up from {}", self.path(None).display());
        let parent = directory(self.current(), c"..").attempt(attempt)?;
        if identity(parent.as_fd()).attempt(attempt)? != expected {
            return Err(Error::aborted(format!("{} was moved meanwhile", self.path(None).display())));
        }
        Ok(parent)
    }

    /// Returns the path of the current directory, or of an entry in it, for a message; the middle of a deep one is left out.
    pub(crate) fn path(&self, name: Option<&CStr>) -> PathBuf {
        let levels = self.above.iter().map(|level| &level.name).chain([&self.name]);
        let names: Vec<&CStr> = levels.filter_map(|name| name.as_deref()).chain(name).collect();
        let hidden = names.len().saturating_sub(2 * SHOWN_LEVELS);
        let mut path = self.root.clone();
        for (depth, name) in names.into_iter().enumerate() {
            if hidden > 0 && depth == SHOWN_LEVELS {
                path.push("…");
            }
            if depth < SHOWN_LEVELS || depth >= SHOWN_LEVELS + hidden {
                path.push(OsStr::from_bytes(name.to_bytes()));
            }
        }
        path
    }
}

fn directory(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg + Copy) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Reading leaves no access times behind that would have to be written; that needs the owner's rights.
    match rustix::fs::openat(&at, path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&at, path, flags, Mode::empty()),
        opened => opened,
    }
}

fn identity(directory: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}
