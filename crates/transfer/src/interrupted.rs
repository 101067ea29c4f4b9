//! Interrupted pulls: what they brought is kept by a lease that says so, and the next pull of the same reference goes on
//! with it.
//!
//! A pull borrows: its own lease holds what it needs of the earlier ones', which stay until what they keep is recorded,
//! or moves to the lease of a pull that went on with it and was interrupted in turn. So there is one such lease for a
//! reference, however often it was tried, and a pull that cannot even begin, or that wants another platform, takes
//! nothing away.

use std::collections::BTreeSet;

use windlass_core::filter::Filter;
use windlass_core::gc::Deletion;
use windlass_core::lease::{self, Lease, Manager, Resource, ResourceKind};
use windlass_core::{Kind, Labels, Leased, Reference, Result};

use crate::pull::{INTERRUPTED_FROM_LABEL, INTERRUPTED_LABEL, LEASE_LABEL};
use crate::unpack::KEY_PREFIX;

/// Has a pull's lease hold what it wants of what interrupted pulls of the reference kept, and returns the leases that had
/// something of it: those of other platforms are none of its business.
pub(crate) async fn borrow(
    leased: &Leased,
    reference: &Reference,
    wanted: &BTreeSet<Resource>,
) -> Result<Vec<lease::Id>> {
    let mut earlier = Vec::new();
    for interrupted in complete(&*leased.leases, reference).await? {
        let mut resources = held(&*leased.leases, &interrupted).await?;
        resources.retain(|resource| wanted.contains(resource));
        for resource in &resources {
            leased.leases.add_resource(leased.lease(), resource).await?;
        }
        if !resources.is_empty() {
            earlier.push(interrupted);
        }
    }
    Ok(earlier)
}

/// Moves what a pull's lease holds, and what those do that it borrowed from, to one that says whose pull was interrupted.
///
/// 1. the new lease holds everything  2. the pull's goes: the new one is complete  3. the earlier ones go
///
/// A crash in between leaves more than one, and the next pull borrows from each.
pub(crate) async fn set_aside(leased: Leased, reference: &Reference, earlier: &[lease::Id]) -> Result<()> {
    let labels = Labels::new()
        .with(INTERRUPTED_LABEL, reference.to_string())
        .with(INTERRUPTED_FROM_LABEL, leased.lease().to_string());
    let options = lease::Options { id: None, expiry: Some(lease::DEFAULT_EXPIRY), labels };
    let kept = leased.leases.create(options).await?;
    for from in std::iter::once(leased.lease()).chain(earlier) {
        for resource in held(&*leased.leases, from).await? {
            leased.leases.add_resource(&kept.id, &resource).await?;
        }
    }
    leased.leases.delete(leased.lease(), Deletion::Background).await?;
    give_up(&*leased.leases, earlier).await
}

/// Gives up the leases of interrupted pulls.
pub(crate) async fn give_up(leases: &dyn Manager, interrupted: &[lease::Id]) -> Result<()> {
    for id in interrupted {
        match leases.delete(id, Deletion::Background).await {
            // Another pull of the same reference was quicker, or its time was up.
            Err(error) if error.is(Kind::NotFound) => {}
            deleted => deleted?,
        }
    }
    Ok(())
}

/// Gives up what interrupted pulls of a reference kept, as far as the pull that just succeeded has brought all of it: one
/// of another platform, or of documents alone, leaves the rest where it is.
pub(crate) async fn give_up_fulfilled(leased: &Leased, reference: &Reference) -> Result<()> {
    let brought: BTreeSet<Resource> = leased.leases.resources(leased.lease()).await?.into_iter().collect();
    for interrupted in complete(&*leased.leases, reference).await? {
        let mut fulfilled = true;
        for resource in held(&*leased.leases, &interrupted).await? {
            fulfilled = fulfilled && (brought.contains(&resource) || is_over(leased, &resource).await?);
        }
        if fulfilled {
            give_up(&*leased.leases, std::slice::from_ref(&interrupted)).await?;
        }
    }
    Ok(())
}

/// Tells whether nothing is left of what a pull had begun: its ingest became a blob or was discarded, its snapshot was
/// under construction.
async fn is_over(leased: &Leased, resource: &Resource) -> Result<bool> {
    match &resource.kind {
        ResourceKind::Snapshot(_) => Ok(resource.id.starts_with(KEY_PREFIX)),
        ResourceKind::Ingest => match leased.content.status(&resource.id.parse()?).await {
            Ok(_) => Ok(false),
            Err(error) if error.is(Kind::NotFound) => Ok(true),
            Err(error) => Err(error),
        },
        _ => Ok(false),
    }
}

/// Tells whether an interrupted pull of a reference kept something.
pub(crate) async fn any(leases: &dyn Manager, reference: &Reference) -> Result<bool> {
    Ok(!leases.list(&[of(reference)?]).await?.is_empty())
}

/// Lists the leases of interrupted pulls of a reference. One is not among them for as long as the lease exists that it is
/// being filled from: that one holds all of it.
async fn complete(leases: &dyn Manager, reference: &Reference) -> Result<Vec<lease::Id>> {
    let interrupted = leases.list(&[of(reference)?]).await?;
    // Listed second: a source that has gone by now has left everything to a lease of the first list.
    let running = leases.list(&[format!("labels.\"{LEASE_LABEL}\"").parse()?]).await?;
    let is_filled = |lease: &Lease| {
        let from = lease.labels.get(INTERRUPTED_FROM_LABEL);
        !running.iter().any(|source| Some(source.id.as_str()) == from)
    };
    Ok(interrupted.into_iter().filter(is_filled).map(|lease| lease.id).collect())
}

/// Lists what a lease holds; one that has gone holds nothing.
async fn held(leases: &dyn Manager, id: &lease::Id) -> Result<Vec<Resource>> {
    match leases.resources(id).await {
        Err(error) if error.is(Kind::NotFound) => Ok(Vec::new()),
        held => held,
    }
}

fn of(reference: &Reference) -> Result<Filter> {
    format!("labels.\"{INTERRUPTED_LABEL}\"==\"{reference}\"").parse()
}
