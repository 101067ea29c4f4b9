//! Content whose changes are published.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::{
    Commit, Expected, Info, IngestRef, Ingester, Provider, ReaderAt, SparseWriter, Status, Store, Writer,
};
use windlass_core::event::Event;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::{Descriptor, Digest, Listing, Result};

use super::Emitter;

pub(super) struct Emitting {
    inner: Arc<dyn Store>,
    emitter: Emitter,
}

impl Emitting {
    pub(super) fn new(inner: Arc<dyn Store>, emitter: Emitter) -> Self {
        Self { inner, emitter }
    }
}

#[async_trait]
impl Provider for Emitting {
    async fn reader(&self, descriptor: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        self.inner.reader(descriptor).await
    }
}

#[async_trait]
impl Ingester for Emitting {
    async fn writer(&self, ingest: &IngestRef, expected: Expected) -> Result<Box<dyn Writer>> {
        let inner = self.inner.writer(ingest, expected).await?;
        Ok(Box::new(EmittingWriter { inner, emitter: self.emitter.clone() }))
    }
}

#[async_trait]
impl Store for Emitting {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        self.inner.info(digest).await
    }

    fn list(&self, filters: &[Filter]) -> Listing<Info> {
        self.inner.list(filters)
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        self.inner.update(info, mask).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.inner.delete(digest).await?;
        self.emitter.emit(|| Event::ContentDelete { digest: digest.clone() });
        Ok(())
    }

    async fn status(&self, ingest: &IngestRef) -> Result<Status> {
        self.inner.status(ingest).await
    }

    async fn statuses(&self, filters: &[Filter]) -> Result<Vec<Status>> {
        self.inner.statuses(filters).await
    }

    async fn abort(&self, ingest: &IngestRef) -> Result<()> {
        self.inner.abort(ingest).await
    }
}

/// A writer whose commit is published.
struct EmittingWriter {
    inner: Box<dyn Writer>,
    emitter: Emitter,
}

#[async_trait]
impl Writer for EmittingWriter {
    async fn status(&mut self) -> Result<Status> {
        self.inner.status().await
    }

    async fn digest(&mut self) -> Result<Option<Digest>> {
        self.inner.digest().await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.inner.write(bytes).await
    }

    async fn write_file(&mut self, file: &Arc<File>, range: Range<u64>) -> Result<bool> {
        self.inner.write_file(file, range).await
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.inner.truncate(size).await
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<Info> {
        let info = self.inner.commit(commit).await?;
        self.emitter.emit(|| Event::ContentCreate { digest: info.digest.clone(), size: info.size });
        Ok(info)
    }

    async fn tail(&mut self) -> Result<Option<Arc<dyn ReaderAt>>> {
        self.inner.tail().await
    }

    async fn sparse(&mut self) -> Result<Option<Arc<dyn SparseWriter>>> {
        self.inner.sparse().await
    }
}
