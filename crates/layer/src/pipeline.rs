//! A layer's way from compressed parts to files, on threads of its own.
//!
//! ```text
//!   push(part) ──2──► inflate ──3──► hash the diff id, parse the tar, make directories ──► make and write the files
//!                        ▲                                                                      │
//!                        └──────────────────────────── used buffers ────────────────────────────┘
//! ```
//!
//! Whoever has the parts of a layer in order can be the source: [`crate::Differ`] reads them from a content store, a
//! one-pass pull hands them over as they arrive. The numbers are how many may wait: a few MiB a layer in all, whatever
//! its size, and a slow disk holds the source back. Nothing is copied on the way from the inflater to the kernel: a
//! buffer is used again when all files are written that had bytes in it.
//!
//! Dropping a pipeline, or the future of one of its calls, stops the threads at the next buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc as parts, oneshot};
use windlass_core::diff::Applied;
use windlass_core::digest::{Algorithm, Hasher};
use windlass_core::{DiffId, Error, Result};

use crate::Options;
use crate::compression::{Decompressor, MAGIC_LEN, Output, Step, detect};
use crate::extract::Outcome;
use crate::sink::{self, Destination, Sink};
use crate::tar::{Event, Parser};
use crate::writeback::Writeback;

/// How large the parts should be: 512 KiB. Five of them are on their way at most: one that is read, one that is given, two
/// that wait, and one that is decompressed.
pub const PART: usize = 512 << 10;

/// How large the buffers between the threads are. Large enough that a call into the inflater is nothing, small enough to
/// stay in the processor's cache.
const BUFFER: usize = 256 << 10;

/// How many buffers there are: those that are being filled and read, those that wait, and those whose files are being
/// written.
const BUFFERS: usize = 12;

/// How many threads make and write files. The work is more than half of a layer's, nearly all of it in the kernel, and two
/// threads in different directories hinder each other little: in all they need as much time as one.
const WRITERS: usize = 2;

/// A layer being applied.
#[derive(Debug)]
pub struct Pipeline {
    /// None once all parts were given.
    parts: Option<parts::Sender<Part>>,
    result: oneshot::Receiver<Result<Applied>>,
    stop: Arc<AtomicBool>,
}

/// What the source says.
#[derive(Debug)]
enum Part {
    Bytes(Bytes),
    /// There is no more. A channel that closes without it was abandoned.
    End,
}

/// What the inflater says.
enum Chunk {
    /// Bytes of the archive, in a [`Lent`] buffer.
    Bytes(Bytes),
    End,
    Failed(Error),
}

