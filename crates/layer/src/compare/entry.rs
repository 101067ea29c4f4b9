//! What there is to know of one entry, and whether two are the same.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, getxattr, listxattr, major, minor, open, readlinkat};
use rustix::io::Errno;
use windlass_core::{Error, Result};

use super::stack::Node;
use crate::extract::{is_overlays_own, mtime, os_error};
use crate::path::shown;
use crate::tar::{Device, Entry, Kind};
use crate::target::Style;

/// The longest value of an extended attribute and the longest list of names that Linux has: `XATTR_SIZE_MAX`.
const XATTR_MAX: usize = 64 << 10;

/// An overlay was found whose directories say that something lies elsewhere: only the kernel can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Redirect;

impl Redirect {
    /// Tells whether the attributes of something say so.
    pub(super) fn is_among(names: &[Vec<u8>], style: Style) -> bool {
        let prefix: &[u8] = match style {
            Style::Remove => return false,
            Style::Overlay => b"trusted.overlay.",
            Style::UserOverlay => b"user.overlay.",
        };
        let elsewhere =
            |name: &Vec<u8>| matches!(name.strip_prefix(prefix), Some(b"redirect" | b"metacopy" | b"whiteout"));
        names.iter().any(elsewhere)
    }
}

/// An entry that is open to be looked at.
pub(super) struct Looked<'a> {
    node: &'a Node,
    path: &'a [u8],
    handle: OwnedFd,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) redirect: Option<Redirect>,
}

impl<'a> Looked<'a> {
    /// Opens an entry.
    pub(super) fn at(node: &'a Node, path: &'a [u8]) -> Result<Self> {
        let attempt = |e| os_error(e, format!("read the attributes of {}", shown(path)));
        let handle = node.handle(path)?;
        let now = fstat(&handle).map_err(attempt)?;
        if (now.st_dev, now.st_ino, now.st_mode) != (node.stat.st_dev, node.stat.st_ino, node.stat.st_mode) {
            return Err(changed(path));
        }
        let names = xattr_names(handle.as_fd()).map_err(attempt)?;
        let style = node.layers.0.first().map_or(Style::Overlay, |layer| layer.style);
        let redirect = Redirect::is_among(&names, style).then_some(Redirect);
        let mut xattrs = BTreeMap::new();
        for name in names.into_iter().filter(|name| belongs(name)) {
            if let Some(value) = value(handle.as_fd(), &name).map_err(attempt)? {
                xattrs.insert(name, value);
            }
        }
        Ok(Self { node, path, handle, xattrs, redirect })
    }

    /// Describes it as a tar has it. A socket is nothing that a tar can have.
    pub(super) fn entry(&self) -> Result<Option<Entry>> {
        let stat = &self.node.stat;
        let device = Device { major: major(stat.st_rdev), minor: minor(stat.st_rdev) };
        let kind = match self.node.kind() {
            FileType::RegularFile => Kind::Regular { size: u64::try_from(stat.st_size).unwrap_or(0), sparse: false },
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink { target: self.target()? },
            FileType::CharacterDevice => Kind::Character(device),
            FileType::BlockDevice => Kind::Block(device),
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(None),
        };
        let path = if self.path.is_empty() { b"./".to_vec() } else { self.path.to_vec() };
        let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
        Ok(Some(Entry { path, kind, mode, uid, gid, mtime: mtime(stat), xattrs: self.xattrs.clone() }))
    }

    fn target(&self) -> Result<Vec<u8>> {
        let target = readlinkat(&self.handle, "", Vec::new());
        target.map(Into::into).map_err(|e| os_error(e, format!("read the link {}", shown(self.path))))
    }

    /// Opens a regular file. It is one: no fifo that waits, no device.
    pub(super) fn file(&self) -> Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        open(by_handle(self.handle.as_fd()), flags, Mode::empty())
            .map(Into::into)
            .map_err(|e| os_error(e, format!("open {}", shown(self.path))))
    }

    /// Tells whether two entries are the same but for their names: metadata, and where that does not tell, content.
    pub(super) fn is_same(&self, other: &Self) -> Result<bool> {
        let (one, two) = (&self.node.stat, &other.node.stat);
        let size = |node: &Node| if node.kind() == FileType::RegularFile { node.stat.st_size } else { 0 };
        let same = (one.st_mode, one.st_uid, one.st_gid, one.st_rdev)
            == (two.st_mode, two.st_uid, two.st_gid, two.st_rdev)
            && mtime(one) == mtime(two)
            && size(self.node) == size(other.node)
            && self.xattrs == other.xattrs;
        if !same {
            return Ok(false);
        }
        match self.node.kind() {
            FileType::Symlink => Ok(self.target()? == other.target()?),
            // Two writes do not have the same nanosecond; a time without any may come from an archive, and say nothing.
            FileType::RegularFile if mtime(one).nanoseconds == 0 && one.st_size > 0 => {
                same_content(self.file()?, other.file()?)
                    .map_err(|error| Error::io(format!("read {}", shown(self.path)), error))
            }
            _ => Ok(true),
        }
    }
}

/// Says that something is not what it was.
pub(super) fn changed(path: &[u8]) -> Error {
    Error::aborted(format!("{} changed while it was read", shown(path)))
        .hint("stop whatever writes to the snapshot, then compare again")
}

/// Tells whether an attribute is the file's, and not of the place where it lies.
fn belongs(name: &[u8]) -> bool {
    !is_overlays_own(name) && !matches!(name, b"security.selinux" | b"system.nfs4_acl")
}

fn same_content(mut one: impl std::io::Read, mut two: impl std::io::Read) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = one.read(&mut left)?;
        let mut filled = 0;
        while filled < length {
            match two.read(right.get_mut(filled..length).unwrap_or_default())? {
                0 => return Ok(false),
                more => filled += more,
            }
        }
        if left.get(..length) != right.get(..length) {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

/// What is open only to be looked at has attributes under this name alone.
fn by_handle(handle: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

pub(super) fn xattr_names(handle: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let names = grown(|buffer| listxattr(by_handle(handle), buffer))?.unwrap_or_default();
    Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn value(handle: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    grown(|buffer| getxattr(by_handle(handle), name, buffer))
}

/// Calls with a buffer that is as large as need be; nothing for what is not there.
fn grown(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Option<Vec<u8>>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if buffer.len() < XATTR_MAX => buffer.resize(XATTR_MAX, 0),
            Err(e) => return Err(e),
        }
    }
}
