//! Owner, mode, extended attributes and times, copied from one inode to another.
//!
//! The order matters: a change of owner clears setuid bits and file capabilities, an access control list changes the
//! mode, and everything changes the times.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

/// The largest list of names, and the largest value, in bytes. `linux/limits.h`, `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const XATTR_MAX: usize = 64 << 10;

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Copies everything to an open file or directory, of the extended attributes those that are `wanted`.
pub(super) fn to_open(
    from: BorrowedFd<'_>,
    stat: &Stat,
    to: BorrowedFd<'_>,
    wanted: impl Fn(&CStr) -> bool,
) -> Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    for name in names(|buffer| rustix::fs::flistxattr(from, buffer))?.into_iter().filter(|name| wanted(name)) {
        let value = value(|buffer| rustix::fs::fgetxattr(from, &name, buffer))?;
        rustix::fs::fsetxattr(to, &name, &value, XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, mode(stat))?;
    rustix::fs::futimens(to, &times(stat))
}

/// Copies everything to an entry that cannot be opened for this: a symlink, a device, a fifo, a socket.
pub(super) fn to_entry(from: BorrowedFd<'_>, stat: &Stat, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    let (source, target) = (magic_path(from, name), magic_path(to, name));
    for attribute in names(|buffer| rustix::fs::llistxattr(&*source, buffer))? {
        let value = value(|buffer| rustix::fs::lgetxattr(&*source, &attribute, buffer))?;
        rustix::fs::lsetxattr(&*target, &attribute, &value, XattrFlags::empty())?;
    }
    // A symlink has no mode of its own.
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink() {
        rustix::fs::chmodat(to, name, mode(stat), AtFlags::empty())?;
    }
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Names an entry of an open directory for the calls that take only paths.
fn magic_path(directory: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    // Neither part has a NUL inside.
    CString::new(path).unwrap_or_default()
}

/// Lists the names of attributes; a filesystem without any has none.
fn names(list: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<CString>> {
    match value(list) {
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(list) => Ok(list
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok())
            .collect()),
    }
}

/// Reads into a small buffer first, which nearly always suffices.
fn value(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    for size in [256, XATTR_MAX] {
        let mut buffer = vec![0; size];
        match read(&mut buffer) {
            Err(Errno::RANGE) => {}
            read => {
                buffer.truncate(read?);
                return Ok(buffer);
            }
        }
    }
    Err(Errno::RANGE)
}
