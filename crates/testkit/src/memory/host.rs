//! A host of everything in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::claim::Claims;
use windlass_core::snapshot::Capabilities;
use windlass_core::{Namespace, Result, Scope, Services, diff};

use super::space::Scoped;
use super::{Comparer, Containers, Content, Events, Images, Leases, Namespaces, Room, Snapshotter};

/// What the only snapshotter of the host is called.
pub const SNAPSHOTTER: &str = "memory";

/// Hands out in-memory services; what is not in memory are the directories of snapshots.
#[derive(Clone)]
pub struct Host {
    namespaces: Namespaces,
    directory: Arc<Path>,
    capabilities: Capabilities,
    applier: Arc<dyn diff::Applier>,
    events: Events,
    room: Room,
    claims: Claims,
}

impl Host {
    /// Makes a host that keeps the directories of its snapshots below one that exists, and applies layers with what
    /// the caller supplies.
    pub fn new(directory: &Path, applier: Arc<dyn diff::Applier>) -> Self {
        let capabilities = Capabilities { rebase: true };
        Self {
            namespaces: Namespaces::default(),
            directory: directory.into(),
            capabilities,
            applier,
            events: Events::default(),
            room: Room::default(),
            claims: Claims::default(),
        }
    }

    /// Says what the snapshotter can do beyond the minimum; everything, unless said otherwise.
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Returns the host's room, to be limited.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Collects garbage in one namespace now.
    pub fn collect(&self, namespace: &Namespace) {
        super::space::lock(&self.namespaces.space(namespace)).collect();
    }
}

#[async_trait]
impl windlass_core::Host for Host {
    /// # Errors
    /// `NotFound` when the scope names a lease that is not here.
    async fn services(&self, scope: &Scope) -> Result<Services> {
        let space = self.namespaces.space(&scope.namespace);
        let scoped = Scoped::new(space, scope.lease.clone());
        if let Some(lease) = &scope.lease
            && !scoped.lock().leases.contains_key(lease)
        {
            return Err(windlass_core::Error::not_found(format!("lease {lease} is not here")));
        }
        let directory = self.directory.join(scope.namespace.as_str());
        let snapshotter = Snapshotter::scoped(scoped.clone(), &directory, self.capabilities);
        Ok(Services {
            scope: scope.clone(),
            content: Arc::new(Content(scoped.clone())),
            images: Arc::new(Images(scoped.clone())),
            containers: Arc::new(Containers(scoped.clone())),
            leases: Arc::new(Leases(scoped.clone())),
            namespaces: Arc::new(self.namespaces.clone()),
            snapshotters: BTreeMap::from([(SNAPSHOTTER.to_owned(), Arc::new(snapshotter) as _)]).into(),
            default_snapshotter: SNAPSHOTTER.to_owned(),
            applier: Arc::clone(&self.applier),
            comparer: Arc::new(Comparer::new(Arc::new(Content(scoped.clone())))),
            collector: None,
            summaries: None,
            events: Arc::new(self.events.seen_from(&scope.namespace)),
            room: Arc::new(self.room.clone()),
            claims: self.claims.clone(),
        })
    }
}
