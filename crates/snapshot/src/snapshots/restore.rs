//! Getting the tree of a committed snapshot back: a new one takes the place of what is damaged or lost, under the name that
//! others stand on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use windlass_core::Listing;
use windlass_core::error::{Error, Result, ResultExt as _};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::label::Labels;
use windlass_core::snapshot::{
    Capabilities, Commit, Info, Key, Mount, Name, Snapshotter, TARGET_LABEL, UNPACK_LABEL, Usage,
};

use super::{Inner, Layout, Snapshots};
use crate::in_use;

/// A snapshotter for whoever unpacks layers again: what is committed takes the place of the snapshot of that name, and the
/// names are those that the unpacker knows.
pub struct Restorer<L> {
    snapshots: Snapshots<L>,
    /// The names here, by those that the unpacker knows.
    names: BTreeMap<Name, Name>,
}

impl<L: Layout> Snapshots<L> {
    /// Returns a snapshotter that restores: `names` are the names here, by those that the unpacker uses.
    pub fn restorer(&self, names: BTreeMap<Name, Name>) -> Restorer<L> {
        Restorer { snapshots: self.clone(), names }
    }
}

impl<L: Layout> Inner<L> {
    /// Refuses when somebody has the snapshot mounted.
    fn can_restore(&self, name: &Name) -> Result<()> {
        match self.records.find(name.as_key())? {
            Some(there) => in_use::check(self.directories.root(), there.id),
            None => Ok(()),
        }
    }

    /// The durable order:
    ///
    /// 1. adapt the new tree to the parent  2. sync it, and measure it  3. record it as that of `name`, in place of
    ///    the old one  4. delete the old directory
    ///
    /// A crash before 3 leaves things as they were, and an active snapshot; after it a directory without a record, which a
    /// cleanup deletes.
    fn restore(&self, name: &Name, key: &Key, parent: Option<&Name>) -> Result<()> {
        self.can_restore(name)?;
        let new = self.records.get(key)?;
        let directory = self.existing(new.id, &new.info)?;
        if let Some(parent) = parent.filter(|_| L::REBASE && new.info.parent.is_none()) {
            let parent = self.records.get(parent.as_key())?;
            let parent: PathBuf = self.existing(parent.id, &parent.info)?;
            self.layout.rebase(&directory, &parent, new.info.created_at)?;
        }
        self.steps.done("adapt")?; // 1.
        let usage = self.sync(&directory)?;
        self.steps.done("sync")?; // 2.
        let old = self.records.replace(name, key, parent, usage)?;
        self.steps.done("record")?; // 3.
        let Some(old) = old else { return Ok(()) };
        let deleted = self.directories.set_aside(old).and_then(|()| self.directories.delete_removed(old));
        if let Err(error) = deleted {
            tracing::warn!(%name, id = old, %error, "the directory of a damaged snapshot stays until the next cleanup");
        }
        self.steps.done("delete") // 4.
    }
}

impl<L> Restorer<L> {
    fn name(&self, known: &Name) -> Result<Name> {
        self.names
            .get(known)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("snapshot {known} has no name to be restored under")))
    }
}

#[async_trait]
impl<L: Layout> Snapshotter for Restorer<L> {
    fn capabilities(&self) -> Capabilities {
        self.snapshots.capabilities()
    }

    async fn stat(&self, key: &Key) -> Result<Info> {
        self.snapshots.stat(key).await
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        self.snapshots.update(info, mask).await
    }

    async fn usage(&self, key: &Key) -> Result<Usage> {
        self.snapshots.usage(key).await
    }

    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>> {
        self.snapshots.mounts(key).await
    }

    async fn prepare(&self, key: &Key, parent: Option<&Name>, mut labels: Labels) -> Result<Vec<Mount>> {
        // Before anything is unpacked: what is in use cannot be replaced.
        if let Some(target) = labels.remove(TARGET_LABEL) {
            let name = self.name(&target.parse()?)?;
            self.snapshots.run(move |inner| inner.can_restore(&name)).await?;
            labels.set(UNPACK_LABEL, "yes");
        }
        let parent = parent.map(|parent| self.name(parent)).transpose()?;
        self.snapshots.prepare(key, parent.as_ref(), labels).await
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        let parent = parent.map(|parent| self.name(parent)).transpose()?;
        self.snapshots.view(key, parent.as_ref(), labels).await
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        let parent = commit.parent.as_ref().map(|parent| self.name(parent)).transpose()?;
        let (inner_name, key) = (self.name(name)?, key.clone());
        let restore = move |inner: &Inner<L>| inner.restore(&inner_name, &key, parent.as_ref());
        self.snapshots.run(restore).await.context(|| format!("restore snapshot {name}"))
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        self.snapshots.remove(key).await
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        self.snapshots.walk(filters)
    }

