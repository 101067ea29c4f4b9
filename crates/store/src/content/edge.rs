//! Reading behind a writer: how far an ingest can be read, and the reader that waits there.
//!
//! What a reader gets never goes through the writer: it comes from the file, which has its bytes in the page cache, or is
//! what was accepted and is not in the file yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use windlass_core::content::{IngestRef, ReaderAt};
use windlass_core::{Error, Result, ResultExt};

use crate::blocking::blocking;
use crate::disk::File;

/// How much is read from the file at once.
const READ: usize = 1 << 20;

/// How far an ingest can be read. Moved on by whoever writes, followed by any number of readers.
pub(super) struct Edge {
    ingest: IngestRef,
    size: u64,
    progress: Mutex<Progress>,
    changed: Notify,
}

struct Progress {
    phase: Phase,
    /// The data on the disk; `None` when it never comes there.
    file: Option<File>,
    /// How many bytes are in the file, from the beginning.
    written: u64,
    /// What was accepted and is not in the file yet, in order and each with its offset.
    accepted: VecDeque<(u64, Bytes)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Writing,
    /// All of it is here and was verified.
    Whole,
    /// There will be no more, and what there was means nothing.
    Gone,
}

impl Edge {
    /// Begins with what is in the file so far, if there is one.
    pub(super) fn new(ingest: IngestRef, size: u64, file: Option<File>, written: u64) -> Arc<Self> {
        let progress = Progress { phase: Phase::Writing, file, written, accepted: VecDeque::new() };
        Arc::new(Self { ingest, size, progress: Mutex::new(progress), changed: Notify::new() })
    }

    /// Notes a part that was accepted and will be written.
    pub(super) fn accepted(&self, offset: u64, part: Bytes) {
        self.progress().accepted.push_back((offset, part));
        self.changed.notify_waiters();
    }

    /// Notes that what was accepted from an offset on is one part now.
    pub(super) fn accepted_again(&self, offset: u64, joined: Bytes) {
        let mut progress = self.progress();
        let before = progress.accepted.partition_point(|(from, _)| *from < offset);
        progress.accepted.truncate(before);
        progress.accepted.push_back((offset, joined));
    }

    /// Notes that the data comes to the disk after all.
    pub(super) fn comes_to_disk(&self, file: File, written: u64) {
        self.progress().file = Some(file);
        self.written(written);
    }

    /// Notes how much is in the file.
    pub(super) fn written(&self, end: u64) {
        let mut progress = self.progress();
        if progress.file.is_none() {
            return;
        }
        progress.written = end;
        while progress.accepted.front().is_some_and(|(offset, part)| offset + part.len() as u64 <= end) {
            progress.accepted.pop_front();
        }
        drop(progress);
        self.changed.notify_waiters();
    }

    fn end(&self, phase: Phase) {
        let mut progress = self.progress();
        if progress.phase != Phase::Writing {
            return;
        }
        progress.phase = phase;
        if phase == Phase::Gone {
            progress.accepted.clear();
        }
        drop(progress);
        self.changed.notify_waiters();
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Every change is whole whatever panicked.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the bytes at an offset are; `None` when they are not here yet.
    fn find(&self, offset: u64, length: usize) -> Result<Option<Place>> {
        let progress = self.progress();
        if progress.phase == Phase::Gone {
            return Err(Error::aborted(format!(
                "the writer of ingest {} is gone, and cannot be followed",
                self.ingest
            )));
        }
        if let Some(file) = progress.file.as_ref().filter(|_| offset < progress.written) {
            let there = usize::try_from(progress.written - offset).unwrap_or(READ);
            return Ok(Some(Place::File(file.clone(), there.min(length).min(READ))));
        }
        // Few are kept, unless they are small and the whole is.
        let at = progress.accepted.partition_point(|(from, part)| from + part.len() as u64 <= offset);
        let part = progress.accepted.get(at).and_then(|(from, part)| {
            let skip = usize::try_from(offset.checked_sub(*from)?).ok().filter(|skip| *skip < part.len())?;
            Some(part.slice(skip..part.len().min(skip.saturating_add(length))))
        });
        Ok(part.map(Place::Memory))
    }
}

/// Where bytes are that can be read.
enum Place {
    /// In the file, so many of them.
    File(File, usize),
    Memory(Bytes),
}

/// The end of the edge that belongs to the writer: readers learn what became of him.
pub(super) struct Followed(Arc<Edge>);

impl Followed {
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self(edge)
    }

    pub(super) fn edge(&self) -> &Arc<Edge> {
        &self.0
    }

    /// Lets readers go on for as long as they like: all of it is here and verified.
    pub(super) fn end_whole(self) {
        self.0.end(Phase::Whole);
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.end(Phase::Gone);
    }
}

/// A reader behind a writer.
pub(super) struct Tail(pub(super) Arc<Edge>);

#[async_trait]
impl ReaderAt for Tail {
    fn size(&self) -> u64 {
        self.0.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let edge = &self.0;
        if offset >= edge.size || length == 0 {
            return Ok(Bytes::new());
        }
        loop {
            let changed = edge.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match edge.find(offset, length)? {
                Some(Place::Memory(part)) => return Ok(part),
                Some(Place::File(file, length)) => {
                    let read = blocking(move || Ok(file.read_new_at(length, offset)?.into()));
                    return read.await.context(|| format!("read ingest {} at {offset}", edge.ingest));
                }
                None => changed.await,
            }
        }
    }
}
