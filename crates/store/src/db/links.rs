//! Links: what a record refers to, written with the record, so that marking reads one small table and no labels.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use windlass_core::gc::{self, Node};
use windlass_core::lease::{Resource, ResourceKind};
use windlass_core::{Labels, Namespace, Result, timestamp};

use super::schema::LINKS;
use super::{Key, Transaction};

/// What one record refers to, by the text of the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Links {
    /// Whether the object is a root by itself: the label `containerd.io/gc.root`.
    #[serde(default)]
    pub(crate) root: bool,
    /// Until when the object is held: the label `containerd.io/gc.expire`.
    #[serde(with = "timestamp::option", default)]
    pub(crate) expires_at: Option<SystemTime>,
    /// What the object cannot be without.
    #[serde(default)]
    pub(crate) parent: Option<String>,
    /// What else the object refers to.
    #[serde(default)]
    pub(crate) to: Vec<String>,
    /// What keeps the object alive by its own wish: the labels `containerd.io/gc.bref.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) from: Vec<String>,
}

/// The same, as it lies in the database: nothing is copied, because marking reads all of them.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct LinksText<'a> {
    #[serde(default)]
    pub(crate) root: bool,
    #[serde(with = "timestamp::option", default)]
    pub(crate) expires_at: Option<SystemTime>,
    #[serde(borrow, default)]
    pub(crate) parent: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) to: Vec<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) from: Vec<Text<'a>>,
}

/// A text that is copied only when it has escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl Links {
    /// Returns what labels say.
    pub(crate) fn of(labels: &Labels) -> Self {
        let edges = gc::Edges::of(labels);
        let texts = |nodes: &[Node]| nodes.iter().map(text_of).collect();
        Self {
            root: edges.root,
            expires_at: labels.get(gc::EXPIRE).and_then(timestamp::parse),
            parent: None,
            to: texts(&edges.to),
            from: texts(&edges.from),
        }
    }

    /// Adds something that is referred to.
    pub(crate) fn to(mut self, node: &Node) -> Self {
        self.to.push(text_of(node));
        self
    }

    /// Sets what the object cannot be without.
    pub(crate) fn on(mut self, parent: Option<&Node>) -> Self {
        self.parent = parent.map(text_of);
        self
    }
}

/// Returns the text of a node, as keys and links have it.
pub(crate) fn text_of(node: &Node) -> String {
    match node {
        Node::Content(digest) => format!("content/{digest}"),
        Node::Snapshot { snapshotter, key } => format!("snapshot/{snapshotter}/{key}"),
        Node::Ingest(ingest) => format!("ingest/{ingest}"),
        Node::Image(name) => format!("image/{name}"),
        Node::Lease(id) => format!("lease/{id}"),
        Node::Container(id) => format!("container/{id}"),
    }
}

/// Returns the node of a text; `None` when it is none that a lease can hold or a record can refer to.
pub(crate) fn node(text: &str) -> Option<Node> {
    let (kind, id) = text.split_once('/')?;
    Some(match kind {
        "content" => Node::Content(id.parse().ok()?),
        "snapshot" => {
            let (snapshotter, key) = id.split_once('/')?;
            Node::Snapshot { snapshotter: snapshotter.to_owned(), key: key.to_owned() }
        }
        "ingest" => Node::Ingest(id.to_owned()),
        "image" => Node::Image(id.to_owned()),
        "container" => Node::Container(id.to_owned()),
        _ => return None,
    })
}

/// Returns the node of a lease's resource.
///
/// # Errors
/// `InvalidArgument` when the resource's id is not one of its kind.
pub(crate) fn resource_node(resource: &Resource) -> Result<Node> {
    let id = resource.id.as_str();
    Ok(match &resource.kind {
        ResourceKind::Content => Node::Content(id.parse()?),
        ResourceKind::Ingest => Node::Ingest(id.parse::<windlass_core::content::IngestRef>()?.into()),
        ResourceKind::Snapshot(snapshotter) => {
            windlass_core::identifier::validate("snapshotter", snapshotter)?;
            let key = id.parse::<windlass_core::snapshot::Key>()?.into();
            Node::Snapshot { snapshotter: snapshotter.clone(), key }
        }
        ResourceKind::Image => Node::Image(id.parse::<windlass_core::image::Name>()?.into()),
    })
}

/// Writes what a record refers to. A collection that runs keeps the record, and what it refers to, this time.
pub(crate) fn set_links(tx: &Transaction, namespace: &Namespace, node: &Node, links: &Links) -> Result<()> {
    let key = Key::of([namespace.as_str(), &text_of(node)]);
    tx.activity().touch(|| key.clone());
    for to in links.parent.iter().chain(&links.to) {
        tx.activity().touch(|| Key::of([namespace.as_str(), to]));
    }
    if let Some(at) = links.expires_at {
        tx.activity().ends(at);
    }
    if *links == Links::default() { LINKS.remove(tx, &key).map(|_| ()) } else { LINKS.put(tx, &key, links) }
}

/// Forgets what a record that is deleted referred to.
pub(crate) fn unlink(tx: &Transaction, namespace: &Namespace, node: &Node) -> Result<()> {
    tx.deleted();
    LINKS.remove(tx, &Key::of([namespace.as_str(), &text_of(node)])).map(|_| ())
}
