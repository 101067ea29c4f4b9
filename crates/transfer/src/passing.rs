//! Layers that pass through: from the remote into a snapshot, hashed on the way, and never kept.
//!
//! There is one stream, taken as fast as the layer is applied. The hash is in memory, so a stream that breaks is continued
//! by the next one where it stopped. When what passed was not the layer and others can be asked for it, it passes once more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use tokio::sync::{Mutex, Semaphore};
use windlass_core::content::{Provider, ReaderAt};
use windlass_core::digest::Hasher;
use windlass_core::progress::{State, Task};
use windlass_core::remote::{ByteRange, Trouble};
use windlass_core::{ByteStream, Descriptor, Error, Kind, Result, ResultExt as _};

use crate::fetch::{Fetch, Patience};
use crate::parts::gather;

/// A layer that is to be fetched and not kept.
pub(crate) struct Passing {
    pub(crate) fetch: Fetch,
    pub(crate) descriptor: Descriptor,
    /// How many blobs are fetched at once.
    pub(crate) places: Arc<Semaphore>,
    /// How often what passed was not the layer, and others were asked.
    round: Arc<AtomicU64>,
    /// What passes, or was given up.
    last: std::sync::Mutex<Option<Pass>>,
}

impl Passing {
    /// Makes one of a layer; `places` are those for downloads.
    pub(crate) fn new(fetch: Fetch, descriptor: Descriptor, places: Arc<Semaphore>) -> Self {
        Self { fetch, descriptor, places, round: Arc::default(), last: std::sync::Mutex::default() }
    }

    /// Returns what tells whether it has to be applied again: it changes when that is so.
    pub(crate) fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire)
    }

    /// Tells whether what passed in a round is the layer; of one that was given up, the rest is fetched to find out.
    ///
    /// # Errors
    /// `DataLoss` when it is not, and nobody else can be asked.
    pub(crate) async fn verdict(&self, round: u64) -> Result<bool> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pass) = last.filter(|_| self.round() == round)
            && pass.is_open().await
        {
            let _place = self.places.acquire().await;
            match pass.verified().await {
                Err(error) if error.is(Kind::DataLoss) => return Err(error),
                verified => {
                    tracing::debug!(?verified, layer = %self.descriptor.digest, "what was given up was looked at");
                }
            }
        }
        Ok(self.round() == round)
    }

    /// Says that what passed is done with.
    pub(crate) fn is_settled(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Says that it need not be fetched.
    pub(crate) fn is_needless(&self) {
        self.fetch.progress.task(self.descriptor.ingest_ref().as_str()).set(State::Exists);
    }

    /// Begins to fetch it.
    pub(crate) fn begin(&self) -> Pass {
        let task = self.fetch.progress.task(self.descriptor.ingest_ref().as_str());
        task.set(State::Fetching { offset: 0, total: self.descriptor.size });
        let stream = Stream {
            at: 0,
            ready: VecDeque::new(),
            open: None,
            broken: None,
            patience: Patience::default(),
            hashed: Hashed::SoFar(Box::new(self.descriptor.digest.algorithm().hasher())),
            task,
        };
        let Self { fetch, descriptor, round, .. } = self;
        let (fetch, descriptor, round) = (fetch.clone(), descriptor.clone(), round.clone());
        let pass = Pass(Arc::new(Once { fetch, descriptor, round, stream: Mutex::new(stream) }));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass.clone());
        pass
    }
}

/// A layer that passes; it can be read once, from its first byte to its last.
#[derive(Clone)]
pub(crate) struct Pass(Arc<Once>);

struct Once {
    fetch: Fetch,
    descriptor: Descriptor,
    round: Arc<AtomicU64>,
    stream: Mutex<Stream>,
}

struct Stream {
    /// How far it was read.
    at: u64,
    /// What has come, was hashed, and not read yet.
    ready: VecDeque<Bytes>,
    open: Option<ByteStream>,
    /// What ended the stream behind the bytes that came.
    broken: Option<Error>,
    patience: Patience,
    hashed: Hashed,
    task: Task,
}

enum Hashed {
    SoFar(Box<Hasher>),
    /// The digest was the right one.
    Right,
    /// A hash that was being worked on when its reader went away.
    Lost,
    /// It is not the layer.
    Wrong,
}

impl Pass {
    /// Tells whether it is not known yet what passes here.
    async fn is_open(&self) -> bool {
        matches!(self.0.stream.lock().await.hashed, Hashed::SoFar(_))
    }

