//! Records that do not decode: made anew from what still says what was in them, or removed.

use std::path::Path;
use std::time::SystemTime;

use futures::TryStreamExt;
use windlass_core::content::Info;
use windlass_core::gc::{Node, snapshot_label};
use windlass_core::image::Image;
use windlass_core::snapshot::{self, Key as SnapshotKey, Name, State};
use windlass_core::{Digest, Error, Labels, Namespace, Result};

use super::derived;
use super::documents::Document;
use super::inner::InnerName;
use crate::db::schema::{CONTAINERS, CONTENTS, IMAGES, LINKS, NAMESPACES, SnapshotRecord};
use crate::db::{Key, Transaction, node};
use crate::leases::remove_lease;
use crate::snapshots::{Place, forget};
use crate::store::Store;

/// Deals with the damaged record of a table; the parts of its key are joined by `/`.
pub(super) async fn mend(store: &Store, table: &str, key: &str) -> Result<()> {
    if table == "snapshots" {
        return snapshot(store, key).await;
    }
    let (table, key) = (table.to_owned(), key.to_owned());
    let root = store.root().to_owned();
    let mend = move |tx: &Transaction| {
        if table == "namespaces" {
            return derived::namespace(tx, &key.parse()?);
        }
        let (namespace, id) = key.split_once('/').ok_or_else(|| Error::internal(format!("key {key} has one part")))?;
        let (record, namespace): (String, Namespace) = (Key::of([namespace, id]), namespace.parse()?);
        match table.as_str() {
            "contents" => content(tx, &root, &namespace, &id.parse()?),
            "images" => image(tx, &root, &namespace, id),
            "leases" => remove_lease(tx, &record),
            "containers" => {
                CONTAINERS.remove(tx, &record)?;
                derived::relink(tx, &namespace, &format!("container/{id}"))
            }
            table => Err(Error::internal(format!("table {table} has no records of that kind"))),
        }
    };
    store.shared().db.write(mend).await
}

/// What a blob is can be seen from its bytes; what was said of it may still be said elsewhere.
fn content(tx: &Transaction, root: &Path, namespace: &Namespace, digest: &Digest) -> Result<()> {
    let key = Key::of([namespace.as_str(), &digest.to_string()]);
    let path = root.join("content/blobs").join(digest.algorithm().as_str()).join(digest.hex());
    let Ok(metadata) = std::fs::metadata(&path) else {
        CONTENTS.remove(tx, &key)?;
        return derived::relink(tx, namespace, &format!("content/{digest}"));
    };
    let (size, now) = (metadata.len(), SystemTime::now());
    let mut labels = Document::find_out(root, digest).map_or_else(Labels::new, |(_, found)| found.labels());
    for other in NAMESPACES.keys(tx, "", None, usize::MAX)? {
        if let Ok(Some(info)) = CONTENTS.get(tx, &Key::of([&other, &digest.to_string()])) {
            labels.extend(&info.labels);
        }
    }
    // The snapshot that a config stands for is known from its links.
    let node = format!("content/{digest}");
    if let Ok(Some(links)) = LINKS.get(tx, &Key::of([namespace.as_str(), &node])) {
        for to in links.to.iter().filter_map(|to| crate::db::node(to)) {
            if let Node::Snapshot { snapshotter, key } = to {
                labels.set(snapshot_label(&snapshotter), key);
            }
        }
    }
    let info = Info { digest: digest.clone(), size, created_at: now, updated_at: now, labels };
    CONTENTS.put(tx, &key, &info)?;
    derived::relink(tx, namespace, &node)
}

/// What an image points at is known from its links.
fn image(tx: &Transaction, root: &Path, namespace: &Namespace, name: &str) -> Result<()> {
    let key = Key::of([namespace.as_str(), name]);
    let links = LINKS.get(tx, &Key::of([namespace.as_str(), &format!("image/{name}")]))?.unwrap_or_default();
    let target = links.parent.iter().chain(&links.to).find_map(|to| match node(to) {
        Some(Node::Content(digest)) => Some(digest),
        _ => None,
    });
    match target.and_then(|target| Document::find_out(root, &target)) {
        Some((descriptor, _)) => {
            IMAGES.put(tx, &key, &Image::new(name.parse()?, descriptor))?;
        }
        None => drop(IMAGES.remove(tx, &key)?),
    }
    derived::relink(tx, namespace, &format!("image/{name}"))
}

/// What a snapshot is, the snapshotter knows; of several with that name, the one that another namespace has.
async fn snapshot(store: &Store, key: &str) -> Result<()> {
    let mut parts = key.splitn(3, '/');
    let (Some(namespace), Some(snapshotter), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Error::internal(format!("key {key} has too few parts")));
    };
    let place = Place { namespace: namespace.parse()?, snapshotter: snapshotter.to_owned() };
    let key: SnapshotKey = key.parse()?;
    let used = store.placed(snapshotter)?;
    let behind = store.shared().behind(snapshotter)?;
    let there: Vec<snapshot::Info> = behind.walk(&[]).try_collect().await?;
    let candidates = there.iter().filter(|info| InnerName::of(&info.key).is_some_and(|inner| inner.key == key));
    // Last wins: first any, then one of this namespace, then one that others refer to.
    let best = candidates.max_by_key(|info| {
        let ours = InnerName::of(&info.key).is_some_and(|inner| inner.namespace == place.namespace);
        let shared = used.iter().any(|placed| placed.inner == info.key && placed.key == key);
        (info.state == State::Committed, shared, ours, info.created_at)
    });
    let record = best.map(|info| recovered(info, &key));
    let write = move |tx: &Transaction| match &record {
        Some(record) => place.put(tx, record),
        None => forget(tx, &place, &key, None),
    };
    store.shared().db.write(write).await
}

/// Returns the record of a snapshot as the snapshotter knows it.
pub(super) fn recovered(info: &snapshot::Info, key: &SnapshotKey) -> SnapshotRecord {
    let parent = info.parent.as_ref().and_then(|parent| InnerName::of(parent.as_key()));
    let parent = parent.and_then(|parent| parent.key.as_str().parse::<Name>().ok());
    let inner = info.key.clone();
    SnapshotRecord { inner, info: snapshot::Info { key: key.clone(), parent, ..info.clone() } }
}

/// Records the parent of a snapshot, and what that stands on, as far as they have none.
pub(super) async fn parent(store: &Store, place: Place, child: &SnapshotKey, parent: &Name) -> Result<()> {
    let placed = store.placed(&place.snapshotter)?;
    let own = placed.iter().find(|placed| placed.namespace == place.namespace && placed.key == *child);
    let own = own.ok_or_else(|| Error::not_found(format!("snapshot {child} is not recorded")))?;
    let behind = store.shared().behind(&place.snapshotter)?;
    let mut next = behind.stat(&own.inner).await?.parent;
    let mut key = Some(parent.as_key().clone());
    while let (Some(inner), Some(name)) = (next, key) {
        if placed.iter().any(|placed| placed.namespace == place.namespace && placed.key == name) {
            return Ok(());
        }
        let info = behind.stat(inner.as_key()).await?;
        let record = recovered(&info, &name);
        key = record.info.parent.as_ref().map(|parent| parent.as_key().clone());
        next = info.parent;
        let place = place.clone();
        store.shared().db.write(move |tx| place.put(tx, &record)).await?;
    }
    Ok(())
}
