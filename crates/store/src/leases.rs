//! Leases: what they are called, when they end, and what they hold, in one namespace.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::gc::{Deletion, Node};
use windlass_core::lease::{Id, Lease, Manager, Options, Resource, ResourceKind};
use windlass_core::{Error, Namespace, Result, ResultExt, Scope};

use crate::db::schema::{LEASES, RESOURCES};
use crate::db::{self, Key, Transaction, View, admit, require_lease, resource_node, text_of};
use crate::gc;
use crate::group::Group;
use crate::store::Shared;
use crate::unique::unique;

/// The leases of one namespace.
pub(crate) struct Leases {
    pub(crate) shared: Arc<Shared>,
    pub(crate) namespace: Namespace,
}

impl Leases {
    fn scope(&self) -> Scope {
        self.namespace.clone().into()
    }
}

#[async_trait]
impl Manager for Leases {
    async fn create(&self, options: Options) -> Result<Lease> {
        self.shared.transact(&self.scope(), None, move |group| group.create_lease(&options)).await
    }

    async fn delete(&self, id: &Id, deletion: Deletion) -> Result<()> {
        let id = id.clone();
        self.shared.transact(&self.scope(), None, move |group| group.delete_lease(&id)).await?;
        gc::after(&self.shared, deletion).await
    }

    async fn list(&self, filters: &[Filter]) -> Result<Vec<Lease>> {
        let leases = self.shared.db.read(|view| LEASES.all(view, &Key::prefix([self.namespace.as_str()])))?;
        Ok(leases.into_iter().map(|(_, lease)| lease).filter(|lease| any_matches(filters, lease)).collect())
    }

    async fn add_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let (id, resource) = (id.clone(), resource.clone());
        self.shared.transact(&self.scope(), None, move |group| group.add_resource(&id, &resource)).await
    }

    async fn delete_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let (id, resource) = (id.clone(), resource.clone());
        self.shared.transact(&self.scope(), None, move |group| group.delete_resource(&id, &resource)).await
    }

    async fn resources(&self, id: &Id) -> Result<Vec<Resource>> {
        // Looked at first: what comes to the disk meanwhile has a record then, and is in both.
        let unborn = self.shared.ingests.unborn_of(&self.namespace, id);
        let mut resources = self.shared.db.read(|view| resources(view, &self.namespace, id))?;
        for ingest in unborn {
            let resource = Resource { kind: ResourceKind::Ingest, id: ingest.to_string() };
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
        Ok(resources)
    }
}

impl Group<'_> {
    /// Creates a lease: [`Manager::create`].
    ///
    /// # Errors
    /// As the trait's.
    pub fn create_lease(&self, options: &Options) -> Result<Lease> {
        options.labels.validate()?;
        let id = match &options.id {
            Some(id) => id.clone(),
            None => unique().parse()?,
        };
        let created_at = SystemTime::now();
        let expires_at = options.ends(created_at)?;
        let lease = Lease { id, created_at, expires_at, labels: options.labels.clone() };
        let namespace = &self.scope.namespace;
        let key = key(namespace, &lease.id);
        self.member(|tx| {
            if LEASES.contains(tx, &key)? {
                return Err(Error::already_exists(format!("lease {} is in namespace {namespace} already", lease.id)));
            }
            // No lease holds another.
            admit(tx, &Scope::from(namespace.clone()), &[])?;
            LEASES.put(tx, &key, &lease)?;
            if let Some(at) = lease.expires_at {
                tx.activity().ends(at);
            }
            Ok(())
        })?;
        Ok(lease)
    }

    /// Deletes a lease; what it alone held becomes garbage.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete_lease(&self, id: &Id) -> Result<()> {
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            require_lease(tx, namespace, id)?;
            remove_lease(tx, &key(namespace, id))
        })
    }

    /// Adds something to a lease.
    ///
    /// # Errors
    /// `NotFound` when there is no such lease; `InvalidArgument` when the resource's id is not one of its kind.
    pub fn add_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let node = resource_node(resource).context(|| format!("add to lease {id}"))?;
        let scope = Scope { namespace: self.scope.namespace.clone(), lease: Some(id.clone()) };
        self.member(|tx| db::hold(tx, &scope, &[node]))
    }

    /// Takes something out of a lease.
    ///
    /// # Errors
    /// As those of [`Group::add_resource`].
    pub fn delete_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let node = resource_node(resource).context(|| format!("take out of lease {id}"))?;
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            require_lease(tx, namespace, id)?;
            tx.deleted();
            RESOURCES.remove(tx, &Key::of([namespace.as_str(), id.as_str(), &text_of(&node)])).map(|_| ())
        })
    }

    /// Returns what a lease holds, as the group has it so far.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn resources(&self, id: &Id) -> Result<Vec<Resource>> {
        resources(self.tx, &self.scope.namespace, id)
    }
}

fn key(namespace: &Namespace, id: &Id) -> String {
    Key::of([namespace.as_str(), id.as_str()])
}

fn resources(view: &impl View, namespace: &Namespace, id: &Id) -> Result<Vec<Resource>> {
    require_lease(view, namespace, id)?;
    let prefix = Key::prefix([namespace.as_str(), id.as_str()]);
    let held = RESOURCES.keys(view, &prefix, None, usize::MAX)?;
    Ok(held.iter().filter_map(|key| resource(key.strip_prefix(&prefix)?)).collect())
}

/// Removes a lease and what it holds, by the key of its record.
pub(crate) fn remove_lease(tx: &Transaction, key: &str) -> Result<()> {
    tx.deleted();
    for held in RESOURCES.keys(tx, &Key::prefix([key]), None, usize::MAX)? {
        RESOURCES.remove(tx, &held)?;
    }
    LEASES.remove(tx, key).map(|_| ())
}

/// Returns the resource that a node's text stands for.
fn resource(text: &str) -> Option<Resource> {
    let (kind, id) = match db::node(text)? {
        Node::Content(digest) => (ResourceKind::Content, digest.to_string()),
        Node::Snapshot { snapshotter, key } => (ResourceKind::Snapshot(snapshotter), key),
        Node::Ingest(ingest) => (ResourceKind::Ingest, ingest),
        Node::Image(name) => (ResourceKind::Image, name),
        Node::Lease(_) | Node::Container(_) => return None,
    };
    Some(Resource { kind, id })
}
