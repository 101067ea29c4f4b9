//! Committed blobs in a content store of somebody else, which may be a daemon with garbage collection of its own.
//!
//! Nothing there refers to what is kept for us, so every blob is a root of its collection, by a label. It comes with the blob
//! in one call, so there is no moment in which the blob is unheld; it goes with it, and has no end that somebody would have to
//! put off. What has not our label there is not ours, and is not touched.
//!
//! That a commit there outlives a power cut once it is answered is the other store's promise: ours and containerd sync the bytes
//! before. A blob that was lost there all the same is found by a check.

use std::fmt::{self, Display};
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::runtime::Handle;
use windlass_core::content::{Commit, Expected, Info, ProviderExt as _, ReaderAt, Source, copy};
use windlass_core::field::FieldMask;
use windlass_core::gc::ROOT;
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, MediaType, Result};

use super::depot::Old;
use crate::elsewhere::Elsewhere;

/// What the label says to those who look at it there.
const HOLDER: &str = "windlass";
/// How often a blob is brought at most: whoever wrote it there last may be about to let go of it, and what was left of it may
/// turn out to be wrong.
const TRIES: u32 = 5;
/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(100);

/// The blobs there. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Behind {
    elsewhere: Elsewhere,
    /// Where those wait who block.
    runtime: Handle,
}

impl Behind {
    pub(crate) fn new(elsewhere: Elsewhere, runtime: Handle) -> Self {
        Self { elsewhere, runtime }
    }

    /// Returns the size of a blob; `None` when it is not there, or not ours: then it is brought, and is ours.
    pub(crate) async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let info = self.ours(digest).await.map_err(|error| self.named(error))?;
        Ok(info.map(|info| info.size))
    }

    /// Opens a blob. It cannot be read on when it is deleted there meanwhile.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn reader(&self, digest: &Digest) -> Result<Box<dyn ReaderAt>> {
        let opened = self.elsewhere.content().reader(&blob(digest, 0)).await;
        let reader = opened.map_err(|error| self.named(error))?;
        Ok(Box::new(Reader { behind: self.clone(), reader }))
    }

    /// Brings bytes there that are verified; that they are there already is success.
    ///
    /// # Errors
    /// `ResourceExhausted` when there is no room; `Aborted` for everything else, whatever the store said: nothing is wrong with
    /// the bytes.
    pub(super) async fn bring(
        &self,
        digest: &Digest,
        size: u64,
        source: &mut (dyn Source + '_),
        old: Old,
    ) -> Result<()> {
        let blob = blob(digest, size);
        let bring = async {
            if old == Old::Wrong {
                gone(self.elsewhere.content().delete(digest).await)?;
            }
            self.deliver(&blob, source).await?;
            // Bytes that were deleted may be there until they are collected, and are taken over then.
            if old == Old::Wrong { self.elsewhere.content().verify(&blob).await } else { Ok(()) }
        };
        bring.await.map_err(|error: Error| self.refused(&error).context(format!("bring blob {digest} there")))
    }

    async fn deliver(&self, blob: &Descriptor, source: &mut (dyn Source + '_)) -> Result<()> {
        let mut left = TRIES;
        loop {
            left -= 1;
            match self.deliver_once(blob, source).await {
                Err(error)
                    if left > 0 && matches!(error.kind(), Kind::Unavailable | Kind::NotFound | Kind::DataLoss) =>
                {
                    tracing::debug!(%error, "{} is brought once more to {}", blob.digest, self.elsewhere);
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn deliver_once(&self, blob: &Descriptor, source: &mut (dyn Source + '_)) -> Result<()> {
        let there = self.elsewhere.content();
        let mut writer = match there.writer(&blob.ingest_ref(), Expected::from(blob)).await {
            Err(error) if error.is(Kind::AlreadyExists) => {
                return self.hold(there.info(&blob.digest).await?, blob).await;
            }
            opened => opened?,
        };
        copy(&mut *writer, source, None).await?;
        match writer.commit(Commit { labels: mark(), ..Commit::default() }).await {
            Err(error) if error.is(Kind::AlreadyExists) => self.hold(there.info(&blob.digest).await?, blob).await,
            committed => self.hold(committed?, blob).await,
        }
    }

    /// Sees to it that a blob which is there is the right one, and has our label.
    async fn hold(&self, info: Info, blob: &Descriptor) -> Result<()> {
        if info.size != blob.size {
            let (digest, size) = (&blob.digest, blob.size);
            return Err(Error::data_loss(format!("blob {digest} has {} bytes there instead of {size}", info.size)));
        }
        if is_ours(&info) {
            return Ok(());
        }
        let mask = FieldMask::parse([format!("labels.{ROOT}").as_str()])?;
        let labels = info.labels.clone().with(ROOT, HOLDER);
        self.elsewhere.content().update(&Info { labels, ..info }, &mask).await.map(drop)
    }

    /// Removes a blob and returns how many bytes that freed; `None` when it was not there, or not ours.
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<Option<u64>> {
        let remove = async {
            let Some(info) = self.ours(digest).await? else { return Ok(None) };
            gone(self.elsewhere.content().delete(digest).await)?;
            Ok(Some(info.size))
        };
        remove.await.map_err(|error| self.named(error))
    }

    async fn ours(&self, digest: &Digest) -> Result<Option<Info>> {
        match self.elsewhere.content().info(digest).await {
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            info => Ok(Some(info?).filter(is_ours)),
        }
    }

    /// Visits every blob that is ours, with its size. Blocking.
    pub(crate) fn each(&self, mut visit: impl FnMut(Digest, u64)) -> Result<()> {
        let list = async {
            let mut infos = self.elsewhere.content().list(&[]);
            while let Some(info) = infos.try_next().await? {
                if is_ours(&info) {
                    visit(info.digest, info.size);
                }
            }
            Ok(())
        };
        self.wait(list).map_err(|error: Error| self.named(error))
    }

    /// Waits for something on this thread, which may block.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Names the store in an error of it.
    fn named(&self, error: Error) -> Error {
        match error.kind() {
            Kind::Unavailable | Kind::DeadlineExceeded | Kind::Canceled | Kind::Unknown => self.refused(&error),
            _ => error.context(self.to_string()),
        }
    }

    /// Makes an error that says nothing of the bytes. It is not `Unavailable`: somebody who is told that of an ingest takes it
    /// for written by somebody else, and waits.
    fn refused(&self, error: &Error) -> Error {
        let kind = if error.is(Kind::ResourceExhausted) { error.kind() } else { Kind::Aborted };
        let address = self.elsewhere.address().display();
        Error::new(kind, format!("{self}: {error}"))
            .hint(format!("see to who answers at {address}, then do it again: it continues with what was brought"))
    }
}

impl Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.elsewhere.fmt(f)
    }
}

fn blob(digest: &Digest, size: u64) -> Descriptor {
    Descriptor::new(MediaType::OCTET_STREAM, digest.clone(), size)
}

fn mark() -> Labels {
    Labels::new().with(ROOT, HOLDER)
}

fn is_ours(info: &Info) -> bool {
    info.labels.get(ROOT) == Some(HOLDER)
}

fn gone(deleted: Result<()>) -> Result<()> {
    match deleted {
        Err(error) if error.is(Kind::NotFound) => Ok(()),
        deleted => deleted,
    }
}

/// A blob there, opened for reading.
struct Reader {
    behind: Behind,
    reader: Box<dyn ReaderAt>,
}

#[async_trait]
impl ReaderAt for Reader {
    fn size(&self) -> u64 {
        self.reader.size()
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.reader.read_at(offset, length).await.map_err(|error| self.behind.named(error))
    }
}
