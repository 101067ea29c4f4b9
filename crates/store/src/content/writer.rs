//! The writing end of an ingest: gathers bytes, hashes and writes them on the blocking pool while more arrive, and turns
//! the ingest into a blob.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;
use windlass_core::content::{ABANDONED_AFTER, Commit, Expected, Info, IngestRef, Status, Writer};
use windlass_core::{Error, Result, ResultExt};

use super::commit::Finish;
use super::ingests::{Opened, Start};
use super::open_refs::Held;
use super::sink::Sink;
use super::view::Content;
use crate::blocking::to_the_end;

/// How many bytes are gathered before they are written. A writer has two of these at most: one that fills while the
/// other is hashed and written.
const CHUNK: usize = 1 << 20;

/// A writer of one ingest.
pub(super) struct IngestWriter {
    content: Content,
    ingest: IngestRef,
    status: Status,
    stage: Stage,
    /// What was accepted and not handed over yet.
    buffer: Vec<u8>,
    /// A buffer to go on with.
    spare: Vec<u8>,
    held: Option<Held>,
}

/// Where the blocking end is.
enum Stage {
    Here(Start),
    Working(JoinHandle<Worked>),
    /// Committed, or lost with a panic.
    Gone,
}

/// What comes back from a write: where the data is, the buffer, and what came of it.
type Worked = (Start, Vec<u8>, Result<()>);

impl IngestWriter {
    pub(super) fn new(content: Content, opened: Opened) -> Self {
        let Opened { held, start, status } = opened;
        Self {
            content,
            ingest: status.ingest.clone(),
            status,
            stage: Stage::Here(start),
            buffer: Vec::new(),
            spare: Vec::new(),
            held: Some(held),
        }
    }

    /// Waits for the write that is under way, if any.
    async fn settle(&mut self) -> Result<()> {
        let Stage::Working(work) = &mut self.stage else { return Ok(()) };
        // Awaited by reference: when this future is dropped, the work stays where it is.
        let joined = work.await;
        self.stage = Stage::Gone;
        let (start, buffer, result) = joined.map_err(|error| lost(&self.ingest).source(error))?;
        if result.is_err() {
            // What was accepted behind the failure cannot be written any more.
            self.buffer.clear();
        }
        self.set_offset(start.offset() + self.buffer.len() as u64);
        self.spare = buffer;
        self.stage = Stage::Here(start);
        result
    }

    /// Hands the buffer over to be hashed and written, once the one before is done.
    async fn hand_over(&mut self) -> Result<()> {
        self.settle().await?;
        self.begin(|_| Ok(()))
    }

    /// Begins to append the buffer and to do something afterwards. It goes on when the writer is dropped, and the ref is
    /// locked until it is over; nothing is under way when this is called.
    fn begin(&mut self, afterwards: impl FnOnce(&mut Sink) -> Result<()> + Send + 'static) -> Result<()> {
        let Stage::Here(start) = std::mem::replace(&mut self.stage, Stage::Gone) else {
            return Err(lost(&self.ingest));
        };
        let mut buffer = std::mem::replace(&mut self.buffer, std::mem::take(&mut self.spare));
        self.stage = Stage::Working(tokio::task::spawn_blocking(move || {
            let (start, result) = match start.sink() {
                Ok(mut sink) => {
                    let result = sink.append(&buffer).and_then(|()| afterwards(&mut sink));
                    (Start::Sink(sink), result)
                }
                Err((start, error)) => (start, Err(error)),
            };
            buffer.clear();
            (start, buffer, result)
        }));
        Ok(())
    }

    /// Waits until nothing is under way and takes the blocking end.
    async fn take_start(&mut self) -> Result<Start> {
        self.settle().await?;
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Here(start) => Ok(start),
            _ => Err(lost(&self.ingest)),
        }
    }

    fn set_offset(&mut self, offset: u64) {
        self.status.offset = offset;
        if let Some(held) = &self.held {
            held.set_offset(offset);
        }
    }

    fn check_room(&self, more: usize) -> Result<()> {
        let after = self.status.offset + more as u64;
        match self.status.total {
            Some(total) if after > total => Err(Error::out_of_range(format!(
                "ingest {} would have {after} bytes, {total} are declared",
                self.ingest
            ))),
            _ => Ok(()),
        }
    }
}

fn lost(ingest: &IngestRef) -> Error {
    Error::internal(format!("the writer of ingest {ingest} is broken")).hint("open the ingest again: it continues")
}

#[async_trait]
impl Writer for IngestWriter {
    async fn status(&mut self) -> Result<Status> {
        self.settle().await?;
        Ok(self.status.clone())
    }

    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.check_room(bytes.len())?;
        while !bytes.is_empty() {
            let room = CHUNK.saturating_sub(self.buffer.len());
            let part = bytes.split_to(room.min(bytes.len()));
            self.buffer.extend_from_slice(&part);
            self.set_offset(self.status.offset + part.len() as u64);
            self.status.updated_at = SystemTime::now();
            if self.buffer.len() >= CHUNK {
                self.hand_over().await.context(|| format!("write ingest {}", self.ingest))?;
            }
        }
        Ok(())
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        if size == self.status.offset {
            return Ok(());
        }
        let truncated = async {
            self.settle().await?;
            self.begin(move |sink| sink.truncate(size))?;
            self.settle().await
        };
        truncated.await.context(|| format!("truncate ingest {}", self.ingest))
    }

    async fn commit(mut self: Box<Self>, commit: Commit) -> Result<Info> {
        let attempt = format!("commit ingest {}", self.ingest);
        let result = async {
            commit.labels.validate()?;
            let start = self.take_start().await?;
            let Some(held) = self.held.take() else { return Err(lost(&self.ingest)) };
            let finish = Finish {
                content: self.content.clone(),
                ingest: self.ingest.clone(),
                declared: Expected { digest: self.status.expected.clone(), size: self.status.total },
                commit,
            };
            let buffer = std::mem::take(&mut self.buffer);
            to_the_end(finish.run(start, buffer, held)).await
        };
        result.await.context(|| attempt)
    }
}

impl Drop for IngestWriter {
    /// Keeps what was accepted and saves the hash, then unlocks the ref.
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        // What is left here ages from now on.
        if let Some(end) = SystemTime::now().checked_add(ABANDONED_AFTER) {
            self.content.shared.db.activity().ends(end);
        }
        let buffer = std::mem::take(&mut self.buffer);
        let content = self.content.clone();
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            // At most one chunk into the page cache, and only when a write was given up: not worth a detour.
            Stage::Here(start) => close(start, &buffer, held),
            Stage::Working(work) => {
                let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
                held.closing();
                // Owned by the table of open refs: whoever opens the ref next waits until it is done, and so does whoever
                // wants the root.
                runtime.spawn(async move {
                    if let Ok((start, _, Ok(()))) = work.await {
                        drop(tokio::task::spawn_blocking(move || close(start, &buffer, held)).await);
                    }
                    drop(content);
                });
            }
            Stage::Gone => {}
        }
    }
}

fn close(start: Start, buffer: &[u8], held: Held) {
    let kept = start.sink().map_err(|(_, error)| error).and_then(|mut sink| {
        let appended = sink.append(buffer);
        sink.save();
        appended
    });
    if let Err(error) = kept {
        // Nobody is left to tell; the next writer sees the offset that was reached.
        tracing::debug!(%error, "the last bytes of an abandoned ingest were not written");
    }
    drop(held);
}
