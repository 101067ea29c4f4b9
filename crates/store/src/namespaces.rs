//! Namespaces: labels, and the rule that only an empty one can be deleted.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::namespace::Store;
use windlass_core::{Error, Labels, Namespace, Result};

use crate::blocking::blocking;
use crate::db::schema::{CONTAINERS, CONTENTS, IMAGES, LEASES, NAMESPACES, NamespaceRecord, SNAPSHOTS};
use crate::db::{Key, View};
use crate::group::Group;
use crate::store::Shared;

/// All namespaces.
pub(crate) struct Namespaces {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl Store for Namespaces {
    async fn create(&self, namespace: &Namespace, labels: Labels) -> Result<()> {
        self.shared.transact(&namespace.clone().into(), None, move |group| group.create_namespace(&labels)).await
    }

    async fn labels(&self, namespace: &Namespace) -> Result<Labels> {
        let record = self.shared.db.read(|view| NAMESPACES.get(view, namespace.as_str()))?;
        record.map(|record| record.labels).ok_or_else(|| not_found(namespace))
    }

    async fn set_label(&self, namespace: &Namespace, key: &str, value: &str) -> Result<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.shared
            .transact(&namespace.clone().into(), None, move |group| group.set_namespace_label(&key, &value))
            .await
    }

    async fn list(&self) -> Result<Vec<Namespace>> {
        let names = self.shared.db.read(|view| NAMESPACES.keys(view, "", None, usize::MAX))?;
        names.into_iter().map(Namespace::try_from).collect()
    }

    async fn delete(&self, namespace: &Namespace) -> Result<()> {
        let ingests = self.shared.ingests.all().await?;
        let owned = |owner: &Option<_>| matches!(owner, Some((owner, _)) if owner == namespace);
        let ingests = ingests.iter().filter(|found| owned(&found.owner)).count() as u64;
        // Counted beside the writers first: of a full namespace that takes a while, of an empty one nothing.
        let (shared, full) = (self.shared.clone(), namespace.clone());
        blocking(move || shared.db.read(|view| require_empty(view, &full, ingests))).await?;
        self.shared.transact(&namespace.clone().into(), None, move |group| group.delete_namespace(ingests)).await
    }
}

impl Group<'_> {
    /// Creates the scope's namespace: [`Store::create`].
    ///
    /// # Errors
    /// As the trait's.
    pub fn create_namespace(&self, labels: &Labels) -> Result<()> {
        labels.validate()?;
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            if NAMESPACES.contains(tx, namespace.as_str())? {
                return Err(Error::already_exists(format!("namespace {namespace} exists already")));
            }
            let record = NamespaceRecord { labels: labels.clone(), created_at: SystemTime::now() };
            NAMESPACES.put(tx, namespace.as_str(), &record)
        })
    }

    /// Sets a label of the scope's namespace, or removes it with an empty value: [`Store::set_label`].
    ///
    /// # Errors
    /// As the trait's.
    pub fn set_namespace_label(&self, key: &str, value: &str) -> Result<()> {
        Labels::new().with(key, value).validate()?;
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            let mut record = NAMESPACES.get(tx, namespace.as_str())?.ok_or_else(|| not_found(namespace))?;
            record.labels.set(key, value);
            NAMESPACES.put(tx, namespace.as_str(), &record)
        })
    }

    /// Deletes the scope's namespace, in which there are so many ingests. Those have no record, so this is not for callers.
    fn delete_namespace(&self, ingests: u64) -> Result<()> {
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            require_empty(tx, namespace, ingests)?;
            NAMESPACES.remove(tx, namespace.as_str()).map(|_| ())
        })
    }
}

fn not_found(namespace: &Namespace) -> Error {
    Error::not_found(format!("namespace {namespace} does not exist")).hint("`dist namespaces ls` lists those there are")
}

/// Sees to it that there is a namespace, with nothing in it.
fn require_empty(view: &impl View, namespace: &Namespace, ingests: u64) -> Result<()> {
    if !NAMESPACES.contains(view, namespace.as_str())? {
        return Err(not_found(namespace));
    }
    let left = contents(view, namespace, ingests)?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::failed_precondition(format!("namespace {namespace} is not empty: {}", left.join(", ")))
        .hint("delete what is in it first"))
}

/// Says what is in a namespace: `3 images`, `1 lease`.
fn contents(view: &impl View, namespace: &Namespace, ingests: u64) -> Result<Vec<String>> {
    let prefix = Key::prefix([namespace.as_str()]);
    let counts = [
        ("image", IMAGES.count(view, &prefix)?),
        ("container", CONTAINERS.count(view, &prefix)?),
        ("blob", CONTENTS.count(view, &prefix)?),
        ("ingest", ingests),
        ("snapshot", SNAPSHOTS.count(view, &prefix)?),
        ("lease", LEASES.count(view, &prefix)?),
    ];
    let said = counts.into_iter().filter(|(_, count)| *count > 0).map(|(what, count)| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    });
    Ok(said.collect())
}
