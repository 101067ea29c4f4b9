//! What garbage collection sees: nodes, and typed edges between them.
//!
//! containerd's clients write references as labels (`containerd.io/gc.*`); they are parsed here, when a record is
//! written, so that marking never interprets text.

use crate::digest::Digest;
use crate::label::Labels;

/// The label that makes an object a root by itself.
pub const ROOT: &str = "containerd.io/gc.root";
/// The prefix of labels that refer to a blob: the key may go on with `.` and anything.
pub const REF_CONTENT: &str = "containerd.io/gc.ref.content";
/// The prefix of labels that refer to a snapshot: `.` and the snapshotter's name follow, and perhaps `/` and anything.
pub const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
/// The label with the time at which a lease or a blob stops being held, RFC 3339.
pub const EXPIRE: &str = "containerd.io/gc.expire";
/// The label of a lease that holds only its own resources, not what they refer to.
pub const FLAT: &str = "containerd.io/gc.flat";

/// Whether a deletion waits until what it freed is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletion {
    /// Garbage collection will get to it.
    #[default]
    Background,
    /// The call returns after a garbage collection that saw the deletion.
    Synchronous,
}

/// Something that can be collected or that refers to such a thing, within one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// A blob.
    Content(Digest),
    /// A snapshot.
    Snapshot {
        /// The snapshotter that has it.
        snapshotter: String,
        /// Its key or name.
        key: String,
    },
    /// An ingest, by ref.
    Ingest(String),
    /// An image, by name.
    Image(String),
    /// A lease, by identity.
    Lease(String),
    /// A container, by identity.
    Container(String),
}

/// Returns the nodes that a record's labels refer to; labels whose value is no valid reference are ignored, as upstream.
pub fn references(labels: &Labels) -> Vec<Node> {
    labels.iter().filter_map(|(key, value)| reference(key, value)).collect()
}

fn reference(key: &str, value: &str) -> Option<Node> {
    if let Some(rest) = key.strip_prefix(REF_CONTENT) {
        let well_formed = rest.is_empty() || rest.starts_with(['.', '/']);
        return well_formed.then(|| value.parse().ok().map(Node::Content)).flatten();
    }
    let rest = key.strip_prefix(REF_SNAPSHOT)?;
    let snapshotter = rest.split('/').next().filter(|name| !name.is_empty())?;
    Some(Node::Snapshot { snapshotter: snapshotter.to_owned(), key: value.to_owned() })
}

/// Returns the label under which a manifest or an index keeps its `position`th child alive.
///
/// `m.` for a manifest in an index, `config`, `l.` for a layer, as containerd's clients write them.
pub fn content_label(child: ChildKind, position: usize) -> String {
    match child {
        ChildKind::Manifest => format!("{REF_CONTENT}.m.{position}"),
        ChildKind::Config => format!("{REF_CONTENT}.config"),
        ChildKind::Layer => format!("{REF_CONTENT}.l.{position}"),
    }
}

/// Returns the label under which a config keeps the topmost snapshot of its layers alive.
pub fn snapshot_label(snapshotter: &str) -> String {
    format!("{REF_SNAPSHOT}{snapshotter}")
}

/// What a child is to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildKind {
    /// A manifest of an index.
    Manifest,
    /// The config of a manifest.
    Config,
    /// A layer of a manifest.
    Layer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_edges_and_malformed_ones_are_ignored() {
        let digest = Digest::sha256(b"x");
        let labels = Labels::new()
            .with(content_label(ChildKind::Layer, 3), digest.to_string())
            .with(REF_CONTENT, digest.to_string())
            .with(format!("{REF_CONTENT}.bad"), "no digest")
            .with("containerd.io/gc.ref.contents", digest.to_string())
            .with(snapshot_label("overlayfs"), "sha256:abc")
            .with(format!("{REF_SNAPSHOT}overlayfs/1"), "k")
            .with("other", "label");
        let snapshot = |key: &str| Node::Snapshot { snapshotter: "overlayfs".into(), key: key.into() };
        let found = references(&labels);
        assert_eq!(
            found,
            [Node::Content(digest.clone()), Node::Content(digest), snapshot("sha256:abc"), snapshot("k")]
        );
    }
}
