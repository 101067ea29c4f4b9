//! Two trees, walked side by side: directories before what is in them, names in the order of their bytes.

use std::collections::BTreeSet;

use windlass_core::Result;

use super::entry::Redirect;
use super::stack::{Node, Trees};

/// What the trees have under a name.
#[derive(Debug)]
pub(super) struct Pair {
    /// The name, below the root, which is empty.
    pub(super) path: Vec<u8>,
    pub(super) lower: Option<Node>,
    pub(super) upper: Option<Node>,
}

/// The walk. What lies in directories that the trees share is left out, and so is what lies in one that only the lower has.
pub(super) struct Walk {
    /// What is to come, the next one last.
    pending: Vec<Pair>,
}

impl Walk {
    pub(super) fn of(trees: &Trees) -> Result<Self> {
        let root = Pair { path: Vec::new(), lower: trees.lower.root()?, upper: trees.upper.root()? };
        Ok(Self { pending: vec![root] })
    }

    /// Returns the next pair.
    pub(super) fn next(&mut self) -> Result<Result<Option<Pair>, Redirect>> {
        let Some(pair) = self.pending.pop() else { return Ok(Ok(None)) };
        let Some(upper) = pair.upper.as_ref().filter(|node| node.is_directory()) else { return Ok(Ok(Some(pair))) };
        let lower = pair.lower.as_ref().filter(|node| node.is_directory());
        match self.descend(&pair.path, lower, upper)? {
            Ok(()) => Ok(Ok(Some(pair))),
            Err(redirect) => Ok(Err(redirect)),
        }
    }

    fn descend(&mut self, path: &[u8], lower: Option<&Node>, upper: &Node) -> Result<Result<(), Redirect>> {
        let Ok(upper) = upper.layers.open(path)? else { return Ok(Err(Redirect)) };
        let lower = match lower {
            Some(lower) => match lower.layers.open(path)? {
                Ok(open) => Some(open),
                Err(redirect) => return Ok(Err(redirect)),
            },
            None => None,
        };
        let shared = lower.as_ref().map_or(0, |lower| upper.shared(lower));
        let mut names = BTreeSet::new();
        upper.names(shared, path, &mut names)?;
        if let Some(lower) = &lower {
            lower.names(shared, path, &mut names)?;
        }
        for name in names.into_iter().rev() {
            let lower = lower.as_ref().map(|lower| lower.find(&name)).transpose()?.flatten();
            let upper = upper.find(&name)?;
            if lower.is_some() || upper.is_some() {
                let path = if path.is_empty() { name } else { [path, b"/", &name].concat() };
                self.pending.push(Pair { path, lower, upper });
            }
        }
        Ok(Ok(()))
    }
}
