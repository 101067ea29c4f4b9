//! Containers: records of what containers are made of, in one namespace.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::container::{Container, Store};
use windlass_core::field::{FieldMask, FieldPath};
use windlass_core::filter::Filter;
use windlass_core::gc::Node;
use windlass_core::{Error, Listing, Namespace, Result, ResultExt, Scope, identifier};

use crate::db::schema::CONTAINERS;
use crate::db::{Key, Links, Transaction, admit, listing, set_links, unlink};
use crate::group::Group;
use crate::store::Shared;

/// The containers of one namespace.
pub(crate) struct Containers {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl Store for Containers {
    async fn get(&self, id: &str) -> Result<Container> {
        let key = key(&self.scope.namespace, id)?;
        self.shared.db.read(|view| CONTAINERS.get(view, &key))?.ok_or_else(|| not_found(&self.scope.namespace, id))
    }

    fn list(&self, filters: &[Filter]) -> Listing<Container> {
        let prefix = Key::prefix([self.scope.namespace.as_str()]);
        listing(self.shared.clone(), &CONTAINERS, prefix, filters, |container| container)
    }

    async fn create(&self, container: &Container) -> Result<Container> {
        let container = container.clone();
        self.shared.transact(&self.scope, None, move |group| group.create_container(&container)).await
    }

    async fn update(&self, container: &Container, mask: &FieldMask) -> Result<Container> {
        let (container, mask) = (container.clone(), mask.clone());
        self.shared.transact(&self.scope, None, move |group| group.update_container(&container, &mask)).await
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.shared.transact(&self.scope, None, move |group| group.delete_container(&id)).await
    }
}

impl Group<'_> {
    /// Returns the record of a container, as the group has it so far.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn container(&self, id: &str) -> Result<Container> {
        let namespace = &self.scope.namespace;
        CONTAINERS.get(self.tx, &key(namespace, id)?)?.ok_or_else(|| not_found(namespace, id))
    }

    /// Creates the record of a container: [`Store::create`].
    ///
    /// # Errors
    /// As the trait's.
    pub fn create_container(&self, container: &Container) -> Result<Container> {
        let namespace = &self.scope.namespace;
        let key = key(namespace, &container.id)?;
        validate(container).context(|| format!("create container {}", container.id))?;
        let now = SystemTime::now();
        let container = Container { created_at: now, updated_at: now, ..container.clone() };
        self.member(|tx| {
            if CONTAINERS.contains(tx, &key)? {
                let id = &container.id;
                return Err(Error::already_exists(format!("container {id} is in namespace {namespace} already")));
            }
            admit(tx, self.scope, &[])?;
            put(tx, namespace, &key, &container)
        })?;
        Ok(container)
    }

    /// Changes the fields of a container that the mask names: [`Store::update`].
    ///
    /// # Errors
    /// As the trait's.
    pub fn update_container(&self, container: &Container, mask: &FieldMask) -> Result<Container> {
        let namespace = &self.scope.namespace;
        let key = key(namespace, &container.id)?;
        let update = |tx: &Transaction| {
            let before = self.container(&container.id)?;
            let container = Container { updated_at: SystemTime::now(), ..changed(before, container, mask)? };
            put(tx, namespace, &key, &container)?;
            Ok(container)
        };
        self.member(update).context(|| format!("update container {}", container.id))
    }

    /// Deletes the record of a container.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete_container(&self, id: &str) -> Result<()> {
        let namespace = &self.scope.namespace;
        let key = key(namespace, id)?;
        self.member(|tx| {
            if !CONTAINERS.remove(tx, &key)? {
                return Err(not_found(namespace, id));
            }
            unlink(tx, namespace, &Node::Container(id.to_owned()))
        })
    }
}

fn key(namespace: &Namespace, id: &str) -> Result<String> {
    identifier::validate("container", id)?;
    Ok(Key::of([namespace.as_str(), id]))
}

fn not_found(namespace: &Namespace, id: &str) -> Error {
    Error::not_found(format!("container {id} is not in namespace {namespace}"))
}

fn put(tx: &Transaction, namespace: &Namespace, key: &str, container: &Container) -> Result<()> {
    CONTAINERS.put(tx, key, container)?;
    set_links(tx, namespace, &Node::Container(container.id.clone()), &links(container))
}

/// Returns what the record of a container refers to.
pub(crate) fn links(container: &Container) -> Links {
    // A root always has links, so that marking finds it and what is tied to it.
    let links = Links { root: true, ..Links::of(&container.labels) };
    match (&container.snapshotter, &container.snapshot_key) {
        (Some(snapshotter), Some(snapshot)) => {
            links.to(&Node::Snapshot { snapshotter: snapshotter.clone(), key: snapshot.to_string() })
        }
        _ => links,
    }
}

fn validate(container: &Container) -> Result<()> {
    container.labels.validate()?;
    if container.runtime.name.is_empty() {
        return Err(Error::invalid_argument("the runtime of a container must be named"));
    }
    match (&container.snapshotter, &container.snapshot_key) {
        (None, Some(key)) => Err(Error::invalid_argument(format!("snapshot {key} of a container needs a snapshotter"))),
        (Some(snapshotter), _) => identifier::validate("snapshotter", snapshotter),
        (None, None) => Ok(()),
    }
}

/// Returns the record after a change of the fields that the mask names. What a container runs on is fixed once it is
/// said: runtime and snapshotter, as upstream.
fn changed(mut container: Container, change: &Container, mask: &FieldMask) -> Result<Container> {
    if mask.is_all() {
        let snapshotter_changes = container.snapshotter.is_some() && container.snapshotter != change.snapshotter;
        if container.runtime.name != change.runtime.name || snapshotter_changes {
            return Err(Error::invalid_argument("runtime and snapshotter of a container cannot be changed")
                .hint("name the fields to change, or delete the container and create another"));
        }
        let Container { id, created_at, .. } = container;
        container = Container { id, created_at, ..change.clone() };
    }
    for path in mask.apply_to_labels(&mut container.labels, &change.labels) {
        change_field(&mut container, change, path)?;
    }
    validate(&container)?;
    Ok(container)
}

fn change_field(container: &mut Container, change: &Container, path: &FieldPath) -> Result<()> {
    match (path.field(), path.key()) {
        ("image", None) => container.image.clone_from(&change.image),
        ("spec", None) => container.spec.clone_from(&change.spec),
        ("snapshotkey" | "snapshot_key", None) => container.snapshot_key.clone_from(&change.snapshot_key),
        ("extensions", None) => container.extensions.clone_from(&change.extensions),
        ("extensions", Some(key)) => match change.extensions.get(key) {
            Some(value) => drop(container.extensions.insert(key.to_owned(), value.clone())),
            None => drop(container.extensions.remove(key)),
        },
        _ => {
            return Err(Error::invalid_argument(format!("field {path} of a container cannot be changed"))
                .hint("labels, image, spec, snapshotkey and extensions can"));
        }
    }
    Ok(())
}