impl Pipeline {
    /// Starts the threads of a layer. [`Options::max_ratio`] is the caller's business, who knows the compressed size. What they write is on its way to the disk at once if somebody is there for that.
    ///
    /// # Errors
    /// `ResourceExhausted` when there can be no more threads.
    pub fn start(destination: impl Into<Destination>, options: &Options, writeback: Option<Writeback>) -> Result<Self> {
        let destination = destination.into();
        let (parts, source) = parts::channel(2);
        let (chunks, inflated) = mpsc::sync_channel(3);
        let (give_back, spare) = mpsc::sync_channel(BUFFERS);
        let (result, outcome) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));

        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
            spawned.map_err(|e| Error::resource_exhausted(format!("start thread {name}")).source(e))
        };
        spawn("layer-inflate", Box::new(move || Inflate::new(source, chunks, give_back, spare).run()))?;
        let sink = Extract { inflated, stop: Arc::clone(&stop), options: options.clone(), writeback };
        spawn(
            "layer-extract",
            Box::new(move || {
                // Nobody is there to be told when the pipeline was dropped.
                let _ = result.send(sink.run(&destination));
            }),
        )?;
        Ok(Self { parts: Some(parts), result: outcome, stop })
    }

    /// Gives the next part of the compressed layer; waits while the threads are behind.
    ///
    /// Returns false when no more parts are wanted, because the result is there: call [`Pipeline::finish`].
    ///
    /// # Cancel safety
    /// A call that is dropped has not given the part.
    pub async fn push(&mut self, part: Bytes) -> bool {
        match &self.parts {
            Some(parts) => part.is_empty() || parts.send(Part::Bytes(part)).await.is_ok(),
            None => false,
        }
    }

    /// Says that all parts were given, and waits for the result.
    ///
    /// # Errors
    /// As [`windlass_core::diff::Applier::apply`].
    ///
    /// # Cancel safety
    /// A call that is dropped stops the threads.
    pub async fn finish(mut self) -> Result<Applied> {
        if let Some(parts) = self.parts.take() {
            // A closed channel means that the result is there already.
            let _ = parts.send(Part::End).await;
        }
        match (&mut self.result).await {
            Ok(result) => result,
            Err(_) => Err(Error::internal("the thread that extracts the layer panicked")),
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A buffer that goes back to the inflater when nobody needs its bytes any more.
struct Lent {
    buffer: Output,
    /// The bytes, if they were never compressed; the buffer then is a token.
    plain: Option<Bytes>,
    give_back: SyncSender<Output>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.plain.as_deref().unwrap_or_else(|| self.buffer.content())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // There is room for all buffers; an inflater that is gone needs none.
        let _ = self.give_back.try_send(std::mem::take(&mut self.buffer));
    }
}

/// The first thread: decompresses.
struct Inflate {
    source: parts::Receiver<Part>,
    chunks: SyncSender<Chunk>,
    give_back: SyncSender<Output>,
    spare: Receiver<Output>,
    buffer: Output,
    allocated: usize,
    ended: bool,
}

/// Why a thread stops before the end.
enum Stopped {
    /// The other end is gone.
    Abandoned,
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Inflate {
    fn new(
        source: parts::Receiver<Part>,
        chunks: SyncSender<Chunk>,
        give_back: SyncSender<Output>,
        spare: Receiver<Output>,
    ) -> Self {
        Self { source, chunks, give_back, spare, buffer: Output::default(), allocated: 0, ended: false }
    }

    fn run(mut self) {
        let last = match self.inflate() {
            Ok(()) => Chunk::End,
            Err(Stopped::Failed(error)) => Chunk::Failed(error),
            Err(Stopped::Abandoned) => return,
        };
        // The receiver is gone when it has come to a result of its own.
        let _ = self.chunks.send(last);
    }

    fn inflate(&mut self) -> Result<(), Stopped> {
        let start = self.start()?;
        let mut decompressor = Decompressor::new(detect(&start))?;
        let mut part = Some(start).filter(|start| !start.is_empty());
        while let Some(bytes) = part {
            match &mut decompressor {
                None => self.plain(bytes)?,
                Some(decompressor) => self.part(decompressor, &bytes)?,
            }
            part = self.next()?;
        }
        if let Some(decompressor) = decompressor {
            // What was sound is extracted before the damage is told.
            self.flush()?;
            decompressor.finish()?;
        }
        Ok(())
    }

    /// Returns the first part, put together so that the compression can be told.
    fn start(&mut self) -> Result<Bytes, Stopped> {
        let mut start = BytesMut::new();
        while start.len() < MAGIC_LEN {
            match self.next()? {
                Some(bytes) if start.is_empty() && bytes.len() >= MAGIC_LEN => return Ok(bytes),
                Some(bytes) => start.extend_from_slice(&bytes),
                None => break,
            }
        }
        Ok(start.freeze())
    }

    /// Decompresses a part. A buffer is handed on when it is full: parts may be small.
    fn part(&mut self, decompressor: &mut Decompressor, mut input: &[u8]) -> Result<(), Stopped> {
        loop {
            if self.buffer.is_full() {
                self.flush()?;
            }
            let Step { read, written } = decompressor.step(input, &mut self.buffer)?;
            input = input.get(read..).unwrap_or_default();
            // With room left and nothing done, the input is used up, and nothing is held back.
            if read == 0 && written == 0 {
                return Ok(());
            }
        }
    }

    /// Hands on a part that was never compressed, in pieces that the processor's cache has room for.
    fn plain(&mut self, mut part: Bytes) -> Result<(), Stopped> {
        while !part.is_empty() {
            let piece = part.split_to(part.len().min(BUFFER));
            let buffer = self.spare(Output::default)?;
            self.lend(buffer, Some(piece))?;
        }
        Ok(())
    }

    /// Hands on what is in the buffer, and takes another one.
    fn flush(&mut self) -> Result<(), Stopped> {
        let mut next = self.spare(|| Output::new(BUFFER))?;
        next.follow(&self.buffer);
        let full = std::mem::replace(&mut self.buffer, next);
        if full.content().is_empty() { Ok(()) } else { self.lend(full, None) }
    }

    /// Returns a buffer that was used before, or a new one as long as there may be more.
    fn spare(&mut self, new: impl Fn() -> Output) -> Result<Output, Stopped> {
        if let Ok(buffer) = self.spare.try_recv() {
            return Ok(buffer);
        }
        if self.allocated < BUFFERS {
            self.allocated += 1;
            return Ok(new());
        }
        self.spare.recv().map_err(|_| Stopped::Abandoned)
    }

    fn lend(&self, buffer: Output, plain: Option<Bytes>) -> Result<(), Stopped> {
        self.send(Chunk::Bytes(Bytes::from_owner(Lent { buffer, plain, give_back: self.give_back.clone() })))
    }

    /// Returns the next part; nothing, as often as it is asked, after the last one.
    fn next(&mut self) -> Result<Option<Bytes>, Stopped> {
        if self.ended {
            return Ok(None);
        }
        match self.source.blocking_recv() {
            Some(Part::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Part::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(Stopped::Abandoned),
        }
    }

    fn send(&self, chunk: Chunk) -> Result<(), Stopped> {
        self.chunks.send(chunk).map_err(|_| Stopped::Abandoned)
    }
}

/// The second thread: hashes, parses and writes.
struct Extract {
    inflated: Receiver<Chunk>,
    stop: Arc<AtomicBool>,
    options: Options,
    writeback: Option<Writeback>,
}

impl Extract {
    fn run(self, destination: &Destination) -> Result<Applied> {
        let mut layer = Layer {
            hasher: Algorithm::Sha256.hasher(),
            size: 0,
            parser: Parser::new(),
            sink: sink::open(destination, WRITERS, self.writeback.as_ref(), &self.options)?,
            entries: 0,
            max_entries: self.options.max_entries.unwrap_or(u64::MAX),
            ended: false,
        };
        loop {
            let chunk = self.inflated.recv().map_err(|_| Error::canceled("the layer was given up"))?;
            let outcome = match chunk {
                Chunk::Bytes(bytes) => self.chunk(&mut layer, &bytes)?,
                Chunk::End => break,
                Chunk::Failed(error) => return Err(error),
            };
            if let Outcome::NeedsParent { path } = outcome {
                return Ok(Applied::NeedsParent { path });
            }
        }
        layer.finish()
    }

    fn chunk(&self, layer: &mut Layer, bytes: &Bytes) -> Result<Outcome> {
        let limit = self.options.max_size.unwrap_or(u64::MAX);
        if layer.size.saturating_add(bytes.len() as u64) > limit {
            return Err(Error::resource_exhausted(format!(
                "the layer has more than {limit} bytes uncompressed, the most that is accepted of it"
            ))
            .hint("do not use this image unless it can be trusted; then raise the limit"));
        }
        layer.chunk(bytes, &self.stop)
    }
}

/// A layer as far as it is known.
struct Layer {
    hasher: Hasher,
    size: u64,
    parser: Parser,
    sink: Box<dyn Sink>,
    entries: u64,
    max_entries: u64,
    ended: bool,
}

impl Layer {
    fn chunk(&mut self, chunk: &Bytes, stop: &AtomicBool) -> Result<Outcome> {
        // Everything counts for the diff id, what comes after the archive's end too.
        self.hasher.update(chunk);
        self.size += chunk.len() as u64;
        let mut input = &chunk[..];
        while !self.ended {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::canceled("the layer was given up"));
            }
            match self.parser.next(&mut input)? {
                Event::NeedInput => break,
                Event::Entry(entry) => {
                    self.count()?;
                    let outcome = self.sink.entry(*entry)?;
                    if outcome != Outcome::Done {
                        return Ok(outcome);
                    }
                }
                Event::Data { offset, bytes } => self.sink.data(offset, chunk.slice_ref(bytes))?,
                Event::EndOfEntry => self.sink.end_of_entry()?,
                Event::End => self.ended = true,
            }
        }
        self.sink.flush()?;
        Ok(Outcome::Done)
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries <= self.max_entries {
            return Ok(());
        }
        Err(Error::resource_exhausted(format!("the layer has more than {} entries", self.max_entries))
            .hint("do not use this image unless it can be trusted; then raise the limit"))
    }

    fn finish(self) -> Result<Applied> {
        self.parser.finish()?;
        let diff_id = DiffId(self.hasher.finish());
        self.sink.finish(&diff_id)?;
        Ok(Applied::Complete { diff_id, size: self.size })
    }
}
