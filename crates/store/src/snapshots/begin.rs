//! The beginning of a snapshot: active or a view, or the discovery that what it would become is here already.

use std::time::SystemTime;

use windlass_core::snapshot::{Info, Key, Mount, Name, State, TARGET_LABEL, UNPACK_LABEL};
use windlass_core::{Error, Kind, Labels, Result};

use super::Snapshots;
use super::records::Place;
use crate::blocking::to_the_end;
use crate::db::schema::SnapshotRecord;
use crate::db::{Transaction, View, admit, require_lease};
use crate::turns::Turn;

/// A snapshot to begin.
pub(super) struct Begin {
    pub(super) state: State,
    pub(super) key: Key,
    pub(super) parent: Option<Name>,
    pub(super) labels: Labels,
}

impl Begin {
    /// Begins the snapshot. The order:
    ///
    /// 1. the snapshotter behind makes it  2. commit the record, with the lease's edge
    ///
    /// A crash between the two leaves a snapshot without a record that the sweep removes.
    pub(super) async fn run(self, snapshots: Snapshots) -> Result<Vec<Mount>> {
        self.labels.validate()?;
        // Who begins it may be gone at any time, and what it began removed: whoever does that waits for this. Taken before anything
        // goes on without the caller.
        let beginning = snapshots.beginning(&self.key).await;
        to_the_end(self.carry_out(snapshots, beginning)).await
    }

    async fn carry_out(self, snapshots: Snapshots, _beginning: Turn) -> Result<Vec<Mount>> {
        if let Some(target) = self.target()? {
            // Whoever commits the target right now is waited for.
            let _turn = snapshots.turn(&target).await;
            if snapshots.has_or_adopts(target.clone()).await? {
                snapshots.require_whole(&snapshots.record(target.as_key())?).await?;
                return Err(Error::already_exists(format!("snapshot {target}, the target, is here already")));
            }
        }
        let inner_parent = snapshots.shared.db.read(|view| self.check(view, &snapshots))?;
        let inner = snapshots.inner_name(&self.key)?;
        let _building = snapshots.shared.building.begin(&inner);
        let mounts = self.make(&snapshots, &inner, inner_parent.as_ref()).await?;
        snapshots.shared.faults.reach("prepare: made").await;
        match self.record(&snapshots, &inner).await {
            Ok(()) => Ok(mounts),
            Err(error) => {
                snapshots.drop_inner(&inner).await;
                Err(error)
            }
        }
    }

    /// Returns the committed snapshot that this one is meant to become.
    fn target(&self) -> Result<Option<Name>> {
        let label = self.labels.get(TARGET_LABEL).filter(|_| self.state == State::Active);
        label.map(str::parse).transpose()
    }

    /// Checks what can be known before anything is made, and returns the parent's name behind.
    fn check(&self, view: &impl View, snapshots: &Snapshots) -> Result<Option<Name>> {
        if let Some(lease) = &snapshots.scope.lease {
            require_lease(view, &snapshots.scope.namespace, lease)?;
        }
        self.check_free(view, &snapshots.place)?;
        let parent = self.parent.as_ref().map(|parent| snapshots.place.require_parent(view, parent)).transpose()?;
        parent.map(|parent| parent.inner.as_str().parse()).transpose()
    }

    fn check_free(&self, view: &impl View, place: &Place) -> Result<()> {
        match place.get(view, &self.key)? {
            Some(there) => {
                Err(Error::already_exists(format!("snapshot {} is here already, {}", self.key, there.info.state)))
            }
            None => Ok(()),
        }
    }

    async fn make(&self, snapshots: &Snapshots, inner: &Key, parent: Option<&Name>) -> Result<Vec<Mount>> {
        // The target is a name of this view and means nothing behind it, but that there is one: a layer is unpacked.
        let mut labels = self.labels.clone();
        if labels.remove(TARGET_LABEL).is_some() && self.state == State::Active {
            labels.set(UNPACK_LABEL, "yes");
        }
        match self.state {
            State::View => snapshots.inner.view(inner, parent, labels).await,
            _ => snapshots.inner.prepare(inner, parent, labels).await,
        }
    }

