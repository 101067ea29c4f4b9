//! The writing end of an ingest: gathers bytes, hashes and writes them on the blocking pool while more arrive, and turns
//! the ingest into a blob.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::{
    ABANDONED_AFTER, Commit, Expected, Info, IngestRef, ReaderAt, SparseWriter, Status, Writer,
};
use windlass_core::digest::Algorithm;
use windlass_core::{Digest, Error, Kind, Result, ResultExt};

use super::commit::Finish;
use super::edge::{Edge, Followed, Tail};
use super::gathered::Gathered;
use super::ingests::{Opened, Start};
use super::open_refs::Held;
use super::sink::Sink;
use super::sparse::{Hands, Sparse};
use super::view::Content;
use super::work::Work;
use crate::blocking::to_the_end;
use crate::disk::MOST_PARTS;

/// How many bytes are gathered before they are written. A writer has one of these that fills and one that is written, beside what
/// waits to be hashed.
const CHUNK: usize = 1 << 20;
/// What is smaller than this is copied: it would keep the memory that it is a part of.
const TINY: usize = 1 << 10;

/// A writer of one ingest.
pub(super) struct IngestWriter {
    content: Content,
    ingest: IngestRef,
    status: Status,
    stage: Stage,
    /// What was accepted and not handed over yet.
    gathered: Gathered,
    /// Whoever reads behind.
    followed: Option<Followed>,
    held: Option<Held>,
}

/// Where the blocking end is.
enum Stage {
    Here(Start),
    Working(Work),
    /// At several places.
    Sparse(Arc<Sparse>),
    /// Committed, or lost with a panic.
    Gone,
}

impl IngestWriter {
    pub(super) fn new(content: Content, opened: Opened) -> Self {
        let Opened { held, start, status } = opened;
        Self {
            content,
            ingest: status.ingest.clone(),
            status,
            stage: Stage::Here(start),
            gathered: Gathered::default(),
            followed: None,
            held: Some(held),
        }
    }

    /// Waits for the write that is under way, if any.
    async fn settle(&mut self) -> Result<()> {
        let Stage::Working(work) = &mut self.stage else { return Ok(()) };
        // Awaited by reference: when this future is dropped, the work stays where it is.
        let joined = work.done().await;
        self.stage = Stage::Gone;
        let (start, result) = joined.map_err(|error| lost(&self.ingest).source(error))?;
        if result.is_err() {
            // What was accepted behind the failure cannot be written any more, and perhaps was read.
            self.gathered = Gathered::default();
            self.followed = None;
        }
        self.set_offset(start.offset() + self.gathered.length as u64);
        self.stage = Stage::Here(start);
        result
    }

    /// Hands over what was gathered to be written and hashed, once what was before is written.
    async fn hand_over(&mut self) -> Result<()> {
        self.settle().await?;
        self.begin(|_| Ok(())).await
    }

    /// Begins to append what was gathered and to do something afterwards. It goes on when the writer is dropped, and the ref
    /// is locked until it is over; nothing is under way when this is called.
    async fn begin(&mut self, afterwards: impl FnOnce(&mut Sink) -> Result<()> + Send + 'static) -> Result<()> {
        if matches!(self.stage, Stage::Here(Start::Unborn(_))) {
            self.content.hold_ingest(&self.ingest).await?;
        }
        let start = self.take_here()?;
        let Gathered { parts, .. } = std::mem::take(&mut self.gathered);
        let append = move |sink: &mut Sink| sink.append_parts(&parts.into()).and_then(|()| afterwards(sink));
        self.stage = Stage::Working(Work::new(start, append));
        Ok(())
    }

