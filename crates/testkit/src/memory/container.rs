//! Records of containers in memory.

use std::time::SystemTime;

use async_trait::async_trait;
use futures::StreamExt as _;
use windlass_core::container::{Container, Store};
use windlass_core::field::FieldMask;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::{Error, Listing, Result, identifier};

use super::space::{Scoped, unknown_field};

/// A container store that keeps its records in memory.
#[derive(Clone, Default)]
pub struct Containers(pub(super) Scoped);

fn absent(id: &str) -> Error {
    Error::not_found(format!("container {id:?} is not here"))
}

#[async_trait]
impl Store for Containers {
    async fn get(&self, id: &str) -> Result<Container> {
        self.0.lock().containers.get(id).cloned().ok_or_else(|| absent(id))
    }

    fn list(&self, filters: &[Filter]) -> Listing<Container> {
        let space = self.0.lock();
        let matching = space.containers.values().filter(|container| any_matches(filters, *container));
        futures::stream::iter(matching.cloned().map(Ok).collect::<Vec<_>>()).boxed()
    }

    async fn create(&self, container: &Container) -> Result<Container> {
        identifier::validate("container", &container.id)?;
        container.labels.validate()?;
        let mut space = self.0.lock();
        if space.containers.contains_key(&container.id) {
            return Err(Error::already_exists(format!("container {} is here", container.id)));
        }
        let now = SystemTime::now();
        let container = Container { created_at: now, updated_at: now, ..container.clone() };
        space.exists = true;
        space.containers.insert(container.id.clone(), container.clone());
        Ok(container)
    }

    async fn update(&self, container: &Container, mask: &FieldMask) -> Result<Container> {
        let mut space = self.0.lock();
        let there = space.containers.get_mut(&container.id).ok_or_else(|| absent(&container.id))?;
        let changed = changed(there, container, mask)?;
        changed.labels.validate()?;
        there.clone_from(&changed);
        Ok(changed)
    }

    async fn delete(&self, id: &str) -> Result<()> {
        self.0.lock().containers.remove(id).map(drop).ok_or_else(|| absent(id))
    }
}

fn changed(container: &Container, change: &Container, mask: &FieldMask) -> Result<Container> {
    let (created_at, updated_at) = (container.created_at, SystemTime::now());
    if mask.is_all() {
        return Ok(Container { created_at, updated_at, ..change.clone() });
    }
    let mut changed = Container { updated_at, ..container.clone() };
    for path in mask.apply_to_labels(&mut changed.labels, &change.labels) {
        match (path.field(), path.key()) {
            ("image", None) => changed.image.clone_from(&change.image),
            ("spec", None) => changed.spec.clone_from(&change.spec),
            ("runtime", None) => changed.runtime.clone_from(&change.runtime),
            ("snapshotter", None) => changed.snapshotter.clone_from(&change.snapshotter),
            ("snapshotkey", None) => changed.snapshot_key.clone_from(&change.snapshot_key),
            ("extensions", None) => changed.extensions.clone_from(&change.extensions),
            ("extensions", Some(key)) => {
                match change.extensions.get(key) {
                    Some(extension) => changed.extensions.insert(key.to_owned(), extension.clone()),
                    None => changed.extensions.remove(key),
                };
            }
            _ => return Err(unknown_field(path)),
        }
    }
    Ok(changed)
}
