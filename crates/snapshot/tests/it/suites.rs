//! The conformance suite of the trait, on both snapshotters.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::snapshot::{Capabilities, Commit, Info, Key, Mount, Name, Snapshotter, Usage};
use windlass_core::{Labels, Listing, Result};
use windlass_snapshot::native::Native;
use windlass_snapshot::overlay::Overlay;

windlass_testkit::snapshotter_suite!(
    overlayfs,
    async |root: &Path| Arc::new(Overlay::open(root).await.unwrap()),
    persistent
);
windlass_testkit::snapshotter_suite!(
    native_copies,
    async |root: &Path| Arc::new(Added(Native::open(root).await.unwrap())),
    persistent
);

/// A native snapshotter whose usage is what was added to the parent, as the suite has it. The snapshotter itself says what
/// removing the snapshot would free, and that is the whole copy.
struct Added(Native);

#[async_trait]
impl Snapshotter for Added {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn stat(&self, key: &Key) -> Result<Info> {
        self.0.stat(key).await
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        self.0.update(info, mask).await
    }

    async fn usage(&self, key: &Key) -> Result<Usage> {
        let own = self.0.usage(key).await?;
        let Some(parent) = self.0.stat(key).await?.parent else { return Ok(own) };
        let parent = self.0.usage(parent.as_key()).await?;
        Ok(Usage { inodes: own.inodes.saturating_sub(parent.inodes), bytes: own.bytes.saturating_sub(parent.bytes) })
    }

    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>> {
        self.0.mounts(key).await
    }

    async fn prepare(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.0.prepare(key, parent, labels).await
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.0.view(key, parent, labels).await
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        self.0.commit(name, key, commit).await
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        self.0.remove(key).await
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        self.0.walk(filters)
    }

    async fn cleanup(&self) -> Result<()> {
        self.0.cleanup().await
    }
}
