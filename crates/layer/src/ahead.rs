//! Telling the kernel to begin writing to the disk.
#![expect(unsafe_code, reason = "sync_file_range(2) has no safe wrapper")]

use std::fs::File;
use std::os::fd::AsRawFd as _;

/// Starts to write a stretch of a file to the disk, and does not wait. A hint: that it failed shows in the sync that
/// everything is committed by.
pub(crate) fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: the call takes numbers only, and the descriptor is open for as long as the file is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}
