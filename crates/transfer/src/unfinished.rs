//! Unfinished content: the ingests of a namespace, whose pull brought them, and until when they are kept.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use windlass_core::content::{ABANDONED_AFTER, IngestRef, Status};
use windlass_core::filter::Filter;
use windlass_core::lease::{self, Lease, ResourceKind};
use windlass_core::{Result, Services, timestamp};

use crate::pull::{INTERRUPTED_LABEL, LEASE_LABEL};

/// An ingest, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// Where it stands.
    #[serde(flatten)]
    pub status: Status,
    /// The leases that hold it.
    pub held_by: Vec<lease::Id>,
    /// The reference of the pull that brought it, running or interrupted: pulling it again continues.
    pub pull: Option<String>,
    /// When it is discarded: a day after its last write, and not before the last lease ends that holds it. Never when one
    /// of them has no end.
    #[serde(with = "timestamp::option")]
    pub expires_at: Option<SystemTime>,
}

/// Lists the ingests that match any of the filters.
///
/// # Errors
/// Those of the stores.
pub async fn all(services: &Services, filters: &[Filter]) -> Result<Vec<Unfinished>> {
    let statuses = services.content.statuses(filters).await?;
    let holders = Holders::of(services).await?;
    Ok(statuses.into_iter().map(|status| holders.describe(status)).collect())
}

/// Returns one ingest.
///
/// # Errors
/// `NotFound`; those of the stores.
pub async fn one(services: &Services, ingest: &IngestRef) -> Result<Unfinished> {
    let status = services.content.status(ingest).await?;
    Ok(Holders::of(services).await?.describe(status))
}

/// The leases that hold ingests, by the ref of the ingest.
struct Holders(BTreeMap<String, Vec<Lease>>);

impl Holders {
    async fn of(services: &Services) -> Result<Self> {
        let mut holders: BTreeMap<String, Vec<Lease>> = BTreeMap::new();
        for (lease, held) in lease::holdings(&*services.leases, &[]).await? {
            for held in held {
                if held.kind == ResourceKind::Ingest {
                    holders.entry(held.id).or_default().push(lease.clone());
                }
            }
        }
        Ok(Self(holders))
    }

    fn describe(&self, status: Status) -> Unfinished {
        let leases = self.0.get(status.ingest.as_str()).map(Vec::as_slice).unwrap_or_default();
        Unfinished {
            held_by: leases.iter().map(|lease| lease.id.clone()).collect(),
            pull: leases.iter().find_map(pulled),
            expires_at: expiry(leases, &status),
            status,
        }
    }
}

fn pulled(lease: &Lease) -> Option<String> {
    let reference = lease.labels.get(INTERRUPTED_LABEL).or_else(|| lease.labels.get(LEASE_LABEL));
    reference.map(str::to_owned)
}

fn expiry(leases: &[Lease], status: &Status) -> Option<SystemTime> {
    if leases.iter().any(|lease| lease.expires_at.is_none()) {
        return None;
    }
    let abandoned = status.updated_at.checked_add(ABANDONED_AFTER);
    leases.iter().filter_map(|lease| lease.expires_at).max().max(abandoned)
}