    async fn cleanup(&self) -> Result<()> {
        self.snapshots.cleanup().await
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::overlay::Overlay;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    /// Begins with `top` on `base`, in directories 1 and 2, and a new tree for `base` in 3.
    async fn begun(directory: &Path) -> Overlay {
        let snapshots = Overlay::open(directory).await.unwrap();
        for (own, parent) in [("base", None), ("top", Some(name("base")))] {
            snapshots.prepare(&key("work"), parent.as_ref(), Labels::new()).await.unwrap();
            snapshots.commit(&name(own), &key("work"), Commit::default()).await.unwrap();
        }
        snapshots.prepare(&key("again"), None, Labels::new()).await.unwrap();
        std::fs::write(directory.join("snapshots/3/fs/file"), "new").unwrap();
        snapshots
    }

    fn restorer(snapshots: &Overlay) -> Restorer<crate::overlay::Layers> {
        snapshots.restorer(BTreeMap::from([(name("chain"), name("base"))]))
    }

    #[tokio::test]
    async fn a_restored_snapshot_has_the_new_tree_and_what_stood_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = begun(directory.path()).await;
        let before = snapshots.stat(&key("base")).await.unwrap();
        restorer(&snapshots).commit(&name("chain"), &key("again"), Commit::default()).await.unwrap();
        let after = snapshots.stat(&key("base")).await.unwrap();
        assert_eq!(Info { updated_at: before.updated_at, ..after }, before);
        assert!(!directory.path().join("snapshots/1").exists());
        snapshots.remove(&key("base")).await.unwrap_err();
        let mounts = snapshots.view(&key("view"), Some(&name("top")), Labels::new()).await.unwrap();
        assert!(mounts[0].options.iter().any(|option| option.ends_with("/3/fs")), "{mounts:?}");
        snapshots.cleanup().await.unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("snapshots/3/fs/file")).unwrap(), "new");
        let inspected = crate::fsck::inspect(directory.path(), "overlayfs", crate::fsck::Depth::Files).unwrap();
        assert_eq!(inspected.findings, []);
    }

    #[tokio::test]
    async fn a_lost_snapshot_is_restored_below_what_stands_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = begun(directory.path()).await;
        snapshots.0.records.lose(&key("base"));
        let inspected = crate::fsck::inspect(directory.path(), "overlayfs", crate::fsck::Depth::Files);
        assert!(inspected.is_ok_and(|inspected| !inspected.findings.is_empty()));
        restorer(&snapshots).commit(&name("chain"), &key("again"), Commit::default()).await.unwrap();
        snapshots.view(&key("view"), Some(&name("top")), Labels::new()).await.unwrap();
        snapshots.remove(&key("base")).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_crash_while_restoring_leaves_the_old_or_the_new_tree() {
        for (step, new) in [("adapt", false), ("sync", false), ("record", true), ("delete", true)] {
            let directory = tempfile::tempdir().unwrap();
            let snapshots = begun(directory.path()).await;
            snapshots.0.steps.take();
            snapshots.0.steps.stop_after(step);
            let restored = restorer(&snapshots).commit(&name("chain"), &key("again"), Commit::default()).await;
            restored.unwrap_err();
            drop(snapshots);

            let snapshots = Overlay::open(directory.path()).await.unwrap();
            snapshots.cleanup().await.unwrap();
            let there = |id: u64| directory.path().join(format!("snapshots/{id}/fs")).exists();
            assert_eq!((there(1), there(3)), (!new, true), "{step}");
            assert_eq!(snapshots.stat(&key("again")).await.is_ok(), !new, "{step}");
            snapshots.view(&key("view"), Some(&name("top")), Labels::new()).await.unwrap();
            let inspected = crate::fsck::inspect(directory.path(), "overlayfs", crate::fsck::Depth::Files).unwrap();
            assert_eq!(inspected.findings, [], "{step}");
        }
    }
}
