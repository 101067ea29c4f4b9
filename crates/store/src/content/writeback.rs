//! Writing back early: what an ingest gets is on its way to the disk long before the commit waits for it.

use std::ops::Range;

use windlass_core::content::Ranges;

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

/// Returns which whole batches of a file are complete with the range that was just written, in a file that is written at
/// several places. Each batch is complete once.
pub(super) fn completed(here: &Ranges, written: &Range<u64>) -> Range<u64> {
    let Some(around) = here.around(written.start) else { return 0..0 };
    let start = around.start.next_multiple_of(BATCH).max(written.start / BATCH * BATCH);
    let end = (around.end / BATCH * BATCH).min(written.end.next_multiple_of(BATCH));
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_of_a_file_written_anywhere_is_complete_once() {
        const SIZE: u64 = 5 * BATCH + 17;
        const STEP: u64 = BATCH / 3 - 5;
        let mut here = Ranges::default();
        let mut started = Ranges::default();
        let steps: Vec<u64> = (0..SIZE.div_ceil(STEP)).collect();
        // Every seventh, round and round.
        for step in (0..7).flat_map(|first| steps.iter().skip(first).step_by(7)) {
            let written = step * STEP..((step + 1) * STEP).min(SIZE);
            here.insert(written.clone());
            let batch = completed(&here, &written);
            assert!(!started.overlaps(&batch), "{batch:?} is started twice");
            assert!(here.missing(batch.clone()).is_empty(), "{batch:?} is not complete");
            started.insert(batch);
        }
        assert_eq!(started.iter().collect::<Vec<_>>().as_slice(), std::slice::from_ref(&(0..5 * BATCH)));
    }
}
