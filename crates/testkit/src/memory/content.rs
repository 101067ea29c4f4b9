//! Content in memory.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use windlass_core::content::{
    Commit, Expected, Info, IngestRef, Ingester, Provider, Ranges, ReaderAt, SparseWriter, Status, Store, Writer,
};
use windlass_core::digest::Algorithm;
use windlass_core::field::FieldMask;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::lease::ResourceKind;
use windlass_core::{Descriptor, Digest, Error, Listing, Result};

use super::behind::{Follow, Sparse, Tail};
use super::space::{Blob, Ingest, Scoped, Space, relabel};

/// A content store that keeps its bytes in memory.
#[derive(Clone, Default)]
pub struct Content(pub(super) Scoped);

fn absent(digest: &Digest) -> Error {
    Error::not_found(format!("content {digest} is not here"))
}

pub(super) fn absent_ingest(ingest: &IngestRef) -> Error {
    Error::not_found(format!("ingest {ingest} is not here"))
}

struct Reader(Bytes);

#[async_trait]
impl ReaderAt for Reader {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let end = start.saturating_add(length).min(self.0.len());
        Ok(self.0.slice(start..end))
    }
}

#[async_trait]
impl Provider for Content {
    async fn reader(&self, descriptor: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        let space = self.0.lock();
        let blob = space.blobs.get(&descriptor.digest).ok_or_else(|| absent(&descriptor.digest))?;
        Ok(Box::new(Reader(blob.bytes.clone())))
    }
}

#[async_trait]
impl Ingester for Content {
    async fn writer(&self, ingest: &IngestRef, expected: Expected) -> Result<Box<dyn Writer>> {
        let mut space = self.0.lock();
        if let Some(there) = space.ingests.get(ingest)
            && let Some(since) = there.locked
        {
            let (age, offset) = (since.elapsed().as_secs(), there.status.offset);
            return Err(Error::unavailable(format!("ingest {ingest} has a writer since {age} s, at byte {offset}")));
        }
        if let Some(digest) = &expected.digest
            && space.blobs.contains_key(digest)
        {
            self.0.hold(&mut space, ResourceKind::Content, digest.to_string())?;
            return Err(Error::already_exists(format!("content {digest} is here")));
        }
        self.0.hold(&mut space, ResourceKind::Ingest, ingest.as_str())?;
        let now = SystemTime::now();
        let there = space.ingests.entry(ingest.clone()).or_insert_with(|| Ingest {
            status: Status {
                ingest: ingest.clone(),
                offset: 0,
                total: expected.size,
                expected: expected.digest.clone(),
                started_at: now,
                updated_at: now,
            },
            bytes: Vec::new(),
            here: Ranges::default(),
            follow: Arc::default(),
            locked: None,
        });
        declare(&mut there.status, &expected)?;
        there.locked = Some(Instant::now());
        there.follow = Arc::default();
        Ok(Box::new(Ingesting { content: self.clone(), ingest: ingest.clone(), sparse: None }))
    }
}

/// Adds what is declared to what was; a contradiction is refused.
fn declare(status: &mut Status, expected: &Expected) -> Result<()> {
    let contradicts = |was: &str, is: &str| {
        Error::failed_precondition(format!("ingest {} was declared as {was}, not as {is}", status.ingest))
    };
    if let (Some(was), Some(is)) = (&status.expected, &expected.digest)
        && was != is
    {
        return Err(contradicts(&was.to_string(), &is.to_string()));
    }
    if let (Some(was), Some(is)) = (status.total, expected.size)
        && was != is
    {
        return Err(contradicts(&format!("{was} bytes"), &format!("{is} bytes")));
    }
    if let Some(size) = expected.size.filter(|size| *size < status.offset) {
        return Err(contradicts(&format!("{} bytes or more", status.offset), &format!("{size} bytes")));
    }
    status.expected = status.expected.take().or_else(|| expected.digest.clone());
    status.total = status.total.or(expected.size);
    Ok(())
}

