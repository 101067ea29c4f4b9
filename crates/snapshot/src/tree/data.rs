//! The bytes of a file, copied: cloned where the filesystem can, with the holes kept where it cannot.

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, Stat};
use rustix::io::{Errno, Result};

/// The most that is copied by one call, in bytes.
const PIECE: u64 = 1 << 30;

/// How the next file is best copied, by what the last ones showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means {
    clone: bool,
    in_kernel: bool,
}

impl Default for Means {
    fn default() -> Self {
        Self { clone: true, in_kernel: true }
    }
}

/// Copies the bytes of a file to another, which is empty.
pub(super) fn copy(from: BorrowedFd<'_>, stat: &Stat, to: BorrowedFd<'_>, means: &mut Means) -> Result<()> {
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    if size == 0 {
        return Ok(());
    }
    if means.clone {
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                means.clone = false;
            }
            Err(error) => return Err(error),
        }
    }
    let sparse = u64::try_from(stat.st_blocks).unwrap_or_default() * 512 < size;
    let end = if sparse { copy_data(from, size, to, means)? } else { copy_range(from, 0, size, to, means)? };
    if end < size { rustix::fs::ftruncate(to, size) } else { Ok(()) }
}

/// Copies the parts that are no holes, and returns where the last one ends.
fn copy_data(from: BorrowedFd<'_>, size: u64, to: BorrowedFd<'_>, means: &mut Means) -> Result<u64> {
    let mut end = 0;
    while end < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return copy_range(from, end, size, to, means),
            start => start?,
        };
        let hole = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        if copy_range(from, start, hole.min(size), to, means)? < hole.min(size) {
            break;
        }
        end = hole;
    }
    Ok(end.min(size))
}

/// Copies a range, and returns where it ended: earlier than asked when the file has become shorter.
fn copy_range(from: BorrowedFd<'_>, start: u64, end: u64, to: BorrowedFd<'_>, means: &mut Means) -> Result<u64> {
    let mut position = start;
    while means.in_kernel && position < end {
        let (mut read, mut written) = (position, position);
        let length = usize::try_from((end - position).min(PIECE)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), length) {
            Ok(0) => return Ok(position),
            Ok(copied) => position += copied as u64,
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => means.in_kernel = false,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    let mut buffer = if position < end { vec![0; 256 << 10] } else { Vec::new() };
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let read = rustix::io::retry_on_intr(|| {
            rustix::io::pread(from, buffer.get_mut(..wanted).unwrap_or_default(), position)
        })?;
        if read == 0 {
            break;
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(to, rest, position))?;
            rest = rest.get(written..).unwrap_or_default();
            position += written as u64;
        }
    }
    Ok(position)
}
