//! Trees of any kind, compared with a model that does what the documentation of a tree says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use windlass_erofs::{Attributes, Device, FileType, Image, Node, Time, Tree, What};

use crate::kernel::check;
use crate::sample::{Content, Listing, Maker, Seen, list_image, not_zero, settle};

/// One change of a tree. Directories and files are chosen among those that there are.
#[derive(Debug, Clone)]
enum Change {
    Add { directory: usize, name: u8, kind: u8, attributes: Attributes, content: Vec<(u32, u8)> },
    Link { directory: usize, name: u8, file: usize },
    Remove { directory: usize, name: u8 },
    Mark { directory: usize },
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let ids = prop_oneof![Just(0), Just(70_000), any::<u32>()];
    let time = prop_oneof![Just((0, 0)), Just((1_600_000_000, 5)), (any::<i32>(), 0..1_000_000_000u32)];
    let xattrs = prop::collection::btree_map("user\\.[a-z]{1,3}", prop::collection::vec(any::<u8>(), 0..40), 0..3);
    (0..0o10_000u16, ids, 0..100_000u32, time, xattrs).prop_map(|(permissions, uid, gid, time, xattrs)| Attributes {
        permissions,
        uid,
        gid,
        mtime: Time { seconds: time.0.into(), nanoseconds: time.1 },
        xattrs: xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
    })
}

fn change() -> impl Strategy<Value = Change> {
    let content = prop::collection::vec((0..200_000u32, 1..=255u8), 0..6);
    prop_oneof![
        6 => (any::<usize>(), any::<u8>(), 0..9u8, attributes(), content).prop_map(|(directory, name, kind, attributes, content)| {
            Change::Add { directory, name, kind, attributes, content }
        }),
        1 => (any::<usize>(), any::<u8>(), any::<usize>()).prop_map(|(directory, name, file)| Change::Link { directory, name, file }),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(directory, name)| Change::Remove { directory, name }),
        1 => any::<usize>().prop_map(|directory| Change::Mark { directory }),
    ]
}

/// What is expected: names in directories, and what they stand for.
#[derive(Default)]
struct Model {
    names: BTreeMap<Node, BTreeMap<Vec<u8>, Node>>,
    about: BTreeMap<Node, Seen>,
}

impl Model {
    fn reachable(&self, root: Node) -> Vec<(Vec<u8>, Node)> {
        let (mut found, mut open) = (Vec::new(), vec![(Vec::new(), root)]);
        while let Some((path, node)) = open.pop() {
            for (name, child) in self.names.get(&node).into_iter().flatten() {
                open.push(([&path[..], b"/", name].concat(), *child));
            }
            found.push((path, node));
        }
        found
    }

