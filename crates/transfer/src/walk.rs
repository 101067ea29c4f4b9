//! Handlers that walk a tree of descriptors.
//!
//! A [`Handler`] looks at one descriptor and decides what comes below it. Handlers are stacked ([`Chain`]), filtered
//! ([`Only`]) and run in sequence ([`walk`]) or in parallel ([`walk_parallel`]); [`Children`] reads what a manifest or
//! an index refers to.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use windlass_core::content::Provider;
use windlass_core::media_type::Role;
use windlass_core::{Descriptor, Kind, Result};

use crate::documents;

/// What to do below a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visit {
    /// Go on with these.
    Descend(Vec<Descriptor>),
    /// Do not go below this one, and do not run the handlers stacked behind.
    Skip,
}

/// Looks at one descriptor of a tree.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Decides what comes below.
    async fn visit(&self, descriptor: &Descriptor) -> Result<Visit>;
}

/// Runs handlers one after the other on the same descriptor; what comes below is what all of them name.
pub struct Chain(pub Vec<Arc<dyn Handler>>);

#[async_trait]
impl Handler for Chain {
    async fn visit(&self, descriptor: &Descriptor) -> Result<Visit> {
        let mut below = Vec::new();
        for handler in &self.0 {
            match handler.visit(descriptor).await? {
                Visit::Descend(children) => below.extend(children),
                Visit::Skip => return Ok(Visit::Skip),
            }
        }
        Ok(Visit::Descend(below))
    }
}

/// Runs a handler and goes on only with the children that a predicate keeps.
pub struct Only<H, F> {
    /// The handler.
    pub handler: H,
    /// The predicate.
    pub keep: F,
}

#[async_trait]
impl<H: Handler, F: Fn(&Descriptor) -> bool + Send + Sync> Handler for Only<H, F> {
    async fn visit(&self, descriptor: &Descriptor) -> Result<Visit> {
        Ok(match self.handler.visit(descriptor).await? {
            Visit::Descend(mut children) => {
                children.retain(&self.keep);
                Visit::Descend(children)
            }
            Visit::Skip => Visit::Skip,
        })
    }
}

/// Reads what a manifest or an index in a content store refers to. What is not there has nothing below it: an image need
/// not be here for every platform.
pub struct Children {
    /// Where the documents are read.
    pub content: Arc<dyn Provider>,
}

#[async_trait]
impl Handler for Children {
    async fn visit(&self, descriptor: &Descriptor) -> Result<Visit> {
        if !matches!(descriptor.media_type.role(), Role::Index | Role::Manifest) {
            return Ok(Visit::Descend(Vec::new()));
        }
        match documents::root(&*self.content, descriptor).await {
            Ok(root) => Ok(Visit::Descend(root.children())),
            Err(error) if error.is(Kind::NotFound) => Ok(Visit::Descend(Vec::new())),
            Err(error) => Err(error),
        }
    }
}

/// Walks depth-first: a descriptor is visited before what is below it, and that before its next sibling.
pub async fn walk(handler: &dyn Handler, roots: &[Descriptor]) -> Result<()> {
    let mut stack: Vec<Descriptor> = roots.iter().rev().cloned().collect();
    while let Some(descriptor) = stack.pop() {
        if let Visit::Descend(children) = handler.visit(&descriptor).await? {
            stack.extend(children.into_iter().rev());
        }
    }
    Ok(())
}

/// Walks with up to `limit` visits at once; a descriptor is still visited before what is below it.
///
/// # Cancel safety
/// Dropping the call drops the visits under way.
pub async fn walk_parallel(handler: &dyn Handler, roots: &[Descriptor], limit: usize) -> Result<()> {
    let mut waiting: Vec<Descriptor> = roots.iter().rev().cloned().collect();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < limit.max(1)
            && let Some(descriptor) = waiting.pop()
        {
            running.push(async move { handler.visit(&descriptor).await });
        }
        match running.next().await {
            None => return Ok(()),
            Some(visited) => {
                if let Visit::Descend(children) = visited? {
                    waiting.extend(children.into_iter().rev());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    /// A tree by hand; remembers the order of the visits.
    #[derive(Default)]
    struct Tree {
        below: BTreeMap<String, Vec<Descriptor>>,
        visited: Mutex<Vec<String>>,
    }

    fn node(name: &str) -> Descriptor {
        Descriptor::of(name, name.as_bytes())
    }

    impl Tree {
        fn with(mut self, parent: &str, children: &[&str]) -> Self {
            self.below.insert(parent.to_owned(), children.iter().map(|name| node(name)).collect());
            self
        }

        fn visited(&self) -> Vec<String> {
            self.visited.lock().unwrap().clone()
        }
    }

    #[async_trait]
    impl Handler for Tree {
        async fn visit(&self, descriptor: &Descriptor) -> Result<Visit> {
            let name = descriptor.media_type.as_str();
            self.visited.lock().unwrap().push(name.to_owned());
            Ok(Visit::Descend(self.below.get(name).cloned().unwrap_or_default()))
        }
    }

    /// Skips one node.
    struct Without(&'static str);

    #[async_trait]
    impl Handler for Without {
        async fn visit(&self, descriptor: &Descriptor) -> Result<Visit> {
            Ok(if descriptor.media_type.as_str() == self.0 { Visit::Skip } else { Visit::Descend(Vec::new()) })
        }
    }

    fn tree() -> Tree {
        Tree::default().with("root", &["a", "b"]).with("a", &["a1", "a2"]).with("b", &["b1"])
    }

    #[tokio::test]
    async fn a_walk_is_depth_first_in_order() {
        let tree = tree();
        walk(&tree, &[node("root")]).await.unwrap();
        assert_eq!(tree.visited(), ["root", "a", "a1", "a2", "b", "b1"]);
    }

    #[tokio::test]
    async fn a_skip_ends_the_chain_and_the_descent() {
        let tree = Arc::new(tree());
        let chain = Chain(vec![Arc::new(Without("a")), tree.clone()]);
        walk(&chain, &[node("root")]).await.unwrap();
        assert_eq!(tree.visited(), ["root", "b", "b1"]);
    }

    #[tokio::test]
    async fn a_filter_keeps_children_out_of_the_walk() {
        let tree = Arc::new(tree());
        let chain =
            Only { handler: Chain(vec![tree.clone()]), keep: |child: &Descriptor| child.media_type.as_str() != "b" };
        walk(&chain, &[node("root")]).await.unwrap();
        assert_eq!(tree.visited(), ["root", "a", "a1", "a2"]);
    }

    #[tokio::test]
    async fn a_parallel_walk_visits_everything_once_and_parents_first() {
        let tree = tree();
        walk_parallel(&tree, &[node("root")], 4).await.unwrap();
        let visited = tree.visited();
        let at = |name: &str| visited.iter().position(|visited| visited == name).unwrap();
        assert_eq!(visited.len(), 6);
        assert!(at("root") < at("a") && at("a") < at("a2") && at("b") < at("b1"));
    }
}
