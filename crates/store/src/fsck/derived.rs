//! Records written anew from what they are derived from, each within a transaction.

use std::time::SystemTime;

use windlass_core::gc::Node;
use windlass_core::{Digest, Labels, Namespace, Result};

use super::Bytes;
use super::documents::Document;
use crate::db::schema::{CONTAINERS, CONTENTS, IMAGES, LINKS, NAMESPACES, NamespaceRecord, SNAPSHOTS};
use crate::db::{Key, Links, Transaction, node, set_links};
use crate::snapshots::Place;
use crate::{containers, images};

/// Gives a namespace the record that it lacks.
pub(super) fn namespace(tx: &Transaction, namespace: &Namespace) -> Result<()> {
    let record = NamespaceRecord { labels: Labels::new(), created_at: SystemTime::now() };
    NAMESPACES.put(tx, namespace.as_str(), &record)
}

/// Writes the size that a blob has into its record.
pub(super) fn resize(tx: &Transaction, namespace: &Namespace, digest: &Digest, size: u64) -> Result<()> {
    let key = Key::of([namespace.as_str(), &digest.to_string()]);
    let Some(mut info) = CONTENTS.get(tx, &key)? else { return Ok(()) };
    info.size = size;
    CONTENTS.put(tx, &key, &info)
}

/// Adds labels of a document that its record lacks.
pub(super) fn relabel(
    tx: &Transaction,
    bytes: &Bytes,
    namespace: &Namespace,
    digest: &Digest,
    labels: &[String],
) -> Result<()> {
    let key = Key::of([namespace.as_str(), &digest.to_string()]);
    let Some(mut info) = CONTENTS.get(tx, &key)? else { return Ok(()) };
    let Some((_, document)) = Document::find_out(bytes, digest) else { return Ok(()) };
    let all = document.labels();
    for label in labels {
        if let Some(value) = all.get(label) {
            info.labels.set(label, value);
        }
    }
    CONTENTS.put(tx, &key, &info)?;
    set_links(tx, namespace, &Node::Content(digest.clone()), &Links::of(&info.labels))
}

/// Writes down anew what a record refers to; nothing for a record that is not there.
pub(super) fn relink(tx: &Transaction, namespace: &Namespace, text: &str) -> Result<()> {
    let links = match node(text) {
        Some(node) => links(tx, namespace, &node)?.map(|links| (node, links)),
        None => None,
    };
    match links {
        Some((node, links)) => set_links(tx, namespace, &node, &links),
        None => LINKS.remove(tx, &Key::of([namespace.as_str(), text])).map(|_| ()),
    }
}

fn links(tx: &Transaction, namespace: &Namespace, node: &Node) -> Result<Option<Links>> {
    let key = |id: &str| Key::of([namespace.as_str(), id]);
    Ok(match node {
        Node::Content(digest) => CONTENTS.get(tx, &key(&digest.to_string()))?.map(|info| Links::of(&info.labels)),
        Node::Image(name) => IMAGES.get(tx, &key(name))?.map(|image| images::links(&image)),
        Node::Container(id) => CONTAINERS.get(tx, &key(id))?.map(|container| containers::links(&container)),
        Node::Snapshot { snapshotter, key } => {
            let record = SNAPSHOTS.get(tx, &Key::of([namespace.as_str(), snapshotter, key]))?;
            let place = Place { namespace: namespace.clone(), snapshotter: snapshotter.clone() };
            record.map(|record| place.links(&record.info))
        }
        Node::Ingest(_) | Node::Lease(_) => None,
    })
}
