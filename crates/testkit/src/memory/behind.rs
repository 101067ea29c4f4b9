//! Reading behind the writer of an ingest in memory, and writing it at several places.

#![expect(clippy::indexing_slicing, reason = "ranges are cut to what is there before")]

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use windlass_core::content::{IngestRef, Ranges, ReaderAt, SparseWriter};
use windlass_core::{Error, Result};

use super::content::{Content, absent_ingest};
use super::space::Ingest;

/// What readers behind a writer and its other hands know of it.
#[derive(Default)]
pub(super) struct Follow {
    phase: Mutex<Phase>,
    changed: Notify,
}

#[derive(Clone, Default)]
enum Phase {
    #[default]
    Writing,
    Whole(Bytes),
    Gone,
}

impl Follow {
    /// Tells that there is more to read.
    pub(super) fn more(&self) {
        self.changed.notify_waiters();
    }

    /// Tells that nothing will come any more: all of it is here, or the writer is gone. The first one to tell is believed.
    pub(super) fn end(&self, whole: Option<Bytes>) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*phase, Phase::Writing) {
            *phase = whole.map_or(Phase::Gone, Phase::Whole);
        }
        self.changed.notify_waiters();
    }

    fn phase(&self) -> Phase {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ingest {
    /// Puts bytes where they are missing.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        for Range { start, end } in self.here.missing(offset..end) {
            let part = &bytes[size(start - offset)..size(end - offset)];
            self.bytes.resize(self.bytes.len().max(size(end)), 0);
            self.bytes[size(start)..size(end)].copy_from_slice(part);
        }
        self.here.insert(offset..end);
        self.status.offset = self.here.prefix();
        self.status.updated_at = SystemTime::now();
        self.follow.more();
    }

    /// Gives up everything behind the first `size` bytes.
    pub(super) fn cut(&mut self, length: u64) {
        self.bytes.truncate(size(length));
        self.here = Ranges::default();
        self.here.insert(0..length);
        self.status.offset = length;
        self.status.updated_at = SystemTime::now();
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn gone(ingest: &IngestRef) -> Error {
    Error::aborted(format!("the writer of ingest {ingest} is gone"))
}

/// A reader behind a writer.
pub(super) struct Tail {
    pub(super) content: Content,
    pub(super) ingest: IngestRef,
    pub(super) follow: Arc<Follow>,
    pub(super) size: u64,
}

impl Tail {
    /// Reads what is there; nothing when that is nothing yet.
    fn look(&self, offset: u64, length: usize) -> Result<Bytes> {
        let cut = |bytes: &[u8], edge: u64| -> Range<usize> {
            let edge = size(edge).min(bytes.len());
            let start = size(offset).min(edge);
            start..start.saturating_add(length).min(edge)
        };
        match self.follow.phase() {
            Phase::Gone => Err(gone(&self.ingest)),
            Phase::Whole(bytes) => Ok(bytes.slice(cut(&bytes, self.size))),
            Phase::Writing => {
                let space = self.content.0.lock();
                let Some(there) = space.ingests.get(&self.ingest) else { return Ok(Bytes::new()) };
                Ok(Bytes::copy_from_slice(&there.bytes[cut(&there.bytes, there.status.offset)]))
            }
        }
    }
}

#[async_trait]
impl ReaderAt for Tail {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        loop {
            let changed = self.follow.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = self.look(offset, length)?;
            if !found.is_empty() || length == 0 || offset >= self.size {
                return Ok(found);
            }
            changed.await;
        }
    }
}

/// The other hands of a writer.
pub(super) struct Sparse {
    pub(super) content: Content,
    pub(super) ingest: IngestRef,
    pub(super) alive: Arc<Follow>,
    pub(super) size: u64,
}

impl Sparse {
    fn check(&self) -> Result<()> {
        match self.alive.phase() {
            Phase::Writing => Ok(()),
            Phase::Whole(_) | Phase::Gone => Err(gone(&self.ingest)),
        }
    }
}

#[async_trait]
impl SparseWriter for Sparse {
    async fn gaps(&self) -> Result<Vec<Range<u64>>> {
        let space = self.content.0.lock();
        self.check()?;
        let there = space.ingests.get(&self.ingest).ok_or_else(|| absent_ingest(&self.ingest))?;
        Ok(there.here.missing(0..self.size))
    }

    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<()> {
        let mut space = self.content.0.lock();
        self.check()?;
        let there = space.ingests.get_mut(&self.ingest).ok_or_else(|| absent_ingest(&self.ingest))?;
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            let (length, size) = (bytes.len(), self.size);
            return Err(Error::out_of_range(format!(
                "{length} bytes at {offset} of ingest {}: it has {size}",
                self.ingest
            )));
        }
        there.put(offset, &bytes);
        Ok(())
    }
}
