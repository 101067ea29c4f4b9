//! What a new owner of a root does about pulls that died with the last one.
//!
//! Blobs and ingests stay under the dead pull's lease, because running the pull again continues with them. Its
//! unfinished snapshots are of no use to anyone: unpacking starts over from the blob.

use windlass_core::filter::Filter;
use windlass_core::lease::{Lease, ResourceKind};
use windlass_core::snapshot::{Key, Snapshotter, State};
use windlass_core::{Host, Kind, Result, Services};

use crate::Engine;

/// Removes the unfinished snapshots of pulls that were interrupted. Whoever holds the root's lock is alone, so every
/// such lease that exists when the root is opened belongs to a process that is gone.
pub(crate) async fn interrupted_pulls(engine: &Engine) -> Result<()> {
    let filter: Filter = format!("labels.\"{}\"", windlass_transfer::pull::LEASE_LABEL).parse()?;
    for namespace in engine.store.namespaces().list().await? {
        let services = engine.services(&namespace.into()).await?;
        for lease in services.leases.list(std::slice::from_ref(&filter)).await? {
            remove_unfinished(&services, &lease).await?;
        }
    }
    Ok(())
}

async fn remove_unfinished(services: &Services, lease: &Lease) -> Result<()> {
    for resource in services.leases.resources(&lease.id).await? {
        let ResourceKind::Snapshot(snapshotter) = &resource.kind else { continue };
        let Some(snapshotter) = services.snapshotters.get(snapshotter) else { continue };
        let key: Key = resource.id.parse()?;
        if is_active(&**snapshotter, &key).await?
            && let Err(error) = snapshotter.remove(&key).await
        {
            tracing::warn!(%error, %key, "an unfinished snapshot of an interrupted pull was not removed");
            continue;
        }
        services.leases.delete_resource(&lease.id, &resource).await?;
    }
    Ok(())
}

async fn is_active(snapshotter: &dyn Snapshotter, key: &Key) -> Result<bool> {
    match snapshotter.stat(key).await {
        Ok(info) => Ok(info.state == State::Active),
        Err(error) if error.is(Kind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}
