//! Keys of records, taken apart and put together.

use windlass_core::fsck::{Finding, Problem};
use windlass_core::gc::Node;
use windlass_core::{Error, Namespace};

use crate::db::{FILE, Key, text_of};

/// Returns namespace and rest of a key.
pub(super) fn split(key: &str) -> Option<(Namespace, &str)> {
    let (namespace, rest) = key.split_once('\0')?;
    Some((namespace.parse().ok()?, rest))
}

/// Returns the key of a node's links.
pub(super) fn key(namespace: &Namespace, node: &Node) -> String {
    Key::of([namespace.as_str(), &text_of(node)])
}

/// Returns the node of a snapshot.
pub(super) fn snapshot(snapshotter: &str, key: &str) -> Node {
    Node::Snapshot { snapshotter: snapshotter.to_owned(), key: key.to_owned() }
}

/// Returns the finding of a record that does not decode.
pub(super) fn damaged(table: &str, key: &str, error: &Error) -> Finding {
    Finding::new(Problem::RecordDamaged {
        file: FILE.to_owned(),
        table: table.to_owned(),
        key: key.replace('\0', "/"),
        detail: error.to_string(),
    })
}
