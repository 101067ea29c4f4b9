//! Copying a tree with everything that a file has: owner, mode, extended attributes, times to the nanosecond, hard links,
//! holes, devices.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use windlass_core::error::{Error, IoResultExt as _, Result};

use super::descent::Descent;
use super::walk::{Step, Walk};
use super::{attributes, data, make, remove};

/// Copies the directory `from` and everything in it to `to`, which does not exist. What is mounted on top of the tree is
/// copied as the empty directory that it is mounted on.
///
/// # Errors
/// Those of the filesystem, naming the entry. What was copied until then stays.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    make(to, 0o700)?;
    let mut copy =
        Copy { from: Walk::open(from)?, to: Descent::open(to)?, links: Links::new(to)?, means: data::Means::default() };
    let top = copy.from.stat(c".")?;
    let mut directories = vec![top];
    loop {
        match copy.from.next()? {
            Step::Entry { name, kind } => {
                let stat = copy.from.stat(&name)?;
                let mounted_on = stat.st_dev != top.st_dev;
                if kind != FileType::Directory {
                    copy.entry(&name, &stat)?;
                    continue;
                }
                copy.make_directory(&name)?;
                if mounted_on {
                    continue;
                }
                copy.from.enter(&name)?;
                copy.to.enter(&name)?;
                directories.push(stat);
            }
            Step::End => {
                // Last, because every entry that was made changed the times.
                if let Some(stat) = directories.pop() {
                    attributes::to_open(copy.from.current(), &stat, copy.to.current(), |_| true)
                        .attempt(|| format!("copy the properties of {}", copy.from.path(None).display()))?;
                }
                if copy.from.leave()?.is_none() {
                    return copy.links.close();
                }
                copy.to.leave()?;
            }
        }
    }
}

struct Copy {
    from: Walk,
    to: Descent,
    links: Links,
    means: data::Means,
}

impl Copy {
    fn make_directory(&self, name: &CStr) -> Result<()> {
        rustix::fs::mkdirat(self.to.current(), name, Mode::RWXU).attempt(|| self.attempt("create", name))
    }

    fn entry(&mut self, name: &CStr, stat: &Stat) -> Result<()> {
        let several = stat.st_nlink > 1;
        if several && self.links.link(stat, &self.to, name).attempt(|| self.attempt("link", name))? {
            return Ok(());
        }
        let attempt = |this: &Self| this.attempt("copy to", name);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(name, stat).attempt(|| attempt(self))?,
            FileType::Symlink => self.symlink(name, stat).attempt(|| attempt(self))?,
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {
                self.node(name, stat).attempt(|| attempt(self))?;
            }
            _ => {
                return Err(Error::unimplemented(format!(
                    "{} is of a type that cannot be copied",
                    self.from.path(Some(name)).display()
                )));
            }
        }
        if several { self.links.remember(stat, &self.to, name).attempt(|| self.attempt("link", name)) } else { Ok(()) }
    }

    fn file(&mut self, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        let from = self.open_source(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(self.to.current(), name, flags, Mode::RUSR | Mode::WUSR)?;
        data::copy(from.as_fd(), stat, to.as_fd(), &mut self.means)?;
        attributes::to_open(from.as_fd(), stat, to.as_fd(), |_| true)
    }

    fn open_source(&self, name: &CStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.from.current(), name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => rustix::fs::openat(self.from.current(), name, flags, Mode::empty()),
            opened => opened,
        }
    }

    fn symlink(&self, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        let target = rustix::fs::readlinkat(self.from.current(), name, Vec::new())?;
        rustix::fs::symlinkat(&target, self.to.current(), name)?;
        attributes::to_entry(self.from.current(), stat, self.to.current(), name)
    }

    fn node(&self, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        rustix::fs::mknodat(self.to.current(), name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
        attributes::to_entry(self.from.current(), stat, self.to.current(), name)
    }

    fn attempt(&self, what: &str, name: &CStr) -> String {
        format!("{what} {}", self.to.path(Some(name)).display())
    }
}

/// The files with several names, each linked under a number into a directory beside the copy: the first copy may lie
/// deeper than a path can say when the second name turns up.
struct Links {
    path: PathBuf,
    directory: Option<OwnedFd>,
    /// By device and inode of the original.
    numbers: HashMap<(u64, u64), u64>,
}

impl Links {
    fn new(copy: &Path) -> Result<Self> {
        let mut path = copy.as_os_str().to_owned();
        path.push(".links");
        let path = PathBuf::from(path);
        make(&path, 0o700)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty()).attempt(|| format!("open {}", path.display()))?;
        Ok(Self { path, directory: Some(directory), numbers: HashMap::new() })
    }

    /// Links a file that was copied before under another of its names, and says whether it was.
    fn link(&self, stat: &Stat, to: &Descent, name: &CStr) -> Result<bool, Errno> {
        let (Some(number), Some(directory)) = (self.numbers.get(&key(stat)), &self.directory) else { return Ok(false) };
        rustix::fs::linkat(directory, number_name(*number), to.current(), name, AtFlags::empty())?;
        Ok(true)
    }

    fn remember(&mut self, stat: &Stat, to: &Descent, name: &CStr) -> Result<(), Errno> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let number = self.numbers.len() as u64;
        rustix::fs::linkat(to.current(), name, directory, number_name(number), AtFlags::empty())?;
        self.numbers.insert(key(stat), number);
        Ok(())
    }

    fn close(mut self) -> Result<()> {
        self.directory = None;
        remove(&self.path)
    }
}

fn key(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn number_name(number: u64) -> CString {
    CString::new(number.to_string()).unwrap_or_default()
}
