//! The records of snapshots: where they are, and who refers to what.

use std::collections::HashSet;

use windlass_core::gc::Node;
use windlass_core::snapshot::{Info, Key, Name, State};
use windlass_core::{Error, Namespace, Result};

use crate::db::schema::{CHILDREN, LINKS, NAMESPACES, SNAPSHOTS, SnapshotRecord};
use crate::db::{self, Links, Present, Transaction, View, set_links};

/// How many children are looked for when any would do.
const SOME: usize = 3;

/// The records of one snapshotter in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) namespace: Namespace,
    pub(crate) snapshotter: String,
}

impl Place {
    /// Returns the key of a record.
    pub(super) fn key(&self, key: &Key) -> String {
        db::Key::of([self.namespace.as_str(), &self.snapshotter, key.as_str()])
    }

    /// Returns what the keys of all records here begin with.
    pub(super) fn prefix(&self) -> String {
        db::Key::prefix([self.namespace.as_str(), &self.snapshotter])
    }

    pub(crate) fn node(&self, key: &Key) -> Node {
        Node::Snapshot { snapshotter: self.snapshotter.clone(), key: key.to_string() }
    }

    /// Returns what a record refers to.
    pub(crate) fn links(&self, info: &Info) -> Links {
        let parent = info.parent.as_ref().map(|parent| self.node(parent.as_key()));
        Links::of(&info.labels).on(parent.as_ref())
    }

    pub(crate) fn get(&self, view: &impl View, key: &Key) -> Result<Option<SnapshotRecord>> {
        SNAPSHOTS.get(view, &self.key(key))
    }

    /// Returns a record.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) fn require(&self, view: &impl View, key: &Key) -> Result<SnapshotRecord> {
        self.get(view, key)?.ok_or_else(|| {
            Error::not_found(format!(
                "snapshot {key} is not in snapshotter {} of namespace {}",
                self.snapshotter, self.namespace
            ))
            .hint("`dist snapshots ls` lists those there are")
        })
    }

    /// Returns the record of a parent.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it is not committed.
    pub(super) fn require_parent(&self, view: &impl View, parent: &Name) -> Result<SnapshotRecord> {
        let record = self.require(view, parent.as_key())?;
        if record.info.state != State::Committed {
            return Err(Error::failed_precondition(format!("parent {parent} is {}, not committed", record.info.state)));
        }
        Ok(record)
    }

    /// Returns some of the snapshots that stand on another.
    pub(super) fn children(&self, view: &impl View, key: &Key) -> Result<Vec<String>> {
        let prefix = db::Key::prefix([self.namespace.as_str(), &self.snapshotter, key.as_str()]);
        let keys = CHILDREN.keys(view, &prefix, None, SOME)?;
        Ok(keys.into_iter().filter_map(|child| child.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    /// Writes a record and what it refers to.
    pub(crate) fn put(&self, tx: &Transaction, record: &SnapshotRecord) -> Result<()> {
        let key = &record.info.key;
        SNAPSHOTS.put(tx, &self.key(key), record)?;
        if let Some(parent) = &record.info.parent {
            CHILDREN.put(tx, &self.child(parent, key), &Present)?;
        }
        set_links(tx, &self.namespace, &self.node(key), &self.links(&record.info))
    }

    /// Tells whether any namespace has a record, under the same name, of the same snapshot behind.
    pub(super) fn refers_elsewhere(&self, view: &impl View, key: &Key, inner: &Key) -> Result<bool> {
        for place in self.everywhere(view)? {
            if place.get(view, key)?.is_some_and(|record| record.inner == *inner) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the same place in every namespace.
    pub(super) fn everywhere(&self, view: &impl View) -> Result<Vec<Place>> {
        let namespaces = NAMESPACES.keys(view, "", None, usize::MAX)?;
        let place =
            |name: String| Ok(Place { namespace: Namespace::try_from(name)?, snapshotter: self.snapshotter.clone() });
        namespaces.into_iter().map(place).collect()
    }

    fn child(&self, parent: &Name, key: &Key) -> String {
        db::Key::of([self.namespace.as_str(), &self.snapshotter, parent.as_str(), key.as_str()])
    }
}

/// Removes the record of a snapshot and what it refers to.
pub(crate) fn forget(tx: &Transaction, place: &Place, key: &Key, parent: Option<&Name>) -> Result<()> {
    SNAPSHOTS.remove(tx, &place.key(key))?;
    if let Some(parent) = parent {
        CHILDREN.remove(tx, &place.child(parent, key))?;
    }
    LINKS.remove(tx, &db::Key::of([place.namespace.as_str(), &db::text_of(&place.node(key))])).map(|_| ())
}

/// Returns the names behind that any record of a snapshotter refers to.
pub(crate) fn inner_names(view: &impl View, snapshotter: &str) -> Result<HashSet<Key>> {
    let mut names = HashSet::new();
    for namespace in NAMESPACES.keys(view, "", None, usize::MAX)? {
        let prefix = db::Key::prefix([namespace.as_str(), snapshotter]);
        names.extend(SNAPSHOTS.all(view, &prefix)?.into_iter().map(|(_, record)| record.inner));
    }
    Ok(names)
}