    /// Takes what was left over and checks the digest.
    ///
    /// # Errors
    /// `DataLoss` when it is another one.
    pub(crate) async fn verified(&self) -> Result<()> {
        let size = self.0.descriptor.size;
        loop {
            let at = self.0.stream.lock().await.at;
            if self.0.read_at(at, 1 << 20).await?.is_empty() && at >= size {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Provider for Pass {
    async fn reader(&self, _: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl ReaderAt for Pass {
    fn size(&self) -> u64 {
        self.0.descriptor.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.0.read_at(offset, length).await
    }
}

impl Once {
    /// Reads what comes next. The last bytes are given only when the digest of everything is right.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let mut stream = self.stream.lock().await;
        if offset != stream.at {
            return Err(Error::failed_precondition(format!(
                "{} passes once, and byte {offset} was asked for at byte {}",
                self.descriptor.digest, stream.at
            )));
        }
        let size = self.descriptor.size;
        if stream.ready.is_empty() && (stream.at < size || !matches!(stream.hashed, Hashed::Right)) {
            self.receive(&mut stream).await?;
        }
        let Some(mut bytes) = stream.ready.pop_front() else { return Ok(Bytes::new()) };
        let part = bytes.split_to(length.min(bytes.len()));
        if bytes.has_remaining() {
            stream.ready.push_front(bytes);
        }
        stream.at += part.len() as u64;
        Ok(part)
    }

    /// Waits for more bytes and hashes them; goes on with another stream when one breaks.
    async fn receive(&self, stream: &mut Stream) -> Result<()> {
        let Self { fetch, descriptor, .. } = self;
        if matches!(stream.hashed, Hashed::Wrong) {
            return Err(self.is_wrong());
        }
        let mut batch = Vec::new();
        while batch.is_empty() && stream.at < descriptor.size {
            match self.next(stream).await {
                Ok(next) => batch = next,
                // It was looked at, and is not the layer.
                Err(error) if matches!(stream.hashed, Hashed::Wrong) => return Err(error),
                Err(error) => {
                    stream.open = None;
                    let at = stream.at;
                    let borne = stream.patience.bear(&*fetch.fetcher, descriptor, &stream.task, at, error).await;
                    borne.context(|| format!("fetch {}", descriptor.ingest_ref()))?;
                }
            }
        }
        let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
        let came = stream.at + length;
        fetch.progress.add_downloaded(length);
        stream.task.set(State::Fetching { offset: came, total: descriptor.size });
        if came > descriptor.size {
            let found = format!("{came} bytes or more, {} are declared", descriptor.size);
            return Err(self.contradicts(stream, &found));
        }
        self.hash(stream, &batch).await?;
        if came == descriptor.size {
            let Hashed::SoFar(hasher) = std::mem::replace(&mut stream.hashed, Hashed::Right) else {
                return Err(Error::internal("a hash was lost"));
            };
            let found = hasher.finish();
            if found != descriptor.digest {
                return Err(self.contradicts(stream, &format!("the digest {found}")));
            }
            stream.task.set(State::Fetched);
        }
        stream.ready.extend(batch);
        Ok(())
    }

    /// Returns what comes next, which is more than nothing.
    async fn next(&self, stream: &mut Stream) -> Result<Vec<Bytes>> {
        if let Some(error) = stream.broken.take() {
            return Err(error);
        }
        if stream.open.is_none() {
            let opened = self.open(stream).await?;
            stream.open = Some(opened);
        }
        let (at, size) = (stream.at, self.descriptor.size);
        let Some(open) = &mut stream.open else { return Ok(Vec::new()) };
        let ended = || Error::unavailable(format!("the source ended after {at} of {size} bytes"));
        let first = open.next().await.ok_or_else(ended)??;
        // What broke behind these bytes is told when more are asked for.
        let (mut batch, error) = gather(first, open);
        stream.broken = error;
        batch.retain(|bytes| !bytes.is_empty());
        Ok(batch)
    }

    /// Opens the layer at an offset; what a remote that cannot seek sends before is skipped.
    async fn open(&self, stream: &mut Stream) -> Result<ByteStream> {
        let Self { fetch, descriptor, .. } = self;
        let at = stream.at;
        let body = fetch.fetcher.fetch(descriptor, ByteRange::from(at)).await?;
        if let Some(size) = body.size.filter(|size| *size != descriptor.size) {
            let found = format!("{size} bytes, {} are declared", descriptor.size);
            return Err(self.contradicts(stream, &found));
        }
        let Some(mut skip) = at.checked_sub(body.offset) else {
            return Err(Error::unavailable(format!("the source begins at byte {}, {at} was asked for", body.offset)));
        };
        let rest = body.stream.map(move |part| {
            part.map(|mut bytes| {
                let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                skip -= skipped as u64;
                bytes.split_off(skipped)
            })
        });
        Ok(rest.boxed())
    }

    async fn hash(&self, stream: &mut Stream, batch: &[Bytes]) -> Result<()> {
        let Hashed::SoFar(mut hasher) = std::mem::replace(&mut stream.hashed, Hashed::Lost) else {
            return Err(Error::canceled(format!("{} was given up", self.descriptor.digest)));
        };
        let parts = batch.to_vec();
        let hashed = tokio::task::spawn_blocking(move || {
            for bytes in parts {
                hasher.update(&bytes);
            }
            hasher
        });
        let hasher = hashed.await.map_err(|e| Error::internal("the hash of a layer panicked").source(e))?;
        stream.hashed = Hashed::SoFar(hasher);
        Ok(())
    }

    /// Says that it is not the layer, and has it pass once more if others can be asked for it.
    fn contradicts(&self, stream: &mut Stream, found: &str) -> Error {
        (stream.hashed, stream.open) = (Hashed::Wrong, None);
        let Self { fetch, descriptor, round, .. } = self;
        let error = Error::data_loss(format!("layer {} came with {found}", descriptor.digest))
            .coded("digest-mismatch")
            .hint("the registry, or something between it and this machine, changes content; nothing was kept");
        let reason = error.to_string();
        if let Err(error) = fetch.fetcher.pass_over(&descriptor.digest, Trouble::Wrong, error) {
            return error;
        }
        stream.task.set(State::Retrying { reason });
        round.fetch_add(1, Ordering::AcqRel);
        self.is_wrong()
    }

    fn is_wrong(&self) -> Error {
        Error::aborted(format!("what passed is not {}", self.descriptor.digest))
    }
}