    /// Takes the blocking end where nothing is under way.
    fn take_here(&mut self) -> Result<Start> {
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Here(start) => Ok(start),
            _ => Err(lost(&self.ingest)),
        }
    }

    /// Waits until nothing is under way and takes the blocking end.
    async fn take_start(&mut self) -> Result<Start> {
        self.settle().await?;
        if let Stage::Sparse(sparse) = &self.stage {
            let sink = sparse.close().await?;
            self.stage = Stage::Here(Start::Sink(sink));
        }
        self.take_here()
    }

    /// Brings what was gathered, and the ingest, to the disk.
    async fn come_to_disk(&mut self) -> Result<()> {
        self.hand_over().await?;
        self.settle().await
    }

    fn check_appends(&self) -> Result<()> {
        match self.stage {
            Stage::Sparse(_) => Err(Error::failed_precondition(format!(
                "ingest {} is being written at several places, and cannot be appended to or cut",
                self.ingest
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the edge that readers behind follow, for content of a declared size.
    async fn edge(&mut self, size: u64) -> Result<Arc<Edge>> {
        self.settle().await?;
        if let Some(followed) = &self.followed {
            return Ok(followed.edge().clone());
        }
        if matches!(self.stage, Stage::Here(Start::Unborn(_))) && size >= CHUNK as u64 {
            self.come_to_disk().await?;
        }
        let new = |file, written| Edge::new(self.ingest.clone(), size, file, written);
        let edge = match &mut self.stage {
            Stage::Here(Start::Unborn(_)) => new(None, 0),
            Stage::Here(Start::Sink(sink)) => {
                let edge = new(Some(sink.file().clone()), sink.offset());
                sink.follow(Some(edge.clone()));
                edge
            }
            Stage::Sparse(sparse) => sparse.follow(|file, written| new(Some(file), written)),
            Stage::Working(_) | Stage::Gone => return Err(lost(&self.ingest)),
        };
        let mut at = self.status.offset - self.gathered.length as u64;
        for part in &self.gathered.parts {
            edge.accepted(at, part.clone());
            at += part.len() as u64;
        }
        self.followed = Some(Followed::new(edge.clone()));
        Ok(edge)
    }

    fn set_offset(&mut self, offset: u64) {
        self.status.offset = offset;
        if let Some(held) = &self.held {
            held.set_offset(offset);
        }
    }

    fn check_room(&self, more: u64) -> Result<()> {
        let after = self.status.offset.saturating_add(more);
        match self.status.total {
            Some(total) if after > total => Err(Error::out_of_range(format!(
                "ingest {} would have {after} bytes, {total} are declared",
                self.ingest
            ))
            .coded("size-mismatch")),
            _ => Ok(()),
        }
    }
}

pub(super) fn lost(ingest: &IngestRef) -> Error {
    Error::internal(format!("the writer of ingest {ingest} is broken")).hint("open the ingest again: it continues")
}

#[async_trait]
impl Writer for IngestWriter {
    async fn status(&mut self) -> Result<Status> {
        self.settle().await?;
        if let Stage::Sparse(sparse) = &self.stage {
            let (offset, updated_at) = sparse.progress();
            (self.status.offset, self.status.updated_at) = (offset, self.status.updated_at.max(updated_at));
        }
        Ok(self.status.clone())
    }

    async fn digest(&mut self) -> Result<Option<Digest>> {
        let algorithm = self.status.expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = async {
            self.settle().await?;
            match &self.stage {
                // Hashed as the bytes get there, in whatever order they come.
                Stage::Sparse(_) => return Ok(None),
                Stage::Here(Start::Unborn(_)) => return Ok(Some(self.gathered.digest(algorithm))),
                _ => self.begin(move |sink| sink.digest(algorithm).map(drop)).await?,
            }
            self.settle().await?;
            match &mut self.stage {
                Stage::Here(Start::Sink(sink)) => sink.digest(algorithm).map(Some),
                _ => Err(lost(&self.ingest)),
            }
        };
        digest.await.context(|| format!("hash ingest {}", self.ingest))
    }

    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.check_appends()?;
        self.check_room(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let room = CHUNK.saturating_sub(self.gathered.length);
            let mut part = bytes.split_to(room.min(bytes.len()));
            if part.len() < TINY {
                part = Bytes::copy_from_slice(&part);
            }
            if let Some(followed) = &self.followed {
                followed.edge().accepted(self.status.offset, part.clone());
            }
            self.set_offset(self.status.offset + part.len() as u64);
            self.status.updated_at = SystemTime::now();
            self.gathered.push(part);
            if self.gathered.length >= CHUNK {
                self.hand_over().await.context(|| format!("write ingest {}", self.ingest))?;
            } else if self.gathered.parts.len() >= MOST_PARTS {
                self.join_parts();
            }
        }
        Ok(())
    }

    async fn write_file(&mut self, file: &Arc<File>, range: Range<u64>) -> Result<bool> {
        self.check_appends()?;
        let length = range.end.saturating_sub(range.start);
        if length < CHUNK as u64 {
            return Ok(false);
        }
        self.check_room(length)?;
        let file = file.clone();
        let appended = async {
            self.settle().await?;
            self.begin(move |sink| sink.append_file(&file, range)).await?;
            self.settle().await
        };
        appended.await.context(|| format!("write ingest {}", self.ingest))?;
        self.status.updated_at = SystemTime::now();
        Ok(true)
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.check_appends()?;
        self.settle().await?;
        let islands = matches!(&self.stage, Stage::Here(Start::Sink(sink)) if sink.gap().is_some());
        if size == self.status.offset && !islands {
            return Ok(());
        }
        if size < self.status.offset {
            self.followed = None;
        }
        let truncated = async {
            self.begin(move |sink| {
                if size < sink.offset() {
                    sink.follow(None);
                }
                sink.truncate(size)
            })
            .await?;
            self.settle().await
        };
        truncated.await.context(|| format!("truncate ingest {}", self.ingest))
    }

    async fn commit(mut self: Box<Self>, commit: Commit) -> Result<Info> {
        let attempt = format!("commit ingest {}", self.ingest);
        let result = async {
            commit.labels.validate()?;
            self.settle().await?;
            if !self.gathered.parts.is_empty() && matches!(self.stage, Stage::Here(Start::Sink(_))) {
                self.come_to_disk().await?;
            }
            let start = self.take_start().await?;
            if let Some(gap) = start.gap() {
                self.stage = Stage::Here(start);
                return Err(self.has_gap(gap));
            }
            let Some(held) = self.held.take() else { return Err(lost(&self.ingest)) };
            let finish = Finish {
                content: self.content.clone(),
                ingest: self.ingest.clone(),
                declared: Expected { digest: self.status.expected.clone(), size: self.status.total },
                commit,
            };
            let buffer = std::mem::take(&mut self.gathered).joined();
            let followed = self.followed.take();
            to_the_end(async move {
                let finished = finish.run(start, buffer, held).await;
                let whole = finished.as_ref().map_or_else(|error| error.is(Kind::AlreadyExists), |_| true);
                if let Some(followed) = followed.filter(|_| whole) {
                    followed.end_whole();
                }
                finished
            })
            .await
        };
        result.await.context(|| attempt)
    }

    async fn tail(&mut self) -> Result<Option<Arc<dyn ReaderAt>>> {
        let Some(size) = self.status.total else { return Ok(None) };
        let edge = self.edge(size).await.context(|| format!("follow ingest {}", self.ingest))?;
        Ok(Some(Arc::new(Tail(edge))))
    }

    async fn sparse(&mut self) -> Result<Option<Arc<dyn SparseWriter>>> {
        // What a power cut leaves of several places is told from what was written by the digest alone.
        let (Some(total), Some(_)) = (self.status.total, &self.status.expected) else { return Ok(None) };
        if let Stage::Sparse(sparse) = &self.stage {
            return Ok(Some(Arc::new(Hands(sparse.clone()))));
        }
        let sparse = self.at_several_places(total).await.context(|| format!("open ingest {}", self.ingest))?;
        self.stage = Stage::Sparse(sparse.clone());
        Ok(Some(Arc::new(Hands(sparse))))
    }
}

impl IngestWriter {
    /// Makes one of many small parts, so that they do not take more memory than their bytes.
    fn join_parts(&mut self) {
        let joined = self.gathered.joined();
        if let Some(followed) = &self.followed {
            followed.edge().accepted_again(self.status.offset - joined.len() as u64, joined);
        }
    }

    async fn at_several_places(&mut self, total: u64) -> Result<Arc<Sparse>> {
        self.settle().await?;
        self.begin(Sink::open_gaps).await?;
        self.settle().await?;
        let (stage, held) = (std::mem::replace(&mut self.stage, Stage::Gone), self.held.as_ref());
        let (Stage::Here(Start::Sink(sink)), Some(held)) = (stage, held) else { return Err(lost(&self.ingest)) };
        let edge = self.followed.as_ref().map(|followed| followed.edge().clone());
        if let Some(edge) = &edge {
            edge.comes_to_disk(sink.file().clone(), sink.offset());
        }
        let here = sink.ranges();
        Ok(Sparse::new((self.ingest.clone(), total), (sink, here), held.offset(), edge))
    }

    fn has_gap(&self, at: u64) -> Error {
        Error::failed_precondition(format!("ingest {} has a gap at byte {at}", self.ingest))
            .hint("bring what is missing: what is here is kept")
    }
}

impl Drop for IngestWriter {
    /// Keeps what was accepted and saves the hash, then unlocks the ref.
    fn drop(&mut self) {
        self.followed = None;
        let Some(held) = self.held.take() else { return };
        // What is left here ages from now on.
        if let Some(end) = SystemTime::now().checked_add(ABANDONED_AFTER) {
            self.content.shared.db.activity().ends(end);
        }
        let gathered = std::mem::take(&mut self.gathered);
        let updated_at = self.status.updated_at;
        let content = self.content.clone();
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            // At most one chunk into the page cache, and only when a write was given up: not worth a detour.
            Stage::Here(start) => {
                let is_born = matches!(start, Start::Sink(_));
                close(start, &gathered, updated_at);
                if is_born || content.scope.lease.is_none() {
                    return;
                }
                // Without a runtime, or when that ends before, it is kept like one that no lease holds.
                let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
                held.closing();
                let ingest = self.ingest.clone();
                runtime.spawn(async move {
                    if let Err(error) = content.hold_ingest(&ingest).await {
                        tracing::debug!(%ingest, %error, "the lease does not hold an abandoned ingest");
                    }
                    drop((held, content));
                });
            }
            Stage::Working(mut work) => {
                let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
                held.closing();
                // Owned by the table of open refs: whoever opens the ref next waits until it is done, and so does whoever
                // wants the root.
                runtime.spawn(async move {
                    if let Ok((start, Ok(()))) = work.done().await {
                        let close = move || {
                            close(start, &gathered, updated_at);
                            drop(held);
                        };
                        drop(tokio::task::spawn_blocking(close).await);
                    }
                    drop(content);
                });
            }
            Stage::Sparse(sparse) => sparse.part(held, content),
            Stage::Gone => {}
        }
    }
}

fn close(start: Start, gathered: &Gathered, updated_at: SystemTime) {
    let kept = start.sink().map_err(|(_, error)| error).and_then(|mut sink| {
        let appended = sink.append_parts(&gathered.parts.as_slice().into());
        sink.settle();
        sink.save();
        sink.set_updated_at(updated_at);
        appended
    });
    if let Err(error) = kept {
        // Nobody is left to tell; the next writer sees the offset that was reached.
        tracing::debug!(%error, "the last bytes of an abandoned ingest were not written");
    }
}
