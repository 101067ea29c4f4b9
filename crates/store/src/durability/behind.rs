//! A snapshotter that remembers what was done, so that its state at any moment can be made again. What it is told is
//! durable when it returns: whether the real ones keep that promise is tested where they are.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::snapshot::{Capabilities, Commit, Info, Key, Mount, Name, Snapshotter, Usage};
use windlass_core::{Labels, Listing, Result};
use windlass_testkit::memory;

/// Where a snapshotter has its directories, in a root.
pub(super) const DIRECTORY: &str = "snapshots";

/// One change of a snapshotter.
#[derive(Debug, Clone)]
enum Change {
    Prepare(Key, Option<Name>, Labels),
    View(Key, Option<Name>, Labels),
    Commit(Name, Key, Commit),
    Remove(Key),
}

/// The changes, each with the moment when it was done.
#[derive(Clone)]
pub(super) struct Behind {
    inner: memory::Snapshotter,
    changes: Arc<Mutex<Vec<(usize, Change)>>>,
    now: Arc<dyn Fn() -> usize + Send + Sync>,
}

/// Makes a snapshotter in memory with its directories below a root.
pub(super) fn empty(root: &Path) -> memory::Snapshotter {
    let directory = root.join(DIRECTORY);
    std::fs::create_dir_all(&directory).unwrap();
    memory::Snapshotter::new(&directory, Capabilities { rebase: true })
}

impl Behind {
    /// Begins without snapshots; `now` tells moments.
    pub(super) fn new(root: &Path, now: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self { inner: empty(root), changes: Arc::default(), now: Arc::new(now) }
    }

    /// Makes the snapshotter as it was at a moment, below another root.
    pub(super) async fn at(&self, moment: usize, root: &Path) -> memory::Snapshotter {
        let there = empty(root);
        let changes = self.changes.lock().unwrap().clone();
        for (_, change) in changes.into_iter().filter(|(when, _)| *when <= moment) {
            match change {
                Change::Prepare(key, parent, labels) => {
                    drop(there.prepare(&key, parent.as_ref(), labels).await.unwrap());
                }
                Change::View(key, parent, labels) => drop(there.view(&key, parent.as_ref(), labels).await.unwrap()),
                Change::Commit(name, key, commit) => there.commit(&name, &key, commit).await.unwrap(),
                Change::Remove(key) => there.remove(&key).await.unwrap(),
            }
        }
        there
    }

    fn note(&self, change: Change) {
        self.changes.lock().unwrap().push(((self.now)(), change));
    }
}

#[async_trait]
impl Snapshotter for Behind {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
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
        let mounts = self.inner.prepare(key, parent, labels.clone()).await?;
        self.note(Change::Prepare(key.clone(), parent.cloned(), labels));
        Ok(mounts)
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        let mounts = self.inner.view(key, parent, labels.clone()).await?;
        self.note(Change::View(key.clone(), parent.cloned(), labels));
        Ok(mounts)
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        self.inner.commit(name, key, commit.clone()).await?;
        self.note(Change::Commit(name.clone(), key.clone(), commit));
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        self.inner.remove(key).await?;
        self.note(Change::Remove(key.clone()));
        Ok(())
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        self.inner.walk(filters)
    }

    async fn cleanup(&self) -> Result<()> {
        self.inner.cleanup().await
    }
}
