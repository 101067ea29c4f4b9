//! A snapshotter behind a socket that may be a daemon with garbage collection of its own.
//!
//! Nothing there refers to what is kept for this daemon, so everything that is made there is a root of its collection, by a label. A
//! label and not a lease: it comes with the snapshot in one call, so there is no moment in which the snapshot is unheld; it goes with
//! it; it has no end that somebody would have to put off; and a plain snapshotter, which has no leases, keeps it as any other label.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::gc::ROOT;
use windlass_core::snapshot::{Capabilities, Commit, Info, Key, Mount, Name, Snapshotter, Usage};
use windlass_core::{Kind, Labels, Listing, Result};

/// What the label says to those who look at it there.
const HOLDER: &str = "windlass";

/// Marks what it makes as roots, and shows it without the mark.
pub(super) struct Kept(Arc<dyn Snapshotter>);

impl Kept {
    pub(super) fn new(behind: Arc<dyn Snapshotter>) -> Self {
        Self(behind)
    }
}

fn marked(labels: Labels) -> Labels {
    labels.with(ROOT, HOLDER)
}

fn shown(mut info: Info) -> Info {
    if info.labels.get(ROOT) == Some(HOLDER) {
        info.labels.remove(ROOT);
    }
    info
}

#[async_trait]
impl Snapshotter for Kept {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn ready(&self) -> Result<()> {
        self.0.ready().await
    }

    async fn stat(&self, key: &Key) -> Result<Info> {
        self.0.stat(key).await.map(shown)
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let info = Info { labels: marked(info.labels.clone()), ..info.clone() };
        self.0.update(&info, mask).await.map(shown)
    }

    async fn usage(&self, key: &Key) -> Result<Usage> {
        self.0.usage(key).await
    }

    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>> {
        self.0.mounts(key).await
    }

    async fn prepare(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.0.prepare(key, parent, marked(labels)).await
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.0.view(key, parent, marked(labels)).await
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        let commit = Commit { labels: marked(commit.labels), ..commit };
        self.0.commit(name, key, commit).await
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        self.0.remove(key).await
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        self.0.walk(filters).map_ok(shown).boxed()
    }

    async fn cleanup(&self) -> Result<()> {
        match self.0.cleanup().await {
            // containerd's own daemon cleans up by itself, and cannot be asked to.
            Err(error) if error.is(Kind::Unimplemented) => Ok(()),
            cleaned => cleaned,
        }
    }
}
