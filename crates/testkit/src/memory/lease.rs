//! Leases in memory. They end when they are deleted; an expired one holds nothing when garbage is collected.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::gc::Deletion;
use windlass_core::lease::{Id, Lease, Manager, Options, Resource};
use windlass_core::{Error, Result};

use super::space::Scoped;

/// A lease manager that keeps its records in memory.
#[derive(Clone, Default)]
pub struct Leases(pub(super) Scoped);

fn absent(id: &Id) -> Error {
    Error::not_found(format!("lease {id} is not here"))
}

/// Identities that no two leases of this process share.
fn new_id() -> Result<Id> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("lease-{}", NEXT.fetch_add(1, Ordering::Relaxed)).parse()
}

#[async_trait]
impl Manager for Leases {
    async fn create(&self, options: Options) -> Result<Lease> {
        options.labels.validate()?;
        let id = options.id.clone().map_or_else(new_id, Ok)?;
        let mut space = self.0.lock();
        if space.leases.contains_key(&id) {
            return Err(Error::already_exists(format!("lease {id} is here")));
        }
        let created_at = SystemTime::now();
        let expires_at = options.ends(created_at)?;
        let lease = Lease { id: id.clone(), created_at, expires_at, labels: options.labels };
        space.exists = true;
        space.leases.insert(id, (lease.clone(), BTreeSet::new()));
        Ok(lease)
    }

    async fn delete(&self, id: &Id, deletion: Deletion) -> Result<()> {
        let mut space = self.0.lock();
        space.leases.remove(id).ok_or_else(|| absent(id))?;
        if deletion == Deletion::Synchronous {
            space.collect();
        }
        Ok(())
    }

    async fn list(&self, filters: &[Filter]) -> Result<Vec<Lease>> {
        let space = self.0.lock();
        let leases = space.leases.values().map(|(lease, _)| lease);
        Ok(leases.filter(|lease| any_matches(filters, *lease)).cloned().collect())
    }

    async fn add_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let mut space = self.0.lock();
        let (_, resources) = space.leases.get_mut(id).ok_or_else(|| absent(id))?;
        resources.insert(resource.clone());
        Ok(())
    }

    async fn delete_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let mut space = self.0.lock();
        let (_, resources) = space.leases.get_mut(id).ok_or_else(|| absent(id))?;
        resources.remove(resource);
        Ok(())
    }

    async fn resources(&self, id: &Id) -> Result<Vec<Resource>> {
        let space = self.0.lock();
        let (_, resources) = space.leases.get(id).ok_or_else(|| absent(id))?;
        Ok(resources.iter().cloned().collect())
    }
}
