//! Writing an ingest at several places at once.
//!
//! Writes are jobs on the blocking pool, as many at once as there are callers. What each has written is noted in one map;
//! whoever finds the hash waiting takes it along the bytes from the beginning to the first gap: straight from memory
//! where it stands at what was just written, from the page cache where others came before. Whoever has the hash also saves the
//! state, so that there is one who does.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use windlass_core::content::{IngestRef, Ranges, SparseWriter};
use windlass_core::{Error, Result, ResultExt};

use super::edge::Edge;
use super::open_refs::Held;
use super::sink::Sink;
use super::view::Content;
use super::writeback::completed;
use super::writer::lost;
use crate::disk::File;

/// How much may be written ahead of the hash, in bytes, until writers wait: what is read again has to be in memory still,
/// and this much of the page cache a pull can have for each layer. It is enough for eight ranges of 8 MiB side by side.
const AHEAD: u64 = 64 << 20;
/// How many bytes are written between two saves of the state: what is brought again after a SIGKILL, beside what was in
/// the hands of the writers. A save takes about a tenth of a millisecond, hashing and writing this much some three.
const CHECKPOINT: u64 = 4 << 20;

/// An ingest that is written at several places.
pub(super) struct Sparse {
    ingest: IngestRef,
    total: u64,
    file: File,
    /// How far it is, for others to know.
    offset: Arc<AtomicU64>,
    map: Mutex<Map>,
    changed: Notify,
}

struct Map {
    /// What is in the file.
    here: Ranges,
    /// What is being written.
    busy: Ranges,
    /// What was in the file before; it does not count as written ahead.
    before: Ranges,
    /// The hash and the state; away while somebody goes on with them.
    sink: Option<Box<Sink>>,
    /// How far the hash is.
    hashed: u64,
    /// How many bytes were written since the state was saved.
    unsaved: u64,
    /// How many jobs there are.
    jobs: usize,
    updated_at: SystemTime,
    edge: Option<Arc<Edge>>,
    /// Why the hash cannot go on.
    broken: Option<String>,
    /// The writer is gone, or commits.
    closed: bool,
    /// What the last job gives up when the writer was dropped before it.
    parting: Option<(Held, Content)>,
}

/// What came of an attempt to claim a range.
enum Claim {
    Granted(Job),
    /// All of it is here.
    Needless,
    Later,
}

impl Sparse {
    /// Opens an ingest of `total` bytes, in which there are `here`, for writes anywhere.
    pub(super) fn new(
        (ingest, total): (IngestRef, u64),
        (sink, here): (Box<Sink>, Ranges),
        offset: Arc<AtomicU64>,
        edge: Option<Arc<Edge>>,
    ) -> Arc<Self> {
        let file = sink.file().clone();
        let map = Map {
            busy: Ranges::default(),
            before: here.clone(),
            here,
            hashed: sink.hashed(),
            sink: Some(sink),
            unsaved: 0,
            jobs: 0,
            updated_at: SystemTime::now(),
            edge,
            broken: None,
            closed: false,
            parting: None,
        };
        Arc::new(Self { ingest, total, file, offset, map: Mutex::new(map), changed: Notify::new() })
    }

    /// Returns how many bytes there are up to the first gap, and when something was written last.
    pub(super) fn progress(&self) -> (u64, SystemTime) {
        let map = self.map();
        (map.here.prefix(), map.updated_at)
    }

    /// Returns the edge that readers follow, which `make` makes from what is here if there is none yet.
    pub(super) fn follow(&self, make: impl FnOnce(File, u64) -> Arc<Edge>) -> Arc<Edge> {
        let mut map = self.map();
        let prefix = map.here.prefix();
        map.edge.get_or_insert_with(|| make(self.file.clone(), prefix)).clone()
    }

