//! The commit of a snapshot: active becomes committed, here and behind.

use std::time::SystemTime;

use windlass_core::gc::Node;
use windlass_core::snapshot::{Commit, Info, Key, Name, State, TARGET_LABEL};
use windlass_core::{Error, Kind, Labels, Result};

use super::Snapshots;
use super::records::{Place, forget};
use crate::db::schema::{RESOURCES, SnapshotRecord};
use crate::db::{self, Transaction, View, admit, require_lease, text_of};

/// Commits a snapshot. The order:
///
/// 1. the snapshotter behind commits it, durably, under a new name  2. commit the record: the name in place of the key,
///    with the lease's edge
///
/// A crash between the two leaves a committed snapshot without a record, which the sweep removes, and an active record
/// with nothing behind, which can only be removed; the layer is then unpacked again.
pub(super) async fn run(snapshots: Snapshots, name: Name, key: Key, commit: Commit) -> Result<()> {
    commit.labels.validate()?;
    // Alone with the name: it cannot be taken between the check and the record.
    let _turn = snapshots.turn(&name).await;
    let checked = snapshots.shared.db.read(|view| check(view, &snapshots, &name, &key, &commit));
    if checked.as_ref().is_err_and(|error| error.is(Kind::AlreadyExists)) {
        // The caller goes on with what is there, so its lease holds it.
        snapshots.has_or_adopts(name.clone()).await?;
    }
    let (active, inner_parent) = checked?;

    let inner: Name = snapshots.inner_name(name.as_key())?.as_str().parse()?;
    let _building = snapshots.shared.building.begin(inner.as_key());
    let behind = Commit { labels: Labels::new(), parent: inner_parent };
    snapshots.inner.commit(&inner, &active.inner, behind).await?;
    snapshots.shared.faults.reach("commit snapshot: committed behind").await;

    let committed = committed(active.info, &inner, &name, commit);
    match record(&snapshots, key.clone(), committed).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // The parent or the lease went away meanwhile. What was committed behind has no record, and the active one
            // is no more.
            snapshots.drop_inner(inner.as_key()).await;
            if let Err(remove) = snapshots.remove_to_the_end(key).await
                && !remove.is(Kind::NotFound)
            {
                tracing::warn!(error = %remove, "the record of a snapshot that could not be committed was not removed");
            }
            Err(error)
        }
    }
}

/// Returns the active record, and the name behind of the parent to put it onto.
fn check(
    view: &impl View,
    snapshots: &Snapshots,
    name: &Name,
    key: &Key,
    commit: &Commit,
) -> Result<(SnapshotRecord, Option<Name>)> {
    let place = &snapshots.place;
    if let Some(lease) = &snapshots.scope.lease {
        require_lease(view, &snapshots.scope.namespace, lease)?;
    }
    let active = require_active(view, place, key)?;
    check_free(view, place, name)?;
    let parent = commit.parent.as_ref().map(|parent| place.require_parent(view, parent)).transpose()?;
    let inner_parent = parent.map(|parent| parent.inner.as_str().parse()).transpose()?;
    Ok((active, inner_parent))
}

fn require_active(view: &impl View, place: &Place, key: &Key) -> Result<SnapshotRecord> {
    let record = place.require(view, key)?;
    if record.info.state != State::Active {
        return Err(Error::failed_precondition(format!("snapshot {key} is {}, not active", record.info.state)));
    }
    Ok(record)
}

fn check_free(view: &impl View, place: &Place, name: &Name) -> Result<()> {
    match place.get(view, name.as_key())? {
        Some(_) => Err(Error::already_exists(format!("snapshot {name} is here already"))),
        None => Ok(()),
    }
}

/// Returns the record that the active one becomes.
fn committed(active: Info, inner: &Name, name: &Name, commit: Commit) -> SnapshotRecord {
    let mut labels = active.labels;
    // What it was meant to become, it is.
    labels.remove(TARGET_LABEL);
    labels.extend(&commit.labels);
    // A committed snapshot is a new one; so it is with containerd.
    let now = SystemTime::now();
    let info = Info {
        state: State::Committed,
        key: name.as_key().clone(),
        parent: commit.parent.or(active.parent),
        labels,
        created_at: now,
        updated_at: now,
    };
    SnapshotRecord { inner: inner.as_key().clone(), info }
}

async fn record(snapshots: &Snapshots, key: Key, committed: SnapshotRecord) -> Result<()> {
    let (place, scope) = (snapshots.place.clone(), snapshots.scope.clone());
    let change = move |tx: &Transaction| {
        let active = require_active(tx, &place, &key)?;
        if let Some(parent) = &committed.info.parent {
            place.require_parent(tx, parent)?;
        }
        admit(tx, &scope, &[place.node(&committed.info.key)])?;
        forget(tx, &place, &key, active.info.parent.as_ref())?;
        if let Some(lease) = &scope.lease {
            let held: Node = place.node(&key);
            RESOURCES.remove(tx, &db::Key::of([scope.namespace.as_str(), lease.as_str(), &text_of(&held)]))?;
        }
        // The name cannot be taken: this task has its turn.
        place.put(tx, &committed)
    };
    snapshots.shared.db.write(change).await
}
