//! Leases: what they are called, when they end, and what they hold, in one namespace.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::gc::{self as edges, Deletion, Node};
use windlass_core::lease::{Id, Lease, Manager, Options, Resource, ResourceKind};
use windlass_core::{Error, Labels, Namespace, Result, ResultExt, Scope};

use crate::db::schema::{LEASES, RESOURCES};
use crate::db::{self, Key, Present, Transaction, admit, parse_expiry, require_lease, resource_node, text_of};
use crate::gc;
use crate::store::Shared;
use crate::unique::unique;

/// The leases of one namespace.
pub(crate) struct Leases {
    pub(crate) shared: Arc<Shared>,
    pub(crate) namespace: Namespace,
}

impl Leases {
    fn key(&self, id: &Id) -> String {
        Key::of([self.namespace.as_str(), id.as_str()])
    }
}

#[async_trait]
impl Manager for Leases {
    async fn create(&self, options: Options) -> Result<Lease> {
        options.labels.validate()?;
        let id = match options.id {
            Some(id) => id,
            None => unique().parse()?,
        };
        let created_at = SystemTime::now();
        let expires_at = match options.expiry {
            Some(expiry) => created_at.checked_add(expiry),
            None => expiry_of(&options.labels)?,
        };
        let lease = Lease { id, created_at, expires_at, labels: options.labels };
        let (key, scope) = (self.key(&lease.id), Scope::from(self.namespace.clone()));
        let create = move |tx: &Transaction| {
            if LEASES.contains(tx, &key)? {
                return Err(Error::already_exists(format!(
                    "lease {} is in namespace {} already",
                    lease.id, scope.namespace
                )));
            }
            admit(tx, &scope, &[])?;
            LEASES.put(tx, &key, &lease)?;
            if let Some(at) = lease.expires_at {
                tx.activity().ends(at);
            }
            Ok(lease.clone())
        };
        self.shared.db.write(create).await
    }

    async fn delete(&self, id: &Id, deletion: Deletion) -> Result<()> {
        let (namespace, id) = (self.namespace.clone(), id.clone());
        let delete = move |tx: &Transaction| {
            require_lease(tx, &namespace, &id)?;
            remove_lease(tx, &Key::of([namespace.as_str(), id.as_str()]))
        };
        self.shared.db.write(delete).await?;
        gc::after(&self.shared, deletion).await
    }

    async fn list(&self, filters: &[Filter]) -> Result<Vec<Lease>> {
        let leases = self.shared.db.read(|view| LEASES.all(view, &Key::prefix([self.namespace.as_str()])))?;
        Ok(leases.into_iter().map(|(_, lease)| lease).filter(|lease| any_matches(filters, lease)).collect())
    }

    async fn add_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let node = resource_node(resource).context(|| format!("add to lease {id}"))?;
        let scope = Scope { namespace: self.namespace.clone(), lease: Some(id.clone()) };
        self.shared.db.write(move |tx| db::hold(tx, &scope, std::slice::from_ref(&node))).await
    }

    async fn delete_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let node = resource_node(resource).context(|| format!("take out of lease {id}"))?;
        let (namespace, id) = (self.namespace.clone(), id.clone());
        let delete = move |tx: &Transaction| {
            require_lease(tx, &namespace, &id)?;
            tx.deleted();
            RESOURCES.remove(tx, &Key::of([namespace.as_str(), id.as_str(), &text_of(&node)])).map(|_| ())
        };
        self.shared.db.write(delete).await
    }

    async fn resources(&self, id: &Id) -> Result<Vec<Resource>> {
        let prefix = Key::prefix([self.namespace.as_str(), id.as_str()]);
        let held: Vec<(String, Present)> = self.shared.db.read(|view| {
            require_lease(view, &self.namespace, id)?;
            RESOURCES.all(view, &prefix)
        })?;
        Ok(held.iter().filter_map(|(key, _)| resource(key.strip_prefix(&prefix)?)).collect())
    }
}

/// Removes a lease and what it holds, by the key of its record.
pub(crate) fn remove_lease(tx: &Transaction, key: &str) -> Result<()> {
    tx.deleted();
    for held in RESOURCES.keys(tx, &Key::prefix([key]), None, usize::MAX)? {
        RESOURCES.remove(tx, &held)?;
    }
    LEASES.remove(tx, key).map(|_| ())
}

/// Returns the expiry that containerd's clients write as a label.
fn expiry_of(labels: &Labels) -> Result<Option<SystemTime>> {
    let Some(text) = labels.get(edges::EXPIRE) else { return Ok(None) };
    parse_expiry(text).map(Some).ok_or_else(|| {
        Error::invalid_argument(format!("label {} of a lease is no time: {text:?}", edges::EXPIRE))
            .hint("it looks like 2026-11-20T10:00:00Z")
    })
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