    fn of_type(&self, root: Node, directories: bool) -> Vec<Node> {
        let is = |node: &Node| self.about[node].file_type == FileType::Directory;
        let mut nodes: Vec<Node> = self.reachable(root).into_iter().map(|(_, node)| node).collect();
        nodes.retain(|node| is(node) == directories);
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn listing(&self, root: Node) -> Listing {
        let reachable = self.reachable(root);
        let mut counts: BTreeMap<Node, u32> = BTreeMap::new();
        for (_, node) in &reachable {
            *counts.entry(*node).or_default() += 1;
        }
        let mut listing = Listing::new();
        for (path, node) in reachable {
            let mut seen = self.about[&node].clone();
            let below = self.names.get(&node).into_iter().flatten();
            let directories = below.filter(|(_, child)| self.about[child].file_type == FileType::Directory).count();
            seen.nlink = match seen.file_type {
                FileType::Directory => 2 + u32::try_from(directories).unwrap(),
                _ => counts[&node],
            };
            seen.same_as = format!("{node:?}").into_bytes();
            listing.insert(path, seen);
        }
        settle(&mut listing);
        listing
    }
}

fn seen(file_type: FileType, attributes: &Attributes) -> Seen {
    let mut attributes = attributes.clone();
    if file_type == FileType::Symlink {
        attributes.permissions = 0o777;
    }
    let (content, same_as) = (Content::default(), Vec::new());
    Seen { file_type, attributes, nlink: 0, size: 0, device: Device::default(), content, same_as }
}

/// Makes the name of a number: some are long, some share beginnings, some are strange.
fn name_of(number: u8) -> Vec<u8> {
    match number % 4 {
        0 => vec![b'n'; usize::from(number) + 1].into_iter().take(255).collect(),
        1 => format!("name-{number}").into_bytes(),
        2 => vec![b'!', number.max(1).wrapping_add(u8::from(number == b'/'))],
        _ => vec![0xff, number | 0x80],
    }
}

fn apply(maker: &mut Maker, model: &mut Model, change: &Change) {
    let root = maker.root();
    let pick = |nodes: &[Node], number: usize| nodes.get(number % nodes.len().max(1)).copied();
    let directories = model.of_type(root, true);
    match change {
        Change::Add { directory, name, kind, attributes, content } => {
            let (parent, name) = (pick(&directories, *directory).unwrap(), name_of(*name));
            let device = Device { major: u32::from(name[0]), minor: 70_000 };
            let target = vec![b't'; usize::from(name[0]) * 16 + 1];
            let (what, file_type) = match kind {
                0..=3 => (What::Regular, FileType::Regular),
                4 | 5 => (What::Directory, FileType::Directory),
                6 => (What::Symlink(&target), FileType::Symlink),
                7 => (What::Character(device), FileType::Character),
                _ => (What::Fifo, FileType::Fifo),
            };
            let mut attributes = attributes.clone();
            if !matches!(file_type, FileType::Regular | FileType::Directory) {
                attributes.xattrs.clear();
            }
            let node = maker.tree.add(parent, &name, what, &attributes).unwrap();
            let mut about = seen(file_type, &attributes);
            match file_type {
                FileType::Regular => fill(maker, node, content, *kind == 0, &mut about),
                FileType::Symlink => {
                    about.size = target.len() as u64;
                    about.content.0.insert(0, target);
                }
                FileType::Character => about.device = device,
                _ => {}
            }
            model.names.entry(parent).or_default().insert(name, node);
            model.about.insert(node, about);
        }
        Change::Link { directory, name, file } => {
            let files = model.of_type(root, false);
            let (Some(parent), Some(file)) = (pick(&directories, *directory), pick(&files, *file)) else { return };
            maker.tree.link(parent, &name_of(*name), file).unwrap();
            model.names.entry(parent).or_default().insert(name_of(*name), file);
        }
        Change::Remove { directory, name } => {
            let parent = pick(&directories, *directory).unwrap();
            let removed = maker.tree.remove(parent, &name_of(*name));
            assert_eq!(removed, model.names.entry(parent).or_default().remove(&name_of(*name)).is_some());
        }
        Change::Mark { directory } => {
            let node = pick(&directories, *directory).unwrap();
            maker.tree.set_xattr(node, b"trusted.overlay.opaque", b"y").unwrap();
            let about = model.about.get_mut(&node).unwrap();
            about.attributes.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
        }
    }
}

/// Gives a file content: pieces far from each other, or all of it.
fn fill(maker: &mut Maker, node: Node, pieces: &[(u32, u8)], sparse: bool, about: &mut Seen) {
    let mut pieces = pieces.to_vec();
    pieces.sort_unstable();
    pieces.dedup_by_key(|(offset, _)| *offset);
    let size = pieces.last().map_or(0, |(offset, _)| u64::from(*offset) + 1);
    let mut whole = vec![0; usize::try_from(size).unwrap()];
    for (offset, byte) in &pieces {
        whole[usize::try_from(*offset).unwrap()] = *byte;
    }
    if sparse {
        let parts: Vec<(u64, [u8; 1])> = pieces.iter().map(|(offset, byte)| (u64::from(*offset), [*byte])).collect();
        let parts: Vec<(u64, &[u8])> = parts.iter().map(|(offset, bytes)| (*offset, &bytes[..])).collect();
        maker.fill(node, size, &parts, true);
    } else {
        maker.fill(node, size, &[(0, &whole)], false);
    }
    about.size = size;
    not_zero(&mut about.content, 0, &whole);
}

fn made(changes: &[Change]) -> (tempfile::TempDir, Listing) {
    let directory = tempfile::tempdir().unwrap();
    let (mut maker, mut model) = (Maker::new(directory.path()), Model::default());
    let root = maker.root();
    let attributes = maker.tree.attributes(root).unwrap();
    model.about.insert(root, seen(FileType::Directory, &attributes));
    for change in changes {
        apply(&mut maker, &mut model, change);
    }
    maker.write();
    (directory, model.listing(root))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_is_read_back_as_it_was_made(changes in prop::collection::vec(change(), 0..60)) {
        let (directory, expected) = made(&changes);
        prop_assert_eq!(list_image(directory.path()), expected);
        let bytes = std::fs::read(directory.path().join("image")).unwrap();
        let image = Image::open(&bytes[..]).unwrap();
        let tree = Tree::of(&image, windlass_erofs::Limits::default()).unwrap();
        let volume = windlass_erofs::Volume {
            uuid: image.uuid(),
            name: image.name(),
            data_blocks: image.data_blocks(),
        };
        let mut again = Vec::new();
        tree.write(&volume, &mut again).unwrap();
        prop_assert_eq!(again.len(), bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn any_tree_is_to_the_kernel_what_it_was_made_as(changes in prop::collection::vec(change(), 0..60)) {
        let (directory, expected) = made(&changes);
        prop_assert_eq!(check(directory.path()), expected);
    }

    #[test]
    fn damage_is_refused_or_read_and_never_panics(
        changes in prop::collection::vec(change(), 0..40),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..20),
    ) {
        let (directory, _) = made(&changes);
        let mut bytes = std::fs::read(directory.path().join("image")).unwrap();
        for (at, value) in damage {
            // Behind what the checksum covers, where there is something.
            let at = if bytes.len() > 4096 { 4096 + at % (bytes.len() - 4096) } else { at % bytes.len() };
            bytes[at] = value;
        }
        if let Ok(image) = Image::open(&bytes[..]) {
            drop(Tree::of(&image, windlass_erofs::Limits::default()));
        }
    }
}
