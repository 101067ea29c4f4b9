//! Garbage collection over the records of one namespace: the simplest that is right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use windlass_core::Labels;
use windlass_core::gc::{self, Node};
use windlass_core::lease::ResourceKind;

use super::host::SNAPSHOTTER;
use super::space::Space;

impl Space {
    /// Removes every blob and snapshot that nothing refers to.
    pub(super) fn collect(&mut self) {
        let marked = self.mark();
        self.blobs.retain(|digest, _| marked.contains(&Node::Content(digest.clone())));
        // Children go before their parents do, but the order does not matter to a map: a marked child marks its parent.
        self.snapshots.retain(|key, snapshot| {
            let kept = marked.contains(&snapshot_node(key.as_str()));
            if !kept {
                super::snapshotter::remove_directory(&snapshot.directory);
            }
            kept
        });
    }

    fn mark(&self) -> BTreeSet<Node> {
        let mut marked = BTreeSet::new();
        let mut pending = self.roots(&mut marked);
        let ties = self.ties();
        while let Some(node) = pending.pop() {
            if marked.insert(node.clone()) {
                pending.extend(self.edges(&node));
                pending.extend(ties.get(&node).into_iter().flatten().cloned());
            }
        }
        marked
    }

    /// Returns what is kept with everything it refers to; what a flat lease holds is marked at once, alone.
    fn roots(&self, flat: &mut BTreeSet<Node>) -> Vec<Node> {
        let rooted = |labels: &Labels| gc::Edges::of(labels).root;
        let mut roots: Vec<Node> = Vec::new();
        roots.extend(self.images.keys().map(|name| Node::Image(name.to_string())));
        roots.extend(self.containers.keys().cloned().map(Node::Container));
        let blobs = self.blobs.values().filter(|blob| rooted(&blob.info.labels));
        roots.extend(blobs.map(|blob| Node::Content(blob.info.digest.clone())));
        let snapshots = self.snapshots.iter().filter(|(_, snapshot)| rooted(&snapshot.info.labels));
        roots.extend(snapshots.map(|(key, _)| snapshot_node(key.as_str())));
        let now = SystemTime::now();
        for (lease, resources) in self.leases.values() {
            if lease.expires_at.is_some_and(|expires| expires <= now) {
                continue;
            }
            let held = resources.iter().filter_map(|resource| match &resource.kind {
                ResourceKind::Content => resource.id.parse().ok().map(Node::Content),
                ResourceKind::Snapshot(name) => {
                    Some(Node::Snapshot { snapshotter: name.clone(), key: resource.id.clone() })
                }
                ResourceKind::Image => Some(Node::Image(resource.id.clone())),
                ResourceKind::Ingest => None,
            });
            if lease.labels.get(gc::FLAT).is_some() {
                flat.extend(held);
            } else {
                roots.extend(held);
            }
        }
        roots
    }

    /// Returns what tied itself to a node, by that node.
    fn ties(&self) -> BTreeMap<Node, Vec<Node>> {
        let blobs = self.blobs.values().map(|blob| (Node::Content(blob.info.digest.clone()), &blob.info.labels));
        let snapshots =
            self.snapshots.iter().map(|(key, snapshot)| (snapshot_node(key.as_str()), &snapshot.info.labels));
        let mut ties = BTreeMap::<Node, Vec<Node>>::new();
        for (tied, labels) in blobs.chain(snapshots) {
            for to in gc::Edges::of(labels).from {
                ties.entry(to).or_default().push(tied.clone());
            }
        }
        ties
    }

    fn edges(&self, node: &Node) -> Vec<Node> {
        match node {
            Node::Content(digest) => {
                self.blobs.get(digest).map(|blob| gc::Edges::of(&blob.info.labels).to).unwrap_or_default()
            }
            Node::Snapshot { key, .. } => {
                let Some(snapshot) = key.parse().ok().and_then(|key| self.snapshots.get(&key)) else {
                    return Vec::new();
                };
                let mut edges = gc::Edges::of(&snapshot.info.labels).to;
                edges.extend(snapshot.info.parent.iter().map(|parent| snapshot_node(parent.as_str())));
                edges
            }
            Node::Image(name) => {
                let Some(image) = name.parse().ok().and_then(|name| self.images.get(&name)) else { return Vec::new() };
                let mut edges = gc::Edges::of(&image.labels).to;
                edges.push(Node::Content(image.target.digest.clone()));
                edges
            }
            Node::Container(id) => {
                let Some(container) = self.containers.get(id) else { return Vec::new() };
                let mut edges = gc::Edges::of(&container.labels).to;
                edges.extend(container.snapshot_key.iter().map(|key| snapshot_node(key.as_str())));
                edges
            }
            Node::Ingest(_) | Node::Lease(_) => Vec::new(),
        }
    }
}

fn snapshot_node(key: &str) -> Node {
    Node::Snapshot { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() }
}
