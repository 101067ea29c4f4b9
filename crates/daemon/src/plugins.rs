//! The order in which plugins start, and what is wrong with what they need. Plain data: no plugin is started here.

use windlass_core::{Error, Result};

/// A plugin, as far as its place among the others goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// What kind it is of.
    pub(crate) kind: String,
    /// Which one of its kind it is.
    pub(crate) id: String,
    /// What has to be there before it: kinds, or single plugins as `KIND.ID`.
    pub(crate) requires: Vec<String>,
}

impl Node {
    pub(crate) fn uri(&self) -> String {
        format!("{}.{}", self.kind, self.id)
    }

    /// Tells whether it is what another one requires.
    pub(crate) fn fits(&self, requirement: &str) -> bool {
        self.kind == requirement || self.uri() == requirement
    }
}

/// Returns the places of plugins in the order in which they start: what is required before what requires it, otherwise as
/// they are given.
///
/// # Errors
/// `FailedPrecondition` when something that is required is not among them, or when some require each other in a circle, which
/// is spelled out; `AlreadyExists` for two of one name.
pub(crate) fn order(nodes: &[Node]) -> Result<Vec<usize>> {
    for (at, node) in nodes.iter().enumerate() {
        if nodes.iter().take(at).any(|other| other.kind == node.kind && other.id == node.id) {
            return Err(Error::already_exists(format!("there are two plugins {}", node.uri()))
                .hint("give one of them another name"));
        }
    }
    let mut walk = Walk { nodes, order: Vec::new(), path: Vec::new() };
    for at in 0..nodes.len() {
        walk.visit(at)?;
    }
    Ok(walk.order)
}

struct Walk<'a> {
    nodes: &'a [Node],
    order: Vec<usize>,
    /// Those whose requirements are being looked at.
    path: Vec<usize>,
}

impl Walk<'_> {
    fn visit(&mut self, at: usize) -> Result<()> {
        if self.order.contains(&at) {
            return Ok(());
        }
        if self.path.contains(&at) {
            return Err(self.circle(at));
        }
        let Some(node) = self.nodes.get(at) else { return Ok(()) };
        self.path.push(at);
        for requirement in &node.requires {
            let fitting = self.nodes.iter().enumerate().filter(|(_, other)| other.fits(requirement));
            let fitting: Vec<usize> = fitting.map(|(other, _)| other).collect();
            if fitting.is_empty() {
                return Err(Error::failed_precondition(format!(
                    "plugin {} requires {requirement}, and there is none",
                    node.uri()
                )));
            }
            for other in fitting {
                self.visit(other)?;
            }
        }
        self.path.pop();
        self.order.push(at);
        Ok(())
    }

    fn circle(&self, at: usize) -> Error {
        let begin = self.path.iter().position(|other| *other == at).unwrap_or_default();
        let circle = self.path.iter().skip(begin).chain([&at]);
        let names: Vec<String> = circle.filter_map(|at| self.nodes.get(*at)).map(Node::uri).collect();
        Error::failed_precondition(format!("plugins require each other in a circle: {}", names.join(" → ")))
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    fn node(uri: &str, requires: &[&str]) -> Node {
        let (kind, id) = uri.rsplit_once('.').unwrap();
        let requires = requires.iter().map(|name| (*name).to_owned()).collect();
        Node { kind: kind.to_owned(), id: id.to_owned(), requires }
    }

    #[test]
    fn what_is_required_starts_before_what_requires_it() {
        let nodes = [
            node("a.service.x", &["a.metadata", "a.gc.scheduler"]),
            node("a.metadata.bolt", &["a.content", "a.snapshotter"]),
            node("a.gc.scheduler", &["a.metadata"]),
            node("a.snapshotter.one", &[]),
            node("a.content.content", &[]),
            node("a.snapshotter.two", &[]),
        ];
        assert_eq!(order(&nodes).unwrap(), [4, 3, 5, 1, 2, 0]);
    }

    #[test]
    fn a_circle_is_spelled_out() {
        let nodes = [node("k.a.x", &["k.b"]), node("k.b.y", &["k.c.z"]), node("k.c.z", &["k.b.y"])];
        let error = order(&nodes).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert_eq!(error.to_string(), "plugins require each other in a circle: k.b.y → k.c.z → k.b.y");
        assert!(order(&[node("k.a.x", &["k.a"])]).unwrap_err().to_string().ends_with("k.a.x → k.a.x"));
    }

    #[test]
    fn what_is_missing_and_what_is_there_twice_is_named() {
        let error = order(&[node("k.a.x", &["k.b"])]).unwrap_err();
        assert_eq!(error.to_string(), "plugin k.a.x requires k.b, and there is none");
        let error = order(&[node("k.a.x", &[]), node("k.a.x", &[])]).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::AlreadyExists, "there are two plugins k.a.x"));
    }
}
