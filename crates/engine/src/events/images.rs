//! Images whose changes are published.

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::event::Event;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::gc::Collector;
use windlass_core::image::{Deletion, Image, Name, Store};
use windlass_core::{Listing, Result};

use super::Emitter;

pub(super) struct Emitting {
    inner: Arc<dyn Store>,
    collector: Option<Arc<dyn Collector>>,
    emitter: Emitter,
}

impl Emitting {
    pub(super) fn new(inner: Arc<dyn Store>, collector: Option<Arc<dyn Collector>>, emitter: Emitter) -> Self {
        Self { inner, collector, emitter }
    }
}

#[async_trait]
impl Store for Emitting {
    async fn get(&self, name: &Name) -> Result<Image> {
        self.inner.get(name).await
    }

    fn list(&self, filters: &[Filter]) -> Listing<Image> {
        self.inner.list(filters)
    }

    async fn create(&self, image: &Image) -> Result<Image> {
        let image = self.inner.create(image).await?;
        self.emitter.emit(|| Event::ImageCreate { name: image.name.clone(), labels: image.labels.clone() });
        Ok(image)
    }

    async fn update(&self, image: &Image, mask: &FieldMask) -> Result<Image> {
        let image = self.inner.update(image, mask).await?;
        self.emitter.emit(|| Event::ImageUpdate { name: image.name.clone(), labels: image.labels.clone() });
        Ok(image)
    }

    async fn delete(&self, name: &Name, deletion: Deletion) -> Result<()> {
        let (own, collector) = match (&self.collector, deletion) {
            (Some(collector), Deletion::Synchronous) => (Deletion::Background, Some(collector)),
            (_, deletion) => (deletion, None),
        };
        self.inner.delete(name, own).await?;
        self.emitter.emit(|| Event::ImageDelete { name: name.clone() });
        // Afterwards, so that what goes with the image is published after it.
        if let Some(collector) = collector {
            collector.collect().await?;
        }
        Ok(())
    }
}