    /// Refuses further writes, waits for those under way, and returns the sink with everything that was written.
    pub(super) async fn close(&self) -> Result<Box<Sink>> {
        self.map().closed = true;
        self.changed.notify_waiters();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut map = self.map();
                if map.jobs == 0 {
                    return map.take_sink().ok_or_else(|| lost(&self.ingest));
                }
            }
            changed.await;
        }
    }

    /// Ends with the writer, which was dropped: what is under way is finished before the ref is free.
    pub(super) fn part(&self, held: Held, content: Content) {
        let mut map = self.map();
        map.closed = true;
        if map.jobs > 0 {
            held.closing();
            map.parting = Some((held, content));
            drop(map);
        } else {
            let sink = map.take_sink();
            drop(map);
            end(sink, held, content);
        }
        self.changed.notify_waiters();
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        // Every change is whole whatever panicked.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> Error {
        Error::aborted(format!("the writer of ingest {} is gone", self.ingest))
    }

    fn claim(self: &Arc<Self>, range: &Range<u64>) -> Result<Claim> {
        let mut map = self.map();
        if map.closed {
            return Err(self.gone());
        }
        if let Some(why) = &map.broken {
            return Err(Error::unavailable(format!("ingest {} cannot be hashed: {why}", self.ingest)));
        }
        if map.jobs == 0 && map.sink.is_none() {
            return Err(lost(&self.ingest));
        }
        let missing = map.here.missing(range.clone());
        if missing.is_empty() {
            return Ok(Claim::Needless);
        }
        if map.busy.overlaps(range) || map.is_ahead(range) {
            return Ok(Claim::Later);
        }
        for piece in &missing {
            map.busy.insert(piece.clone());
        }
        map.jobs += 1;
        Ok(Claim::Granted(Job { sparse: self.clone(), claimed: missing.into() }))
    }

    /// Notes what became of a piece: so many bytes of it are in the file.
    fn written(&self, piece: &Range<u64>, length: u64) {
        let done = piece.start..piece.start + length;
        let batch = {
            let mut map = self.map();
            map.busy.remove(piece);
            map.here.insert(done.clone());
            map.unsaved += length;
            map.updated_at = SystemTime::now();
            let prefix = map.here.prefix();
            self.offset.store(prefix, Ordering::Relaxed);
            if let Some(edge) = &map.edge {
                edge.written(prefix);
            }
            completed(&map.here, &done)
        };
        self.changed.notify_waiters();
        if !batch.is_empty() {
            self.file.start_writeback(batch.start, batch.end - batch.start);
        }
    }
}

impl Map {
    /// Tells whether a write has to wait until the hash is further.
    fn is_ahead(&self, range: &Range<u64>) -> bool {
        let ahead = self.here.length_from(self.hashed) + self.busy.length_from(self.hashed)
            - self.before.length_from(self.hashed);
        if ahead < AHEAD {
            return false;
        }
        // With nothing to hash, only what is missing first helps.
        let prefix = self.here.prefix();
        self.hashed < prefix || !range.contains(&prefix)
    }

    /// Takes the sink with everything that was written.
    fn take_sink(&mut self) -> Option<Box<Sink>> {
        let mut sink = self.sink.take()?;
        sink.set_ranges(self.here.clone());
        Some(sink)
    }
}

/// Saves where an ingest was left and unlocks its ref.
fn end(sink: Option<Box<Sink>>, held: Held, content: Content) {
    if let Some(mut sink) = sink {
        sink.save();
    }
    drop(held);
    drop(content);
}

/// One write under way.
struct Job {
    sparse: Arc<Sparse>,
    /// What is claimed and not written yet.
    claimed: std::collections::VecDeque<Range<u64>>,
}

impl Job {
    /// Writes what was claimed of parts that begin at `offset`, says what came of it, and hashes what there is to hash.
    fn run(mut self, offset: u64, parts: Vec<Bytes>, done: oneshot::Sender<Result<()>>) {
        let mut result = Ok(());
        let mut own = Vec::new();
        while let Some(piece) = self.claimed.pop_front() {
            let part = cut(&parts, piece.start - offset, piece.end - piece.start);
            let (length, wrote) = self.sparse.file.write_parts_at(&part, piece.start);
            self.sparse.written(&piece, length);
            own.push((piece.start, part, length));
            if wrote.is_err() {
                result = wrote;
                break;
            }
        }
        self.release();
        drop(parts);
        let mut lead = Lead::take(&self.sparse);
        if let Some(lead) = &mut lead {
            lead.hash(&own);
        }
        drop(own);
        // Whoever gave up waiting does not want to know.
        drop(done.send(result));
        if let Some(lead) = lead {
            lead.follow();
        }
    }

