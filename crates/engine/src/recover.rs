//! What a new owner of a root does about workflows that died with the last one.
//!
//! Blobs and ingests stay under a dead pull's lease, because running the pull again continues with them. Its
//! unfinished snapshots are of no use to anyone: unpacking starts over from the blob. Imports, exports, conversions, unpackings
//! and pushes begin anew when they are run again: what they made goes, but for what something else refers to.

use std::time::SystemTime;

use windlass_core::filter::Filter;
use windlass_core::gc::{Collector as _, Deletion};
use windlass_core::lease::{self, Lease, ResourceKind};
use windlass_core::snapshot::{Key, Snapshotter, State};
use windlass_core::{Host, Kind, Labels, Result, Scope, Services};
use windlass_store::Group;
use windlass_transfer::pull::{INTERRUPTED_LABEL, LEASE_LABEL};
use windlass_transfer::{convert, difference, export, import, present, push};

use crate::Engine;

/// The labels of leases of workflows that begin anew when they are run again.
const ENDED: [&str; 6] = [
    convert::LEASE_LABEL,
    difference::LEASE_LABEL,
    export::LEASE_LABEL,
    import::LEASE_LABEL,
    present::LEASE_LABEL,
    push::LEASE_LABEL,
];

/// Removes the unfinished snapshots of pulls that were interrupted, and marks their leases as such. Whoever holds the
/// root's lock is alone, so every pull's lease that exists when the root is opened belongs to a process that is gone.
pub(crate) async fn interrupted_pulls(engine: &Engine) -> Result<()> {
    let filter: Filter = format!("labels.\"{LEASE_LABEL}\"").parse()?;
    for namespace in engine.store.namespaces().list().await? {
        let services = engine.services(&namespace.into()).await?;
        for lease in services.leases.list(std::slice::from_ref(&filter)).await? {
            remove_unfinished(&services, &lease).await?;
            mark_interrupted(engine, &services.scope, lease).await?;
        }
    }
    Ok(())
}

/// Gives up the leases of all workflows but pulls, whose processes are gone, and tells whether there were any.
pub(crate) async fn ended_workflows(engine: &Engine) -> Result<bool> {
    let filters = ENDED.map(|label| format!("labels.\"{label}\"").parse::<Filter>());
    let filters = filters.into_iter().collect::<Result<Vec<_>>>()?;
    let mut any = false;
    for namespace in engine.store.namespaces().list().await? {
        let services = engine.services(&namespace.into()).await?;
        for lease in services.leases.list(&filters).await? {
            remove_unfinished(&services, &lease).await?;
            services.leases.delete(&lease.id, Deletion::Background).await?;
            any = true;
        }
    }
    Ok(any)
}

/// Ends leases that expired while nobody had the root: no clock ran then. What they held goes with them, and what those held
/// that have just been given up.
pub(crate) async fn expired_leases(engine: &Engine, given_up: bool) -> Result<()> {
    if (given_up || engine.store.has_expired_leases()?)
        && let Err(error) = engine.store.collect().await
    {
        // It is no reason to refuse to work: the next collection tries again.
        tracing::warn!(%error, "not everything that had expired was collected");
    }
    Ok(())
}

/// Moves what a lease holds to one that says whose pull was interrupted, for as long as the old one had left.
async fn mark_interrupted(engine: &Engine, scope: &Scope, lease: Lease) -> Result<()> {
    let reference = lease.labels.get(LEASE_LABEL).unwrap_or_default();
    let expiry = lease.expires_at.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    let labels = Labels::new().with(INTERRUPTED_LABEL, reference);
    let options = lease::Options { id: None, expiry, labels };
    let replace = move |group: &Group<'_>| {
        let kept = group.create_lease(&options)?;
        for resource in group.resources(&lease.id)? {
            group.add_resource(&kept.id, &resource)?;
        }
        group.delete_lease(&lease.id)
    };
    engine.transact(scope, replace).await
}

async fn remove_unfinished(services: &Services, lease: &Lease) -> Result<()> {
    for resource in services.leases.resources(&lease.id).await? {
        let ResourceKind::Snapshot(snapshotter) = &resource.kind else { continue };
        let Some(snapshotter) = services.snapshotters.get(snapshotter) else { continue };
        let key: Key = resource.id.parse()?;
        match state(&**snapshotter, &key).await? {
            Some(State::Active) => match snapshotter.remove(&key).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, %key, "an unfinished snapshot of a dead process was not removed");
                    continue;
                }
            },
            // Layers that were unpacked are what the next pull goes on with.
            Some(_) => continue,
            None => {}
        }
        services.leases.delete_resource(&lease.id, &resource).await?;
    }
    Ok(())
}

async fn state(snapshotter: &dyn Snapshotter, key: &Key) -> Result<Option<State>> {
    match snapshotter.stat(key).await {
        Ok(info) => Ok(Some(info.state)),
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
