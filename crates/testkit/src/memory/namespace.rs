//! Namespaces in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use windlass_core::namespace::{Namespace, Store};
use windlass_core::{Error, Labels, Result};

use super::space::{Space, lock};

/// A namespace store that keeps its records in memory, and the records of all namespaces.
#[derive(Clone, Default)]
pub struct Namespaces(Arc<Mutex<BTreeMap<Namespace, Arc<Mutex<Space>>>>>);

fn absent(namespace: &Namespace) -> Error {
    Error::not_found(format!("namespace {namespace} is not here"))
}

impl Namespaces {
    /// Returns the records of a namespace, which exists once there are any.
    pub(super) fn space(&self, namespace: &Namespace) -> Arc<Mutex<Space>> {
        let mut spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(spaces.entry(namespace.clone()).or_default())
    }

    /// Changes the labels of a namespace that exists; checked before they are kept.
    fn change<T>(&self, namespace: &Namespace, change: impl FnOnce(&mut Labels) -> T) -> Result<T> {
        let space = self.space(namespace);
        let mut space = lock(&space);
        if !space.exists {
            return Err(absent(namespace));
        }
        let mut labels = space.labels.clone();
        let returned = change(&mut labels);
        labels.validate()?;
        space.labels = labels;
        Ok(returned)
    }
}

#[async_trait]
impl Store for Namespaces {
    async fn create(&self, namespace: &Namespace, labels: Labels) -> Result<()> {
        labels.validate()?;
        let space = self.space(namespace);
        let mut space = lock(&space);
        if space.exists {
            return Err(Error::already_exists(format!("namespace {namespace} is here")));
        }
        (space.exists, space.labels) = (true, labels);
        Ok(())
    }

    async fn labels(&self, namespace: &Namespace) -> Result<Labels> {
        self.change(namespace, |labels| labels.clone())
    }

    async fn set_label(&self, namespace: &Namespace, key: &str, value: &str) -> Result<()> {
        self.change(namespace, |labels| labels.set(key, value))
    }

    async fn list(&self) -> Result<Vec<Namespace>> {
        let spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(spaces.iter().filter(|(_, space)| lock(space).exists).map(|(namespace, _)| namespace.clone()).collect())
    }

    async fn delete(&self, namespace: &Namespace) -> Result<()> {
        let space = self.space(namespace);
        let mut space = lock(&space);
        if !space.exists {
            return Err(absent(namespace));
        }
        let left = [
            ("images", space.images.len()),
            ("blobs", space.blobs.len()),
            ("ingests", space.ingests.len()),
            ("containers", space.containers.len()),
            ("leases", space.leases.len()),
            ("snapshots", space.snapshots.len()),
        ];
        let left: Vec<String> =
            left.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
        if !left.is_empty() {
            return Err(Error::failed_precondition(format!("namespace {namespace} still has {}", left.join(", "))));
        }
        (space.exists, space.labels) = (false, Labels::new());
        Ok(())
    }
}