    fn release(&mut self) {
        let mut map = self.sparse.map();
        for piece in self.claimed.drain(..) {
            map.busy.remove(&piece);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.release();
        let mut map = self.sparse.map();
        map.jobs -= 1;
        let parting = if map.jobs == 0 { map.parting.take() } else { None };
        let ended = parting.map(|(held, content)| (map.take_sink(), held, content));
        drop(map);
        if let Some((sink, held, content)) = ended {
            end(sink, held, content);
        }
        self.sparse.changed.notify_waiters();
    }
}

/// The right to go on with the hash.
struct Lead<'a> {
    sparse: &'a Sparse,
    sink: Option<Box<Sink>>,
}

impl<'a> Lead<'a> {
    fn take(sparse: &'a Sparse) -> Option<Self> {
        let sink = Some(sparse.map().sink.take()?);
        Some(Self { sparse, sink })
    }

    /// Hashes pieces that are still in memory, as far as the hash stands at them.
    fn hash(&mut self, pieces: &[(u64, Vec<Bytes>, u64)]) {
        let Some(sink) = &mut self.sink else { return };
        for (start, parts, length) in pieces {
            if sink.hashed() == *start {
                sink.hash(parts, *length);
            }
        }
    }

    /// Hashes up to the first gap and saves the state when there is enough to save, until there is nothing more to do.
    fn follow(mut self) {
        let Some(mut sink) = self.sink.take() else { return };
        loop {
            let mut map = self.sparse.map();
            map.hashed = sink.hashed();
            let prefix = map.here.prefix();
            let save = (map.unsaved >= CHECKPOINT || sink.is_due()).then(|| {
                map.unsaved = 0;
                map.here.clone()
            });
            if map.broken.is_some() || sink.hashed() >= prefix && save.is_none() {
                map.sink = Some(sink);
                break;
            }
            drop(map);
            self.sparse.changed.notify_waiters();
            if let Some(here) = save {
                sink.set_ranges(here);
                sink.save();
            }
            if sink.hashed() < prefix
                && let Err(error) = sink.hash_on(prefix)
            {
                self.sparse.map().broken = Some(error.to_string());
            }
        }
        self.sparse.changed.notify_waiters();
    }
}

/// Returns `length` bytes of parts, from an offset in them on.
fn cut(parts: &[Bytes], mut skip: u64, mut length: u64) -> Vec<Bytes> {
    let mut found = Vec::new();
    for part in parts {
        let size = part.len() as u64;
        if skip < size && length > 0 {
            let end = size.min(skip.saturating_add(length));
            length -= end - skip;
            let index = |at| usize::try_from(at).unwrap_or(usize::MAX);
            found.push(part.slice(index(skip)..index(end)));
        }
        skip = skip.saturating_sub(size);
    }
    found
}

/// What is handed out: it writes for as long as the writer is there.
pub(super) struct Hands(pub(super) Arc<Sparse>);

#[async_trait]
impl SparseWriter for Hands {
    async fn gaps(&self) -> Result<Vec<Range<u64>>> {
        let map = self.0.map();
        if map.closed {
            return Err(self.0.gone());
        }
        Ok(map.here.missing(0..self.0.total))
    }

    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<()> {
        self.write_parts_at(offset, vec![bytes]).await
    }

    async fn write_parts_at(&self, offset: u64, parts: Vec<Bytes>) -> Result<()> {
        let Self(sparse) = self;
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let end = offset.checked_add(length).filter(|end| *end <= sparse.total).ok_or_else(|| {
            let (ingest, total) = (&sparse.ingest, sparse.total);
            Error::out_of_range(format!("{length} bytes at {offset} are beyond the {total} of ingest {ingest}"))
        })?;
        let job = loop {
            let changed = sparse.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match sparse.claim(&(offset..end))? {
                Claim::Granted(job) => break job,
                Claim::Needless => return Ok(()),
                Claim::Later => changed.await,
            }
        };
        let (done, told) = oneshot::channel();
        // It ends by itself, and is waited for by whoever closes.
        drop(tokio::task::spawn_blocking(move || job.run(offset, parts, done)));
        let written = told.await.unwrap_or_else(|_| Err(lost(&sparse.ingest)));
        written.context(|| format!("write ingest {} at {offset}", sparse.ingest))
    }
}
