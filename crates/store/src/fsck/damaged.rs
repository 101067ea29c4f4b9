//! Records that do not decode: made anew from what still says what was in them, or removed.

use std::time::SystemTime;

use futures::TryStreamExt;
use windlass_core::content::Info;
use windlass_core::gc::{Node, REF_SNAPSHOT, snapshot_label};
use windlass_core::image::Image;
use windlass_core::snapshot::{self, Key as SnapshotKey, Name, State};
use windlass_core::{Digest, Error, Labels, Namespace, Result};

use super::documents::Document;
use super::inner::InnerName;
use super::mend::Placed;
use super::{Bytes, derived};
use crate::db::schema::{CONTAINERS, CONTENTS, IMAGES, LINKS, NAMESPACES, SnapshotRecord};
use crate::db::{Key, Transaction, node};
use crate::leases::remove_lease;
use crate::snapshots::{Place, forget};
use crate::store::Store;

/// What the labels begin with that say where a blob came from: containerd's.
pub(super) const SOURCE: &str = "containerd.io/distribution.source.";

/// Deals with the damaged record of a table; the parts of its key are joined by `/`.
pub(super) async fn mend(store: &Store, table: &str, key: &str) -> Result<()> {
    if table == "snapshots" {
        return snapshot(store, key).await;
    }
    let (table, key) = (table.to_owned(), key.to_owned());
    let bytes = store.bytes();
    let mend = move |tx: &Transaction| {
        if table == "namespaces" {
            return derived::namespace(tx, &key.parse()?);
        }
        let (namespace, id) = key.split_once('/').ok_or_else(|| Error::internal(format!("key {key} has one part")))?;
        let (record, namespace): (String, Namespace) = (Key::of([namespace, id]), namespace.parse()?);
        match table.as_str() {
            "contents" => content(tx, &bytes, &namespace, &id.parse()?),
            "images" => image(tx, &bytes, &namespace, id),
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
fn content(tx: &Transaction, bytes: &Bytes, namespace: &Namespace, digest: &Digest) -> Result<()> {
    let key = Key::of([namespace.as_str(), &digest.to_string()]);
    // Bytes that are gone are still wanted: whoever brings them again says how many there are.
    let mut size = bytes.size(digest);
    let mut labels = Document::find_out(bytes, digest).map_or_else(Labels::new, |(_, found)| found.labels());
    for other in NAMESPACES.keys(tx, "", None, usize::MAX)? {
        if let Ok(Some(info)) = CONTENTS.get(tx, &Key::of([&other, &digest.to_string()])) {
            labels.extend(&shared(&info.labels));
            size = size.or(Some(info.size));
        }
    }
    let (size, now) = (size.unwrap_or_default(), SystemTime::now());
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

/// Returns what another namespace's labels say of the bytes: where they came from, and which snapshot they became. How long
/// that namespace keeps them, and what else it says, is its own business.
fn shared(labels: &Labels) -> Labels {
    let of_bytes = |key: &str| key.starts_with(SOURCE) || key.starts_with(REF_SNAPSHOT);
    let shared = labels.iter().filter(|(key, _)| of_bytes(key));
    shared.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What an image points at is known from its links.
fn image(tx: &Transaction, bytes: &Bytes, namespace: &Namespace, name: &str) -> Result<()> {
    let key = Key::of([namespace.as_str(), name]);
    let links = LINKS.get(tx, &Key::of([namespace.as_str(), &format!("image/{name}")]))?.unwrap_or_default();
    let target = links.parent.iter().chain(&links.to).find_map(|to| match node(to) {
        Some(Node::Content(digest)) => Some(digest),
        _ => None,
    });
    match target {
        Some(target) => {
            let (descriptor, _) = Document::find_out(bytes, &target).ok_or_else(|| {
                Error::data_loss(format!("image {name} pointed at {target}, which cannot be read either"))
                    .hint("repair that first, or remove the image")
            })?;
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
    let record = best(store, &place, &key).await?.map(|info| recovered(&info, &key));
    let write = move |tx: &Transaction| match &record {
        Some(record) => place.put(tx, record),
        None => forget(tx, &place, &key, None),
    };
    store.shared().db.write(write).await
}

/// Records a committed snapshot that the namespace made and has no record of, if the snapshotter has it.
pub(super) async fn found_again(store: &Store, place: Place, key: &SnapshotKey) -> Result<bool> {
    let best = best(store, &place, key).await?;
    let Some(info) = best.filter(|info| info.state == State::Committed && is_ours(info, &place)) else {
        return Ok(false);
    };
    let record = recovered(&info, key);
    store.shared().db.write(move |tx| place.put(tx, &record)).await?;
    Ok(true)
}

/// Returns which of the snapshotter's snapshots is that of a name in a namespace: one that the namespace made; otherwise a
/// layer that another one made, best one that others refer to. What another namespace writes into is nobody else's.
async fn best(store: &Store, place: &Place, key: &SnapshotKey) -> Result<Option<snapshot::Info>> {
    let used = store.placed(&place.snapshotter)?;
    let behind = store.shared().behind(&place.snapshotter)?;
    let there: Vec<snapshot::Info> = behind.walk(&[]).try_collect().await?;
    Ok(choose(there, &used, place, key))
}

fn choose(there: Vec<snapshot::Info>, used: &[Placed], place: &Place, key: &SnapshotKey) -> Option<snapshot::Info> {
    let candidates = there.into_iter().filter(|info| {
        InnerName::of(&info.key).is_some_and(|inner| inner.key == *key)
            && (info.state == State::Committed || is_ours(info, place))
    });
    candidates.max_by_key(|info| {
        let shared = used.iter().any(|placed| placed.inner == info.key && placed.key == *key);
        (is_ours(info, place), info.state == State::Committed, shared, info.created_at)
    })
}

fn is_ours(info: &snapshot::Info, place: &Place) -> bool {
    InnerName::of(&info.key).is_some_and(|inner| inner.namespace == place.namespace)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn there(inner: &str, state: State) -> snapshot::Info {
        let (key, at) = (inner.parse().unwrap(), SystemTime::UNIX_EPOCH);
        snapshot::Info { state, key, parent: None, labels: Labels::new(), created_at: at, updated_at: at }
    }

    #[test]
    fn a_record_points_at_what_its_namespace_made_and_never_at_what_another_one_writes_into() {
        let place = Place { namespace: "team".parse().unwrap(), snapshotter: "overlayfs".to_owned() };
        let chosen = |there: &[snapshot::Info]| {
            let used: Vec<Placed> = there
                .iter()
                .filter(|info| !is_ours(info, &place))
                .map(|info| Placed {
                    namespace: Namespace::default(),
                    key: "x".parse().unwrap(),
                    inner: info.key.clone(),
                    parent: None,
                })
                .collect();
            let best = choose(there.to_vec(), &used, &place, &"x".parse().unwrap());
            best.map(|info| info.key.to_string())
        };
        let (ours, theirs) = (there("team/1/x", State::Active), there("default/2/x", State::Committed));
        assert_eq!(chosen(&[ours, theirs.clone()]).as_deref(), Some("team/1/x"));
        assert_eq!(chosen(&[theirs, there("team/3/y", State::Committed)]).as_deref(), Some("default/2/x"));
        assert_eq!(chosen(&[there("default/2/x", State::Active)]), None);
    }

    #[test]
    fn of_another_namespace_s_labels_only_those_are_taken_that_say_something_of_the_bytes() {
        let source = format!("{SOURCE}docker.io");
        let labels = Labels::new()
            .with("containerd.io/gc.root", "1")
            .with("containerd.io/gc.expire", "2030-01-01T00:00:00Z")
            .with("mine", "yes")
            .with(source.clone(), "library/redis");
        assert_eq!(shared(&labels), Labels::new().with(source, "library/redis"));
    }
}
