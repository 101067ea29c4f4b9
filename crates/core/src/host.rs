//! Hosts: where services come from, and the scope they are bound to.
//!
//! The engine in this process is a host; a client of a daemon is another. Nothing is ambient: namespace and lease are a
//! [`Scope`], handed over once, and the services that come back are bound to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::claim::Claims;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::gc::{self, Deletion};
use crate::lease::Lease;
use crate::namespace::Namespace;
use crate::{Listing, container, content, diff, event, image, inspect, lease, namespace, room, snapshot};

/// The namespace that operations happen in, and the lease that holds what they create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The namespace.
    pub namespace: Namespace,
    /// The lease.
    pub lease: Option<lease::Id>,
}

impl From<Namespace> for Scope {
    fn from(namespace: Namespace) -> Self {
        Self { namespace, lease: None }
    }
}

/// Where services come from.
#[async_trait]
pub trait Host: Send + Sync {
    /// Returns the services bound to a scope.
    async fn services(&self, scope: &Scope) -> Result<Services>;
}

/// The services of a host, bound to a scope. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// What the services are bound to.
    pub scope: Scope,
    /// Content.
    pub content: Arc<dyn content::Store>,
    /// Images.
    pub images: Arc<dyn image::Store>,
    /// Containers.
    pub containers: Arc<dyn container::Store>,
    /// Leases.
    pub leases: Arc<dyn lease::Manager>,
    /// Namespaces; the only service that sees all of them.
    pub namespaces: Arc<dyn namespace::Store>,
    /// Snapshotters by name.
    pub snapshotters: Arc<BTreeMap<String, Arc<dyn snapshot::Snapshotter>>>,
    /// The snapshotter to use when none is named.
    pub default_snapshotter: String,
    /// Applies layers.
    pub applier: Arc<dyn diff::Applier>,
    /// Makes layers of differences, and writes them into [`Services::content`].
    pub comparer: Arc<dyn diff::Comparer>,
    /// Collects garbage; none where a host cannot be asked to.
    pub collector: Option<Arc<dyn gc::Collector>>,
    /// Lists images with what they come to; none where their documents have to be read.
    pub summaries: Option<Arc<dyn inspect::Summaries>>,
    /// What happens, in the scope's namespace unless a filter names another.
    pub events: Arc<dyn event::Exchange>,
    /// How much is free where content and snapshots are kept.
    pub room: Arc<dyn room::Room>,
    /// Who does what at the moment, in any namespace.
    pub claims: Claims,
}

impl Services {
    /// Returns who collects garbage.
    ///
    /// # Errors
    /// `Unimplemented` where nobody can be asked to.
    pub fn collector(&self) -> Result<&dyn gc::Collector> {
        self.collector.as_deref().ok_or_else(|| {
            Error::unimplemented("garbage cannot be collected, planned or explained over this connection")
                .hint("the daemon collects by itself; a daemon of this project can be asked")
        })
    }

    /// Lists the images that any of the filters matches, with what they come to.
    pub fn summaries(&self, filters: &[Filter]) -> Listing<inspect::Summarized> {
        match &self.summaries {
            Some(summaries) => summaries.list(filters),
            None => inspect::summarize(self.images.list(filters), self.content.clone()),
        }
    }

    /// Returns a snapshotter by name, or the default one.
    ///
    /// # Errors
    /// `NotFound` that lists those there are.
    pub fn snapshotter(&self, name: Option<&str>) -> Result<(&str, &Arc<dyn snapshot::Snapshotter>)> {
        let name = name.unwrap_or(&self.default_snapshotter);
        let found = self.snapshotters.get_key_value(name).map(|(name, snapshotter)| (name.as_str(), snapshotter));
        found.ok_or_else(|| {
            let there: Vec<&str> = self.snapshotters.keys().map(String::as_str).collect();
            Error::not_found(format!("snapshotter {name:?} is not here"))
                .hint(format!("there are: {}", there.join(", ")))
        })
    }
}

/// Services whose scope has a lease: what a workflow that creates things asks for, so that one that forgot its lease
/// does not compile.
#[derive(Clone)]
pub struct Leased {
    services: Services,
    lease: lease::Id,
}

impl Leased {
    /// Creates a lease in a namespace and returns the services bound to both; a lease that cannot be joined is deleted.
    pub async fn acquire(host: &dyn Host, namespace: &Namespace, options: lease::Options) -> Result<Self> {
        let leases = host.services(&namespace.clone().into()).await?.leases;
        let Lease { id, .. } = leases.create(options).await?;
        match Self::join(host, namespace, id.clone()).await {
            Ok(leased) => Ok(leased),
            Err(error) => match leases.delete(&id, Deletion::Background).await {
                Ok(()) => Err(error),
                Err(kept) => Err(error.context(format!("lease {id} stays behind ({kept})"))),
            },
        }
    }

    /// Returns the services bound to a lease that exists.
    pub async fn join(host: &dyn Host, namespace: &Namespace, lease: lease::Id) -> Result<Self> {
        let scope = Scope { namespace: namespace.clone(), lease: Some(lease.clone()) };
        Ok(Self { services: host.services(&scope).await?, lease })
    }

    /// Returns the lease.
    pub fn lease(&self) -> &lease::Id {
        &self.lease
    }

    /// Deletes the lease: from here on only what recorded objects refer to is kept.
    ///
    /// With [`Deletion::Synchronous`] the rest is gone when the call returns.
    pub async fn release(self, deletion: Deletion) -> Result<()> {
        self.services.leases.delete(&self.lease, deletion).await
    }
}

impl std::ops::Deref for Leased {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}
