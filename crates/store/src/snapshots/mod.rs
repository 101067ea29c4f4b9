//! Snapshots as one namespace sees them: its own records over a snapshotter that all namespaces share.
//!
//! The snapshotter behind knows every snapshot by a name of its own, `<namespace>/<unique>/<key>`, which is never used
//! twice. A record says which one it is. A committed snapshot may have records in several namespaces; the one behind
//! goes with the last of them.

mod begin;
mod building;
mod commit;
mod records;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::snapshot::{Capabilities, Commit, Info, Key, Mount, Name, Snapshotter, State, Usage};
use windlass_core::{Error, Kind, Labels, Listing, Result, ResultExt, Scope};

use crate::blocking::to_the_end;
use crate::db::schema::{RESOURCES, SNAPSHOTS, SnapshotRecord};
use crate::db::{self, Transaction, listing, set_links, text_of};
use crate::store::Shared;

use begin::Begin;
pub(crate) use building::Building;
pub(crate) use records::{Place, forget, inner_names};

/// One snapshotter, seen from a scope.
#[derive(Clone)]
pub(crate) struct Snapshots {
    shared: Arc<Shared>,
    scope: Scope,
    inner: Arc<dyn Snapshotter>,
    /// Where the records of this namespace and snapshotter are.
    place: Place,
}

impl Snapshots {
    pub(crate) fn new(shared: Arc<Shared>, scope: Scope, snapshotter: String, inner: Arc<dyn Snapshotter>) -> Self {
        let place = Place { namespace: scope.namespace.clone(), snapshotter };
        Self { shared, scope, inner, place }
    }

    fn record(&self, key: &Key) -> Result<SnapshotRecord> {
        self.shared.db.read(|view| self.place.require(view, key))
    }

    /// Makes up a name for the snapshotter behind.
    fn inner_name(&self, key: &Key) -> Result<Key> {
        let unique = format!("{}/{}", self.scope.namespace, crate::unique::unique());
        // The key is there for people; one that is too long to fit is not needed.
        format!("{unique}/{key}").parse().or_else(|_| unique.parse())
    }

    /// Removes a snapshot behind that has no record and never gets one. A failure leaves it to the sweep, and so does a
    /// commit of the record that the disk failed: it may turn out to be there.
    async fn drop_inner(&self, inner: &Key) {
        if self.shared.db.check().is_err() {
            return;
        }
        match self.inner.remove(inner).await {
            Ok(()) => {}
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => {
                tracing::debug!(%error, snapshot = %inner, "a snapshot without a record is left to garbage collection");
            }
        }
    }

    async fn remove_to_the_end(self, key: Key) -> Result<()> {
        // 1. remove the record  2. remove the snapshot behind, if this was the last record of it.
        // A crash between the two leaves a snapshot without a record that the sweep removes.
        let _beginning = self.beginning(&key).await;
        let (place, scope, removed_key) = (self.place.clone(), self.scope.clone(), key.clone());
        let remove = move |tx: &Transaction| {
            let record = place.require(tx, &removed_key)?;
            let children = place.children(tx, &removed_key)?;
            if let Some(child) = children.first() {
                return Err(Error::failed_precondition(format!(
                    "snapshot {removed_key} has {} or more children, among them {child}",
                    children.len()
                ))
                .hint("remove its children first"));
            }
            tx.deleted();
            forget(tx, &place, &removed_key, record.info.parent.as_ref())?;
            if let Some(lease) = &scope.lease {
                let held = text_of(&place.node(&removed_key));
                RESOURCES.remove(tx, &db::Key::of([scope.namespace.as_str(), lease.as_str(), &held]))?;
            }
            Ok(record)
        };
        let removed = self.shared.db.write(remove).await?;
        self.shared.faults.reach("remove: record removed").await;
        if !self.shared.db.read(|view| self.place.refers_elsewhere(view, &key, &removed.inner))? {
            self.drop_inner(&removed.inner).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Snapshotter for Snapshots {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn ready(&self) -> Result<()> {
        self.inner.ready().await
    }

    async fn stat(&self, key: &Key) -> Result<Info> {
        let record = self.record(key)?;
        if record.info.state == State::Committed {
            self.require_whole(&record).await?;
        }
        Ok(record.info)
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let (place, change, mask) = (self.place.clone(), info.clone(), mask.clone());
        let update = move |tx: &Transaction| {
            let mut record = place.require(tx, &change.key)?;
            if let Some(path) = mask.apply_to_labels(&mut record.info.labels, &change.labels).first() {
                return Err(Error::invalid_argument(format!("field {path} of a snapshot cannot be changed"))
                    .hint("labels and labels.<key> can"));
            }
            record.info.labels.validate()?;
            record.info.updated_at = SystemTime::now();
            SNAPSHOTS.put(tx, &place.key(&change.key), &record)?;
            set_links(tx, &place.namespace, &place.node(&change.key), &place.links(&record.info))?;
            Ok(record.info)
        };
        self.shared.db.write(update).await.context(|| format!("update snapshot {}", info.key))
    }

    async fn usage(&self, key: &Key) -> Result<Usage> {
        let inner = self.record(key)?.inner;
        self.inner.usage(&inner).await.context(|| format!("usage of snapshot {key}"))
    }

    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>> {
        let record = self.record(key)?;
        if record.info.state == State::Committed {
            return Err(Error::failed_precondition(format!("snapshot {key} is committed and has no mounts"))
                .hint("make a view of it"));
        }
        self.inner.mounts(&record.inner).await.context(|| format!("mounts of snapshot {key}"))
    }

    async fn prepare(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        let begin = Begin { state: State::Active, key: key.clone(), parent: parent.cloned(), labels };
        begin.run(self.clone()).await.context(|| format!("prepare snapshot {key}"))
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        let begin = Begin { state: State::View, key: key.clone(), parent: parent.cloned(), labels };
        begin.run(self.clone()).await.context(|| format!("view snapshot {key}"))
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        let (name, key) = (name.clone(), key.clone());
        let attempt = format!("commit snapshot {name}");
        to_the_end(commit::run(self.clone(), name, key, commit)).await.context(|| attempt)
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        to_the_end(self.clone().remove_to_the_end(key.clone())).await.context(|| format!("remove snapshot {key}"))
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        listing(self.shared.clone(), &SNAPSHOTS, self.place.prefix(), filters, |record| record.info)
    }

    async fn cleanup(&self) -> Result<()> {
        self.inner.cleanup().await
    }
}
