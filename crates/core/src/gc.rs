//! What garbage collection sees: nodes, and typed edges between them.
//!
//! containerd's clients write references as labels (`containerd.io/gc.*`); they are parsed here into [`Edges`], when a
//! record is written, so that marking never interprets text.

mod collect;

use std::fmt;

use serde::Serialize;

use crate::digest::Digest;
use crate::label::Labels;

pub use collect::{Collected, Collector, Doomed, DoomedKind, Pin, PinReason, Tally};

/// The label that makes an object a root by itself; the key may go on.
pub const ROOT: &str = "containerd.io/gc.root";
/// The prefix of labels that refer to a blob: the key may go on with `.` and anything.
pub const REF_CONTENT: &str = "containerd.io/gc.ref.content";
/// The prefix of labels that refer to a snapshot: `.` and the snapshotter's name follow, and perhaps `/` and anything.
pub const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
/// The prefix of labels that refer to an image, by name: the key may go on with `.` or `/` and anything.
pub const REF_IMAGE: &str = "containerd.io/gc.ref.image";
/// The prefix of labels that tie an object to a blob: it stays for as long as that one does.
pub const BREF_CONTENT: &str = "containerd.io/gc.bref.content";
/// The prefix of labels that tie an object to an image, by name.
pub const BREF_IMAGE: &str = "containerd.io/gc.bref.image";
/// The prefix of labels that tie an object to a container, by identity.
pub const BREF_CONTAINER: &str = "containerd.io/gc.bref.container";
/// The prefix of labels that tie an object to a snapshot: `.` and the snapshotter's name follow, and perhaps `/` and anything.
pub const BREF_SNAPSHOT: &str = "containerd.io/gc.bref.snapshot.";
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

impl fmt::Display for Node {
    /// Writes a node as people read it: `blob sha256:…`, `snapshot overlayfs/KEY`, `image NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(digest) => write!(f, "blob {digest}"),
            Self::Snapshot { snapshotter, key } => write!(f, "snapshot {snapshotter}/{key}"),
            Self::Ingest(ingest) => write!(f, "ingest {ingest}"),
            Self::Image(name) => write!(f, "image {name}"),
            Self::Lease(id) => write!(f, "lease {id}"),
            Self::Container(id) => write!(f, "container {id}"),
        }
    }
}

impl Serialize for Node {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the labels of one record say about who keeps whom alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edges {
    /// Whether the object is a root by itself.
    pub root: bool,
    /// What the object keeps alive: `gc.ref.*`.
    pub to: Vec<Node>,
    /// What keeps the object alive, without knowing of it: `gc.bref.*`.
    pub from: Vec<Node>,
}

impl Edges {
    /// Parses labels; those whose value is no valid reference are ignored, as upstream.
    pub fn of(labels: &Labels) -> Self {
        let mut edges = Self::default();
        for (key, value) in labels.iter() {
            if key.starts_with(ROOT) {
                edges.root = true;
            } else if let Some(node) = node_of(key, value, [Some(REF_CONTENT), Some(REF_IMAGE), None], REF_SNAPSHOT) {
                edges.to.push(node);
            } else {
                let prefixes = [Some(BREF_CONTENT), Some(BREF_IMAGE), Some(BREF_CONTAINER)];
                edges.from.extend(node_of(key, value, prefixes, BREF_SNAPSHOT));
            }
        }
        edges
    }
}

/// Returns the node that a label refers to: `prefixes` are those for content, images and containers.
fn node_of(key: &str, value: &str, prefixes: [Option<&str>; 3], snapshots: &str) -> Option<Node> {
    let [content, image, container] =
        prefixes.map(|prefix| prefix.is_some_and(|prefix| is_named(key, prefix)) && !value.is_empty());
    if content {
        return value.parse().ok().map(Node::Content);
    }
    if image || container {
        let node = if image { Node::Image } else { Node::Container };
        return Some(node(value.to_owned()));
    }
    let snapshotter = key.strip_prefix(snapshots)?.split('/').next().filter(|name| !name.is_empty())?;
    Some(Node::Snapshot { snapshotter: snapshotter.to_owned(), key: value.to_owned() })
}

/// Tells whether a key is the prefix, or goes on behind it with a name of its own.
fn is_named(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
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

/// Returns the label under which a manifest keeps something alive that is attached to it.
pub fn referrer_label(attached: &Digest) -> String {
    format!("{REF_CONTENT}.r.{}", attached.short())
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
        let found = Edges::of(&labels);
        assert_eq!(
            found.to,
            [Node::Content(digest.clone()), Node::Content(digest), snapshot("sha256:abc"), snapshot("k")]
        );
        assert!(!found.root && found.from.is_empty());
    }

    #[test]
    fn a_label_ties_its_object_to_any_kind_of_node_or_makes_it_a_root() {
        let digest = Digest::sha256(b"x");
        let labels = Labels::new()
            .with(format!("{BREF_CONTENT}.subject"), digest.to_string())
            .with(BREF_IMAGE, "redis:7")
            .with(format!("{BREF_CONTAINER}/c"), "c1")
            .with(format!("{BREF_SNAPSHOT}native"), "k")
            .with(format!("{BREF_IMAGE}s"), "no such label")
            .with(format!("{REF_IMAGE}.base"), "debian:12")
            .with(format!("{ROOT}.mine"), "1");
        let edges = Edges::of(&labels);
        assert!(edges.root);
        assert_eq!(edges.to, [Node::Image("debian:12".into())]);
        let snapshot = Node::Snapshot { snapshotter: "native".into(), key: "k".into() };
        let container = Node::Container("c1".into());
        assert_eq!(edges.from, [container, Node::Content(digest), Node::Image("redis:7".into()), snapshot]);
    }
}
