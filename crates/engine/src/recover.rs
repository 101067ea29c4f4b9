//! What a new owner of a root does about pulls that died with the last one.
//!
//! Blobs and ingests stay under the dead pull's lease, because running the pull again continues with them. Its
//! unfinished snapshots are of no use to anyone: unpacking starts over from the blob.

use std::time::SystemTime;

use windlass_core::filter::Filter;
use windlass_core::gc::Collector as _;
use windlass_core::lease::{self, Lease, ResourceKind};
use windlass_core::snapshot::{Key, Snapshotter, State};
use windlass_core::{Host, Kind, Labels, Result, Scope, Services};
use windlass_store::Group;
use windlass_transfer::pull::{INTERRUPTED_LABEL, LEASE_LABEL};

use crate::Engine;

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

/// Ends leases that expired while nobody had the root: no clock ran then. What they held goes with them.
pub(crate) async fn expired_leases(engine: &Engine) -> Result<()> {
    if engine.store.has_expired_leases()?
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
                    tracing::warn!(%error, %key, "an unfinished snapshot of an interrupted pull was not removed");
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
