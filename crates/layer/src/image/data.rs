//! The bytes of files on their way into one file: put together, and written in large pieces.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use windlass_core::Result;
use windlass_core::error::IoResultExt as _;

use crate::ahead;

/// How much is written at once.
const PIECE: usize = 1 << 20;

/// The longest gap that is filled with zeros instead of being left out: that between a file's end and the next block.
const GAP: u64 = 4096;

/// How much is written before the disk begins with it.
const AHEAD: u64 = 8 << 20;

pub(super) struct Data {
    file: File,
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where the bytes belong.
    start: u64,
    /// Up to where the disk has begun.
    begun: u64,
}

impl Data {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, bytes: Vec::with_capacity(PIECE), start: 0, begun: 0 }
    }

    /// Takes bytes that belong at `at`.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let end = self.start + self.bytes.len() as u64;
        match at.checked_sub(end) {
            Some(gap) if gap < GAP && !self.bytes.is_empty() => {
                self.bytes.resize(self.bytes.len() + usize::try_from(gap).unwrap_or_default(), 0);
            }
            _ => {
                self.flush()?;
                self.start = at;
            }
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE.saturating_sub(self.bytes.len())));
            self.bytes.extend_from_slice(now);
            rest = later;
            if self.bytes.len() >= PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is left, and makes the file as long as that.
    pub(super) fn finish(&mut self, length: u64) -> Result<()> {
        self.flush()?;
        self.file.set_len(length).attempt(|| format!("extend {}", self.path.display()))
    }

    /// Lets the disk begin, so that little is left for the sync before the snapshot's commit.
    fn ahead(&mut self) {
        let new = self.start.saturating_sub(self.begun);
        if new >= AHEAD {
            ahead::start(&self.file, self.begun, new);
            self.begun = self.start;
        }
    }

    fn flush(&mut self) -> Result<()> {
        if !self.bytes.is_empty() {
            let written = self.file.write_all_at(&self.bytes, self.start);
            written.attempt(|| format!("write {}", self.path.display()))?;
            self.start += self.bytes.len() as u64;
            self.bytes.clear();
            self.ahead();
        }
        Ok(())
    }
}
