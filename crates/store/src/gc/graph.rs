//! The graph of what keeps what alive, and marking in it: pure functions over numbers.
//!
//! A node is known by a hash of its name with a key that is made up for each graph. Two names with one hash, should that
//! ever happen, keep each other alive until the next collection; nothing is lost by it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(u64);

/// Gives names their ids.
#[derive(Default)]
pub(crate) struct Ids(RandomState);

impl Ids {
    /// Returns the id of a node in a namespace.
    pub(crate) fn of(&self, namespace: &str, node: &str) -> Id {
        let mut hasher = self.0.build_hasher();
        hasher.write(namespace.as_bytes());
        hasher.write_u8(0);
        hasher.write(node.as_bytes());
        Id(hasher.finish())
    }

    /// Returns the id of `namespace \0 node`, as keys have it.
    pub(crate) fn of_key(&self, key: &str) -> Id {
        let (namespace, node) = key.split_once('\0').unwrap_or_default();
        self.of(namespace, node)
    }
}

/// How far a node's links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// Only to what the object cannot be without.
    Flat,
    /// To everything it refers to.
    Deep,
}

/// What one node refers to and is tied to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LinkedNodes {
    /// What it cannot be without.
    pub(crate) parent: Option<Id>,
    /// What else it keeps alive.
    pub(crate) to: Vec<Id>,
    /// What keeps it alive by its own wish.
    pub(crate) from: Vec<Id>,
}

/// Who keeps whom alive.
#[derive(Default)]
pub(crate) struct Graph {
    /// Where a node's links begin and end in `to`, and whether the first is its parent.
    nodes: ById<Span>,
    to: Vec<Id>,
    /// What tied itself to a node.
    ties: ById<Vec<Id>>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
    parent: bool,
}

/// The nodes that were reached, and how.
pub(crate) type Marked = ById<Depth>;

/// A map by ids, which are hashes already.
pub(crate) type ById<T> = HashMap<Id, T, BySelf>;

/// Hashes ids as they are.
pub(crate) type BySelf = BuildHasherDefault<Same>;

/// The hash of an id is the id.
#[derive(Default)]
pub(crate) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

impl Graph {
    /// Adds a node with its links.
    pub(crate) fn add(&mut self, node: Id, links: &LinkedNodes) {
        let index = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let start = index(self.to.len());
        self.to.extend(links.parent.iter().chain(&links.to));
        self.nodes.insert(node, Span { start, end: index(self.to.len()), parent: links.parent.is_some() });
        for from in &links.from {
            self.ties.entry(*from).or_default().push(node);
        }
    }

    /// Tells whether a node was added.
    pub(crate) fn has(&self, node: Id) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Returns what a node keeps alive.
    pub(crate) fn kept_by(&self, node: Id, depth: Depth) -> impl Iterator<Item = Id> {
        let span = self.nodes.get(&node).copied().unwrap_or(Span { start: 0, end: 0, parent: false });
        let links = self.to.get(span.start as usize..span.end as usize).unwrap_or_default();
        let followed = match depth {
            Depth::Deep => links.len(),
            Depth::Flat => usize::from(span.parent),
        };
        let ties = self.ties.get(&node).map(Vec::as_slice).unwrap_or_default();
        links.iter().take(followed).chain(ties).copied()
    }

    /// Marks what can be reached from the roots, beside what is marked already.
    pub(crate) fn mark(&self, marked: &mut Marked, roots: impl IntoIterator<Item = (Id, Depth)>) {
        let mut open: Vec<(Id, Depth)> = roots.into_iter().collect();
        while let Some((node, depth)) = open.pop() {
            // A node that was reached flat is visited once more when it is reached deep.
            if marked.get(&node).is_some_and(|before| *before >= depth) {
                continue;
            }
            marked.insert(node, depth);
            open.extend(self.kept_by(node, depth).map(|to| (to, depth)));
        }
    }

