//! Writing back early: what an ingest appends is on its way to the disk long before the commit waits for it.

use crate::disk::File;

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

    /// Notes that the file now ends at `end`, and starts to write back when enough has gathered.
    pub(super) fn appended(&mut self, file: &File, end: u64) {
        let length = end.saturating_sub(self.started);
        if length < BATCH {
            return;
        }
        file.start_writeback(self.started, length);
        self.started = end;
    }
}
