//! Interrupted pulls: what they brought is kept by a lease that says so, and the next pull of the same reference goes on
//! with it.
//!
//! There is one such lease for a reference, however often it was tried: each pull takes over what the one before kept,
//! and gives all of it up when it succeeds or cannot succeed.

use windlass_core::filter::Filter;
use windlass_core::gc::Deletion;
use windlass_core::lease::{self, Manager};
use windlass_core::{Kind, Labels, Leased, Reference, Result};

use crate::pull::INTERRUPTED_LABEL;

/// Moves what a pull's lease holds to one that says whose pull was interrupted. A crash in between leaves both, which
/// hold the same, and the next pull takes both over.
pub(crate) async fn set_aside(leased: Leased, reference: &Reference) -> Result<()> {
    let labels = Labels::new().with(INTERRUPTED_LABEL, reference.to_string());
    let options = lease::Options { id: None, expiry: Some(lease::DEFAULT_EXPIRY), labels };
    let kept = leased.leases.create(options).await?;
    hand_over(&*leased.leases, leased.lease(), &kept.id).await
}

/// Moves what interrupted pulls of a reference kept to the lease of the one that runs.
pub(crate) async fn take_over(leased: &Leased, reference: &Reference) -> Result<()> {
    for interrupted in leased.leases.list(&[of(reference)?]).await? {
        match hand_over(&*leased.leases, &interrupted.id, leased.lease()).await {
            // Another pull of the same reference was quicker, or its time was up.
            Err(error) if error.is(Kind::NotFound) => {}
            moved => moved?,
        }
    }
    Ok(())
}

/// Gives up what interrupted pulls of a reference kept.
pub(crate) async fn give_up(leased: &Leased, reference: &Reference) -> Result<()> {
    for interrupted in leased.leases.list(&[of(reference)?]).await? {
        match leased.leases.delete(&interrupted.id, Deletion::Background).await {
            Err(error) if error.is(Kind::NotFound) => {}
            deleted => deleted?,
        }
    }
    Ok(())
}

fn of(reference: &Reference) -> Result<Filter> {
    format!("labels.\"{INTERRUPTED_LABEL}\"==\"{reference}\"").parse()
}

/// 1. the new lease holds everything  2. the old one goes.
async fn hand_over(leases: &dyn Manager, from: &lease::Id, to: &lease::Id) -> Result<()> {
    for resource in leases.resources(from).await? {
        leases.add_resource(to, &resource).await?;
    }
    leases.delete(from, Deletion::Background).await
}