    /// Orders nodes so that each comes before what it keeps alive, as far as there is no circle.
    pub(crate) fn referrers_first(&self, nodes: &[Id]) -> Vec<Id> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            Entered,
            Left,
        }
        let mut states: ById<Option<State>> = nodes.iter().map(|node| (*node, None)).collect();
        let mut order = Vec::with_capacity(nodes.len());
        let mut stack: Vec<Id> = nodes.to_vec();
        while let Some(node) = stack.pop() {
            match states.get_mut(&node) {
                Some(state @ None) => {
                    *state = Some(State::Entered);
                    stack.push(node);
                    stack.extend(self.kept_by(node, Depth::Deep));
                }
                Some(state @ Some(State::Entered)) => {
                    *state = Some(State::Left);
                    order.push(node);
                }
                // Ordered already, or not asked for.
                Some(Some(State::Left)) | None => {}
            }
        }
        order.reverse();
        order
    }

    /// Finds a shortest way from any of the roots to a node: the root's place among them, and the nodes from the root to
    /// the node.
    pub(crate) fn path(&self, roots: &[(Id, Depth)], node: Id) -> Option<(usize, Vec<Id>)> {
        // Who led to a node: another node, or, by its place, a root.
        let mut before: HashMap<(Id, Depth), Result<(Id, Depth), usize>> = HashMap::new();
        let mut open = VecDeque::new();
        for (place, root) in roots.iter().enumerate() {
            if !before.contains_key(root) {
                before.insert(*root, Err(place));
                open.push_back(*root);
            }
        }
        while let Some((at, depth)) = open.pop_front() {
            if at == node {
                let mut path = vec![at];
                let mut step = (at, depth);
                loop {
                    match before.get(&step)? {
                        Ok(previous) => {
                            path.push(previous.0);
                            step = *previous;
                        }
                        Err(place) => {
                            path.reverse();
                            return Some((*place, path));
                        }
                    }
                }
            }
            for to in self.kept_by(at, depth) {
                if let Entry::Vacant(entry) = before.entry((to, depth)) {
                    entry.insert(Ok((at, depth)));
                    open.push_back((to, depth));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A graph of `node: parent | to to to < from from` lines.
    fn graph(ids: &Ids, text: &str) -> Graph {
        let id = |node: &str| ids.of("n", node);
        let mut graph = Graph::default();
        for (node, rest) in text.lines().filter_map(|line| line.trim().split_once(": ")) {
            let (parent, rest) = rest.split_once('|').unwrap();
            let (to, from) = rest.split_once('<').unwrap_or((rest, ""));
            let all = |nodes: &str| nodes.split_whitespace().map(id).collect::<Vec<_>>();
            graph.add(id(node), &LinkedNodes { parent: all(parent).pop(), to: all(to), from: all(from) });
        }
        graph
    }

    fn marked(text: &str, roots: &[(&str, Depth)]) -> Vec<String> {
        let ids = Ids::default();
        let mut marked = Marked::default();
        graph(&ids, text).mark(&mut marked, roots.iter().map(|(node, depth)| (ids.of("n", node), *depth)));
        let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let mut names: Vec<String> =
            words.filter(|word| marked.contains_key(&ids.of("n", word))).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }

    const IMAGE: &str = "image: index |
        index: | m1 m2
        m1: | config l1 l2
        config: | snap2
        snap2: snap1 | extra
        sbom: | < m1
        loop: | loop2
        loop2: | loop";

    #[test]
    fn everything_below_a_root_is_reached_and_nothing_else() {
        let all = ["config", "extra", "image", "index", "l1", "l2", "m1", "m2", "sbom", "snap1", "snap2"];
        assert_eq!(marked(IMAGE, &[("image", Depth::Deep)]), all);
        assert_eq!(marked(IMAGE, &[("loop", Depth::Deep)]), ["loop", "loop2"]);
        assert_eq!(marked(IMAGE, &[]), [""; 0]);
    }

    #[test]
    fn a_flat_root_keeps_itself_and_its_parents_until_it_is_reached_deep_too() {
        assert_eq!(marked(IMAGE, &[("image", Depth::Flat)]), ["image", "index"]);
        assert_eq!(marked(IMAGE, &[("snap2", Depth::Flat)]), ["snap1", "snap2"]);
        for roots in
            [[("snap2", Depth::Flat), ("config", Depth::Deep)], [("config", Depth::Deep), ("snap2", Depth::Flat)]]
        {
            assert_eq!(marked(IMAGE, &roots), ["config", "extra", "snap1", "snap2"]);
        }
    }

    #[test]
    fn what_refers_comes_before_what_it_refers_to() {
        let ids = Ids::default();
        let graph = graph(&ids, IMAGE);
        let names = ["l1", "snap1", "m1", "index", "snap2", "config", "sbom"];
        let nodes = names.map(|name| ids.of("n", name));
        let order = graph.referrers_first(&nodes);
        assert_eq!(order.len(), nodes.len());
        let at = |name: &str| order.iter().position(|node| *node == ids.of("n", name)).unwrap();
        for (first, then) in
            [("index", "m1"), ("m1", "config"), ("m1", "l1"), ("m1", "sbom"), ("config", "snap2"), ("snap2", "snap1")]
        {
            assert!(at(first) < at(then), "{first} before {then}");
        }
    }

    #[test]
    fn a_path_is_the_shortest_from_any_root() {
        let ids = Ids::default();
        let graph = graph(&ids, IMAGE);
        let id = |name: &str| ids.of("n", name);
        let roots = [(id("loop"), Depth::Deep), (id("image"), Depth::Deep), (id("m1"), Depth::Flat)];
        let path = |names: &[&str]| names.iter().map(|name| id(name)).collect::<Vec<_>>();
        assert_eq!(graph.path(&roots, id("l2")), Some((1, path(&["image", "index", "m1", "l2"]))));
        assert_eq!(graph.path(&roots, id("m1")), Some((2, path(&["m1"]))));
        assert_eq!(graph.path(&roots, id("stray")), None);
    }

    proptest! {
        /// Marking at once and marking bit by bit, as a collection does that learns of new references, are the same; and a
        /// node is marked exactly when there is a path to it.
        #[test]
        fn marks_are_what_paths_lead_to(
            edges in proptest::collection::vec((0u8..20, 0u8..20, 0u8..3), 0..60),
            roots in proptest::collection::vec((0u8..20, any::<bool>()), 0..5),
        ) {
            let ids = Ids::default();
            let id = |node: u8| ids.of("n", &node.to_string());
            let mut graph = Graph::default();
            for node in 0..20 {
                let of = |kind| edges.iter().filter(move |(at, _, k)| *at == node && *k == kind).map(|(_, to, _)| id(*to));
                let links = LinkedNodes { parent: of(0).next(), to: of(1).collect(), from: of(2).collect() };
                graph.add(id(node), &links);
            }
            let roots: Vec<_> =
                roots.iter().map(|(node, flat)| (id(*node), if *flat { Depth::Flat } else { Depth::Deep })).collect();
            let (mut at_once, mut by_and_by) = (Marked::default(), Marked::default());
            graph.mark(&mut at_once, roots.iter().copied());
            for root in &roots {
                graph.mark(&mut by_and_by, [*root]);
            }
            prop_assert_eq!(&at_once, &by_and_by);
            for node in 0..20 {
                prop_assert_eq!(at_once.contains_key(&id(node)), graph.path(&roots, id(node)).is_some());
            }
        }
    }
}