/// The one writer of an ingest.
struct Ingesting {
    content: Content,
    ingest: IngestRef,
    /// Whether it is written at several places, and whether that is still allowed.
    sparse: Option<Arc<Follow>>,
}

impl Ingesting {
    fn check_appends(&self) -> Result<()> {
        match self.sparse {
            Some(_) => Err(Error::failed_precondition(format!("ingest {} is written at several places", self.ingest))),
            None => Ok(()),
        }
    }
}

impl Drop for Ingesting {
    fn drop(&mut self) {
        if let Some(there) = self.content.0.lock().ingests.get_mut(&self.ingest) {
            assert!(there.locked.is_some(), "the writer of ingest {} had lost its lock", self.ingest);
            there.locked = None;
            there.follow.end(None);
        }
        if let Some(alive) = &self.sparse {
            alive.end(None);
        }
    }
}

#[async_trait]
impl Writer for Ingesting {
    async fn status(&mut self) -> Result<Status> {
        self.content.status(&self.ingest).await
    }

    async fn digest(&mut self) -> Result<Option<Digest>> {
        let space = self.content.0.lock();
        let there = space.ingests.get(&self.ingest).ok_or_else(|| absent_ingest(&self.ingest))?;
        let algorithm = there.status.expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let here = usize::try_from(there.status.offset).ok().and_then(|offset| there.bytes.get(..offset));
        Ok(Some(algorithm.digest(here.unwrap_or_default())))
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.check_appends()?;
        let mut space = self.content.0.lock();
        let there = space.ingests.get_mut(&self.ingest).ok_or_else(|| absent_ingest(&self.ingest))?;
        let end = there.status.offset + bytes.len() as u64;
        if let Some(total) = there.status.total
            && end > total
        {
            return Err(Error::out_of_range(format!("ingest {} would have {end} bytes, not {total}", self.ingest)));
        }
        let offset = there.status.offset;
        there.cut(offset);
        there.put(offset, &bytes);
        Ok(())
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.check_appends()?;
        let mut space = self.content.0.lock();
        let there = space.ingests.get_mut(&self.ingest).ok_or_else(|| absent_ingest(&self.ingest))?;
        if size > there.status.offset {
            let offset = there.status.offset;
            return Err(Error::out_of_range(format!("ingest {} has {offset} bytes, not {size}", self.ingest)));
        }
        if size < there.here.end() {
            there.cut(size);
            std::mem::take(&mut there.follow).end(None);
        }
        Ok(())
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<Info> {
        commit.labels.validate()?;
        let mut space = self.content.0.lock();
        let mut there = space.ingests.remove(&self.ingest).ok_or_else(|| absent_ingest(&self.ingest))?;
        let size = there.status.offset;
        if there.here.end() > size || self.sparse.is_some() && there.status.total != Some(size) {
            space.ingests.insert(self.ingest.clone(), there);
            return Err(Error::failed_precondition(format!("ingest {} has a gap at byte {size}", self.ingest)));
        }
        let bytes = Bytes::from(std::mem::take(&mut there.bytes));
        // Whoever reads behind it learns that it is whole, or else that it has come to nothing.
        let ended = Ended(there.follow.clone());
        self.content.0.release(&mut space, ResourceKind::Ingest, self.ingest.as_str());
        let digest = verify(&there.status, &bytes, &commit.expected)?;
        there.follow.end(Some(bytes.clone()));
        drop(ended);
        self.content.0.hold(&mut space, ResourceKind::Content, digest.to_string())?;
        if space.blobs.contains_key(&digest) {
            return Err(Error::already_exists(format!("content {digest} is here")));
        }
        let now = SystemTime::now();
        let info = Info { digest: digest.clone(), size, created_at: now, updated_at: now, labels: commit.labels };
        space.blobs.insert(digest, Blob { info: info.clone(), bytes });
        Ok(info)
    }

    async fn tail(&mut self) -> Result<Option<Arc<dyn ReaderAt>>> {
        let space = self.content.0.lock();
        let there = space.ingests.get(&self.ingest).ok_or_else(|| absent_ingest(&self.ingest))?;
        let Some(size) = there.status.total else { return Ok(None) };
        let (content, ingest, follow) = (self.content.clone(), self.ingest.clone(), there.follow.clone());
        Ok(Some(Arc::new(Tail { content, ingest, follow, size })))
    }

    async fn sparse(&mut self) -> Result<Option<Arc<dyn SparseWriter>>> {
        let Some(size) = self.status().await?.total else { return Ok(None) };
        let alive = self.sparse.get_or_insert_default().clone();
        let (content, ingest) = (self.content.clone(), self.ingest.clone());
        Ok(Some(Arc::new(Sparse { content, ingest, alive, size })))
    }
}

/// Ends what reads behind a writer when its commit fails.
struct Ended(Arc<Follow>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

/// Compares an ingest with everything that was declared and returns the digest that it is addressed by.
fn verify(status: &Status, bytes: &[u8], late: &Expected) -> Result<Digest> {
    let name = &status.ingest;
    let size = bytes.len() as u64;
    for expected in [status.total, late.size].into_iter().flatten() {
        if expected != size {
            return Err(Error::failed_precondition(format!("ingest {name} has {size} bytes, not {expected}")));
        }
    }
    let declared = [&late.digest, &status.expected];
    for expected in declared.into_iter().flatten() {
        let found = expected.algorithm().digest(bytes);
        if found != *expected {
            return Err(Error::data_loss(format!("ingest {name} has digest {found}, not {expected}")));
        }
    }
    let address = declared.into_iter().flatten().next().cloned();
    Ok(address.unwrap_or_else(|| Algorithm::Sha256.digest(bytes)))
}

#[async_trait]
impl Store for Content {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let space = self.0.lock();
        space.blobs.get(digest).map(|blob| blob.info.clone()).ok_or_else(|| absent(digest))
    }

    fn list(&self, filters: &[Filter]) -> Listing<Info> {
        let matching = |space: &Space| -> Vec<_> {
            let infos = space.blobs.values().map(|blob| &blob.info);
            infos.filter(|info| any_matches(filters, *info)).cloned().map(Ok).collect()
        };
        futures::stream::iter(matching(&self.0.lock())).boxed()
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let mut space = self.0.lock();
        let blob = space.blobs.get_mut(&info.digest).ok_or_else(|| absent(&info.digest))?;
        blob.info.labels = relabel(&blob.info.labels, &info.labels, mask)?;
        blob.info.updated_at = SystemTime::now();
        Ok(blob.info.clone())
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.0.lock().blobs.remove(digest).map(drop).ok_or_else(|| absent(digest))
    }

    async fn status(&self, ingest: &IngestRef) -> Result<Status> {
        let space = self.0.lock();
        space.ingests.get(ingest).map(|there| there.status.clone()).ok_or_else(|| absent_ingest(ingest))
    }

    async fn statuses(&self, filters: &[Filter]) -> Result<Vec<Status>> {
        let space = self.0.lock();
        let statuses = space.ingests.values().map(|there| &there.status);
        Ok(statuses.filter(|status| any_matches(filters, *status)).cloned().collect())
    }

    async fn abort(&self, ingest: &IngestRef) -> Result<()> {
        let mut space = self.0.lock();
        let there = space.ingests.get(ingest).ok_or_else(|| absent_ingest(ingest))?;
        if there.locked.is_some() {
            return Err(Error::unavailable(format!("ingest {ingest} is being written")));
        }
        space.ingests.remove(ingest);
        self.0.release(&mut space, ResourceKind::Ingest, ingest.as_str());
        Ok(())
    }
}
