//! Containers whose changes are published.

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::container::{Container, Store};
use windlass_core::event::Event;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::{Listing, Result};

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
impl Store for Emitting {
    async fn get(&self, id: &str) -> Result<Container> {
        self.inner.get(id).await
    }

    fn list(&self, filters: &[Filter]) -> Listing<Container> {
        self.inner.list(filters)
    }

    async fn create(&self, container: &Container) -> Result<Container> {
        let created = self.inner.create(container).await?;
        self.emitter.emit(|| Event::ContainerCreate {
            id: created.id.clone(),
            image: created.image.clone(),
            runtime: created.runtime.clone(),
        });
        Ok(created)
    }

    async fn update(&self, container: &Container, mask: &FieldMask) -> Result<Container> {
        let updated = self.inner.update(container, mask).await?;
        self.emitter.emit(|| Event::ContainerUpdate {
            id: updated.id.clone(),
            image: updated.image.clone(),
            labels: updated.labels.clone(),
            snapshot_key: updated.snapshot_key.clone(),
        });
        Ok(updated)
    }

    async fn delete(&self, id: &str) -> Result<()> {
        self.inner.delete(id).await?;
        self.emitter.emit(|| Event::ContainerDelete { id: id.to_owned() });
        Ok(())
    }
}
