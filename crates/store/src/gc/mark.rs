//! Marking: what can be reached from the roots. A pure function over nodes and links.

use std::collections::HashMap;

use windlass_core::Result;

use crate::db::Links;

/// How far a node's links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// Only to what the object cannot be without.
    Flat,
    /// To everything it refers to.
    Deep,
}

/// The nodes that were reached, by `namespace \0 node`.
pub(super) type Marked = HashMap<String, Depth>;

/// Marks what can be reached from the roots. Nodes are `namespace \0 node`; links stay within the namespace.
pub(super) fn mark(
    roots: impl IntoIterator<Item = (String, Depth)>,
    mut links: impl FnMut(&str) -> Result<Option<Links>>,
) -> Result<Marked> {
    let mut marked = Marked::new();
    let mut open: Vec<(String, Depth)> = roots.into_iter().collect();
    while let Some((node, depth)) = open.pop() {
        // A node that was reached flat is visited once more when it is reached deep.
        if marked.get(&node).is_some_and(|before| *before >= depth) {
            continue;
        }
        if let (Some(links), Some((namespace, _))) = (links(&node)?, node.split_once('\0')) {
            let followed = if depth == Depth::Deep { links.to.as_slice() } else { &[] };
            open.extend(links.parent.iter().chain(followed).map(|to| (format!("{namespace}\0{to}"), depth)));
        }
        marked.insert(node, depth);
    }
    Ok(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks in a graph of `node: parent | to to to` lines.
    fn marked(graph: &str, roots: &[(&str, Depth)]) -> Vec<String> {
        let links: HashMap<String, Links> = graph
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(node, rest)| {
                let (parent, to) = rest.split_once('|').unwrap();
                let parent = Some(parent.trim().to_owned()).filter(|parent| !parent.is_empty());
                let to = to.split_whitespace().map(str::to_owned).collect();
                (format!("n\0{node}"), Links { parent, to, ..Links::default() })
            })
            .collect();
        let roots = roots.iter().map(|(node, depth)| (format!("n\0{node}"), *depth));
        let mut marked: Vec<_> = mark(roots, |node| Ok(links.get(node).cloned())).unwrap().into_keys().collect();
        marked.sort();
        marked.iter().map(|node| node.strip_prefix("n\0").unwrap().to_owned()).collect()
    }

    const IMAGE: &str = "image: | index
        index: | m1 m2
        m1: | config l1 l2
        config: | snap2
        snap2: snap1 | extra
        loop: | loop2
        loop2: | loop";

    #[test]
    fn everything_below_a_root_is_reached_and_nothing_else() {
        let all = ["config", "extra", "image", "index", "l1", "l2", "m1", "m2", "snap1", "snap2"];
        assert_eq!(marked(IMAGE, &[("image", Depth::Deep)]), all);
        assert_eq!(marked(IMAGE, &[("loop", Depth::Deep)]), ["loop", "loop2"]);
        assert_eq!(marked(IMAGE, &[]), [""; 0]);
    }

    #[test]
    fn a_flat_root_keeps_itself_and_its_parents_until_it_is_reached_deep_too() {
        assert_eq!(marked(IMAGE, &[("m1", Depth::Flat)]), ["m1"]);
        assert_eq!(marked(IMAGE, &[("snap2", Depth::Flat)]), ["snap1", "snap2"]);
        for roots in
            [[("snap2", Depth::Flat), ("config", Depth::Deep)], [("config", Depth::Deep), ("snap2", Depth::Flat)]]
        {
            assert_eq!(marked(IMAGE, &roots), ["config", "extra", "snap1", "snap2"]);
        }
    }
}
