//! Writing back early: what an ingest appends is on its way to the disk long before the commit waits for it.
#![expect(unsafe_code, reason = "sync_file_range(2) has no safe wrapper")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// How many bytes are handed to the disk at once.
const BATCH: u64 = 8 << 20;

/// How far the data of a file was handed to the disk.
#[derive(Debug, Default)]
pub(super) struct Writeback {
    started: u64,
}

impl Writeback {
    /// Begins at an offset: what is before it is somebody else's business.
    pub(super) fn from(offset: u64) -> Self {
        Self { started: offset }
    }

    /// Notes that the file now ends at `end`, and starts to write back when enough has gathered. This only hurries what
    /// the sync at the commit makes sure of, so a failure is none.
    pub(super) fn appended(&mut self, file: &File, end: u64) {
        let length = end.saturating_sub(self.started);
        if length < BATCH {
            return;
        }
        if let (Ok(offset), Ok(length)) = (i64::try_from(self.started), i64::try_from(length)) {
            // SAFETY: the call takes numbers only, and the descriptor is open for as long as the file is borrowed.
            unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
        }
        self.started = end;
    }
}
