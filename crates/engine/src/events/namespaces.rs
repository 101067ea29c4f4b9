//! Namespaces whose changes are published, each in itself.

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::event::{Envelope, Event};
use windlass_core::namespace::Store;
use windlass_core::{Kind, Labels, Namespace, Result};

use super::Exchange;

pub(super) struct Emitting {
    inner: Arc<dyn Store>,
    exchange: Exchange,
}

impl Emitting {
    pub(super) fn new(inner: Arc<dyn Store>, exchange: Exchange) -> Self {
        Self { inner, exchange }
    }

    fn emit(&self, namespace: &Namespace, event: impl FnOnce() -> Event) {
        self.exchange.send(|| Envelope::now(namespace.clone(), event()));
    }
}

#[async_trait]
impl Store for Emitting {
    async fn create(&self, namespace: &Namespace, labels: Labels) -> Result<()> {
        self.inner.create(namespace, labels.clone()).await?;
        self.emit(namespace, || Event::NamespaceCreate { name: namespace.clone(), labels });
        Ok(())
    }

    async fn labels(&self, namespace: &Namespace) -> Result<Labels> {
        self.inner.labels(namespace).await
    }

    async fn set_label(&self, namespace: &Namespace, key: &str, value: &str) -> Result<()> {
        self.inner.set_label(namespace, key, value).await?;
        if self.exchange.subscribers() > 0 {
            match self.inner.labels(namespace).await {
                Ok(labels) => self.emit(namespace, || Event::NamespaceUpdate { name: namespace.clone(), labels }),
                // Deleted since: then there is that event.
                Err(error) if error.is(Kind::NotFound) => {}
                Err(error) => tracing::warn!(%error, "an update of namespace {namespace} is not published"),
            }
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Namespace>> {
        self.inner.list().await
    }

    async fn delete(&self, namespace: &Namespace) -> Result<()> {
        self.inner.delete(namespace).await?;
        self.emit(namespace, || Event::NamespaceDelete { name: namespace.clone() });
        Ok(())
    }
}
