//! Snapshots whose changes are published. Views have no event, as in containerd.

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::event::Event;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::snapshot::{Capabilities, Commit, Info, Key, Mount, Name, Snapshotter, Usage};
use windlass_core::{Labels, Listing, Result};

use super::Emitter;

/// Returns a snapshotter that publishes what is changed through it.
pub(super) fn emitting(inner: Arc<dyn Snapshotter>, name: String, emitter: Emitter) -> Arc<dyn Snapshotter> {
    Arc::new(Emitting { inner, name, emitter })
}

struct Emitting {
    inner: Arc<dyn Snapshotter>,
    name: String,
    emitter: Emitter,
}

#[async_trait]
impl Snapshotter for Emitting {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn ready(&self) -> Result<()> {
        self.inner.ready().await
    }

    async fn stat(&self, key: &Key) -> Result<Info> {
        self.inner.stat(key).await
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        self.inner.update(info, mask).await
    }

    async fn usage(&self, key: &Key) -> Result<Usage> {
        self.inner.usage(key).await
    }

    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>> {
        self.inner.mounts(key).await
    }

    async fn prepare(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        let mounts = self.inner.prepare(key, parent, labels).await?;
        self.emitter.emit(|| Event::SnapshotPrepare {
            snapshotter: self.name.clone(),
            key: key.clone(),
            parent: parent.cloned(),
        });
        Ok(mounts)
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.inner.view(key, parent, labels).await
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        self.inner.commit(name, key, commit).await?;
        self.emitter.emit(|| Event::SnapshotCommit {
            snapshotter: self.name.clone(),
            key: key.clone(),
            name: name.clone(),
        });
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        self.inner.remove(key).await?;
        self.emitter.emit(|| Event::SnapshotRemove { snapshotter: self.name.clone(), key: key.clone() });
        Ok(())
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        self.inner.walk(filters)
    }

    async fn cleanup(&self) -> Result<()> {
        self.inner.cleanup().await
    }
}
