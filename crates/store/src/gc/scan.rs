//! Reading one commit of the database: the graph, its roots, and what has expired.

use std::time::SystemTime;

use windlass_core::Result;
use windlass_core::gc::FLAT;

use super::graph::{Depth, Graph, Id, Ids, LinkedNodes, Marked};
use crate::db::schema::{LEASES, LINKS, RESOURCES};
use crate::db::{Key, LinksText, View, decode};

/// What one commit says about who keeps whom alive.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) ids: Ids,
    pub(super) graph: Graph,
    pub(super) roots: Vec<Root>,
    /// The keys of live leases, which roots refer to by place.
    pub(super) leases: Vec<String>,
    /// The keys of leases that have expired.
    pub(super) expired_leases: Vec<String>,
    /// When the next lease, image or blob ends.
    pub(super) ends: Option<SystemTime>,
}

/// A node that nothing has to refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub(super) id: Id,
    pub(super) depth: Depth,
    pub(super) reason: Reason,
}

/// Why a node is a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is an image or a container.
    Record,
    /// It has the label of a root.
    Label,
    /// It is held until a time.
    Until(SystemTime),
    /// A lease holds it: the place in [`Seen::leases`].
    Lease(usize),
}

impl Seen {
    /// Reads a commit. Blocking, and as long as the database is large.
    pub(super) fn read(view: &impl View, now: SystemTime) -> Result<Self> {
        let mut seen = Self::default();
        seen.read_leases(view, now)?;
        LINKS.visit(view, "", None, usize::MAX, |key, value| {
            let links: LinksText<'_> = decode(value).map_err(|error| error.context(format!("links of {key:?}")))?;
            seen.add(key, &links, now);
            Ok(())
        })?;
        Ok(seen)
    }

    /// Marks what can be reached.
    pub(super) fn mark(&self) -> Marked {
        let mut marked = Marked::default();
        self.graph.mark(&mut marked, self.roots.iter().map(|root| (root.id, root.depth)));
        marked
    }

    fn read_leases(&mut self, view: &impl View, now: SystemTime) -> Result<()> {
        for (key, lease) in LEASES.all(view, "")? {
            if lease.expires_at.is_some_and(|end| end <= now) {
                self.expired_leases.push(key);
                continue;
            }
            self.note_end(lease.expires_at);
            let depth = if lease.labels.get(FLAT).is_some() { Depth::Flat } else { Depth::Deep };
            let Some((namespace, _)) = key.split_once('\0') else { continue };
            let prefix = Key::prefix([&key]);
            let reason = Reason::Lease(self.leases.len());
            RESOURCES.visit(view, &prefix, None, usize::MAX, |held, _| {
                if let Some(node) = held.strip_prefix(&prefix) {
                    self.roots.push(Root { id: self.ids.of(namespace, node), depth, reason });
                }
                Ok(())
            })?;
            self.leases.push(key);
        }
        Ok(())
    }

    fn add(&mut self, key: &str, links: &LinksText<'_>, now: SystemTime) {
        let Some((namespace, node)) = key.split_once('\0') else { return };
        let id = self.ids.of(namespace, node);
        let of = |text: &crate::db::Text<'_>| self.ids.of(namespace, &text.0);
        let linked = LinkedNodes {
            parent: links.parent.as_ref().map(of),
            to: links.to.iter().map(of).collect(),
            from: links.from.iter().map(of).collect(),
        };
        self.graph.add(id, &linked);
        if let Some(reason) = reason(kind(node), links, now) {
            self.roots.push(Root { id, depth: Depth::Deep, reason });
        }
        self.note_end(links.expires_at.filter(|end| *end > now));
    }

    fn note_end(&mut self, end: Option<SystemTime>) {
        self.ends = [self.ends, end].into_iter().flatten().min();
    }
}

/// Returns the kind of a node's text: what is before the first slash.
pub(super) fn kind(node: &str) -> &str {
    node.split_once('/').map_or("", |(kind, _)| kind)
}

/// Tells why a node is a root, if it is one. An image is one unless it has expired; anything else is one until it expires.
fn reason(kind: &str, links: &LinksText<'_>, now: SystemTime) -> Option<Reason> {
    match (kind, links.expires_at) {
        ("image", Some(end)) => (end > now).then_some(Reason::Until(end)),
        ("image" | "container", _) => Some(Reason::Record),
        (_, Some(end)) => (end > now).then_some(Reason::Until(end)),
        (_, None) => links.root.then_some(Reason::Label),
    }
}