    async fn record(self, snapshots: &Snapshots, inner: &Key) -> Result<()> {
        let now = SystemTime::now();
        let info = Info {
            state: self.state,
            key: self.key.clone(),
            parent: self.parent.clone(),
            labels: self.labels.clone(),
            created_at: now,
            updated_at: now,
        };
        let record = SnapshotRecord { inner: inner.clone(), info };
        let (place, scope) = (snapshots.place.clone(), snapshots.scope.clone());
        let create = move |tx: &Transaction| {
            self.check_free(tx, &place)?;
            if let Some(parent) = &self.parent {
                place.require_parent(tx, parent)?;
            }
            admit(tx, &scope, &[place.node(&self.key)])?;
            place.put(tx, &record)
        };
        snapshots.shared.db.write(create).await
    }
}

impl Snapshots {
    /// Sees to it that a committed snapshot is not only recorded: whoever is told that it is here does not make it again.
    ///
    /// # Errors
    /// `DataLoss`.
    pub(super) async fn require_whole(&self, record: &SnapshotRecord) -> Result<()> {
        match self.inner.stat(&record.inner).await {
            Err(error) if error.is(Kind::NotFound) => Err(Error::data_loss(format!(
                "snapshot {} is recorded, and snapshotter {} has lost it",
                record.info.key, self.place.snapshotter
            ))
            .hint("`dist fsck --repair` unpacks it again")),
            found => found.map(drop),
        }
    }

    /// Waits for a committed snapshot's name: who has the turn is alone in making it appear.
    pub(super) async fn turn(&self, name: &Name) -> Turn {
        self.shared.turns.take(format!("snapshot {}", self.place.key(name.as_key()).replace('\0', " "))).await
    }

    /// Waits until nobody is beginning a snapshot of that key.
    pub(super) async fn beginning(&self, key: &Key) -> Turn {
        self.shared.turns.take(format!("beginning of snapshot {}", self.place.key(key).replace('\0', " "))).await
    }

    /// Tells whether the namespace has a committed snapshot, which the scope's lease then holds, or takes it over from
    /// another namespace that lets it, with all it stands on.
    pub(super) async fn has_or_adopts(&self, target: Name) -> Result<bool> {
        let (place, scope, sharing) = (self.place.clone(), self.scope.clone(), self.shared.sharing);
        let adopt = move |tx: &Transaction| {
            if let Some(there) = place.get(tx, target.as_key())? {
                if there.info.state != State::Committed {
                    return Ok(false);
                }
                crate::db::hold(tx, &scope, &[place.node(target.as_key())])?;
                return Ok(true);
            }
            for other in place.everywhere(tx)? {
                let there = other.get(tx, target.as_key())?;
                let Some(found) = there.filter(|there| there.info.state == State::Committed) else { continue };
                if !sharing.lets_take_over(tx, other.namespace.as_str())? {
                    continue;
                }
                admit(tx, &scope, &[place.node(target.as_key())])?;
                adopt_chain(tx, &place, &other, found)?;
                return Ok(true);
            }
            Ok(false)
        };
        self.shared.db.write(adopt).await
    }
}

/// Copies the record of a committed snapshot, and of those it stands on as far as they are not here. Labels are the other
/// namespace's own and stay there.
fn adopt_chain(tx: &Transaction, here: &Place, there: &Place, found: SnapshotRecord) -> Result<()> {
    let mut next = Some(found);
    while let Some(SnapshotRecord { inner, info }) = next {
        let now = SystemTime::now();
        let info = Info { labels: Labels::new(), created_at: now, updated_at: now, ..info };
        let record = SnapshotRecord { inner, info };
        here.put(tx, &record)?;
        next = match &record.info.parent {
            Some(parent) if here.get(tx, parent.as_key())?.is_none() => Some(there.require(tx, parent.as_key())?),
            _ => None,
        };
    }
    Ok(())
}
