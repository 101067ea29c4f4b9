//! Trees of any kind: what is written is read back as it was made, and makes the same tree again.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use windlass_erofs::{Attributes, Device, FileType, Image, Inode, Limits, Node, Packer, Time, Tree, Volume, What};

#[derive(Arbitrary, Debug)]
enum Change {
    Add { directory: u8, name: Vec<u8>, kind: u8, about: About, size: u32, pieces: Vec<u32> },
    Link { directory: u8, name: Vec<u8>, node: u8 },
    Remove { directory: u8, name: Vec<u8> },
    Mark { node: u8, name: Vec<u8>, value: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
struct About {
    permissions: u16,
    owner: (u32, u32),
    time: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl About {
    fn attributes(&self) -> Attributes {
        Attributes {
            permissions: self.permissions & 0o7777,
            uid: self.owner.0,
            gid: self.owner.1,
            mtime: Time { seconds: self.time.0, nanoseconds: self.time.1 % 1_000_000_000 },
            xattrs: self.xattrs.iter().map(|(name, value)| ([b"user.", &name[..]].concat(), value.clone())).collect(),
        }
    }
}

/// Everything that can be told of a file: what it is, its attributes, its size, its names, its content.
type Seen = (FileType, Attributes, u64, u32, Device, Vec<u8>, Vec<(u64, u64, u64)>);

fn see(image: &Image<&[u8]>, inode: &Inode) -> windlass_erofs::Result<Seen> {
    let target = if inode.file_type == FileType::Symlink { image.target(inode)? } else { Vec::new() };
    let mut extents = Vec::new();
    if inode.file_type == FileType::Regular {
        image.for_each_extent::<windlass_erofs::Error>(inode, |extent| {
            extents.extend(extent.at.map(|at| (extent.offset, extent.length, at)));
            Ok(())
        })?;
    }
    let size = if inode.file_type == FileType::Directory { 0 } else { inode.size };
    Ok((inode.file_type, image.attributes(inode)?, size, inode.nlink, inode.device, target, extents))
}

fn list(image: &Image<&[u8]>) -> windlass_erofs::Result<BTreeMap<Vec<u8>, Seen>> {
    let mut listing = BTreeMap::new();
    let mut open = vec![(Vec::new(), image.root()?)];
    while let Some((path, inode)) = open.pop() {
        listing.insert(path.clone(), see(image, &inode)?);
        if inode.file_type != FileType::Directory {
            continue;
        }
        image.for_each_name::<windlass_erofs::Error>(&inode, |entry| {
            if entry.name != b"." && entry.name != b".." {
                assert_eq!(image.find(&inode, &entry.name)?.map(|found| found.nid), Some(entry.nid));
                open.push(([&path[..], b"/", &entry.name].concat(), image.inode(entry.nid)?));
            }
            Ok(())
        })?;
    }
    Ok(listing)
}

fn write(tree: &Tree, data_blocks: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    tree.write(&Volume { data_blocks, ..Volume::default() }, &mut bytes).expect("a tree that was accepted is written");
    bytes
}

/// Makes the changes, as far as they are accepted; returns the tree, the nodes and how many blocks of data there are.
fn make(changes: &[Change]) -> (Tree, u32) {
    let (mut tree, mut packer) = (Tree::new(Limits { memory: 16 << 20 }), Packer::new());
    let mut nodes = vec![tree.root()];
    for change in changes {
        let pick = |number: u8, nodes: &[Node]| nodes[usize::from(number) % nodes.len()];
        match change {
            Change::Add { directory, name, kind, about, size, pieces } => {
                let target = &vec![b't'; usize::from(*kind) * 16 + 1][..];
                let device = Device { major: size & 0xfff, minor: size >> 12 };
                let what = match kind % 7 {
                    0 | 1 => What::Regular,
                    2 => What::Directory,
                    3 => What::Symlink(target),
                    4 => What::Character(device),
                    5 => What::Block(device),
                    _ => What::Fifo,
                };
                let Ok(node) = tree.add(pick(*directory, &nodes), name, what, &about.attributes()) else { continue };
                nodes.push(node);
                if what == What::Regular {
                    let _ = fill(&mut tree, &mut packer, node, u64::from(*size), pieces, kind % 7 == 1);
                }
            }
            Change::Link { directory, name, node } => {
                let _ = tree.link(pick(*directory, &nodes), name, pick(*node, &nodes));
            }
            Change::Remove { directory, name } => _ = tree.remove(pick(*directory, &nodes), name),
            Change::Mark { node, name, value } => {
                let _ = tree.set_xattr(pick(*node, &nodes), &[b"trusted.", &name[..]].concat(), value);
            }
        }
    }
    (tree, packer.blocks())
}

fn fill(
    tree: &mut Tree,
    packer: &mut Packer,
    node: Node,
    size: u64,
    pieces: &[u32],
    sparse: bool,
) -> windlass_erofs::Result<()> {
    packer.begin(size, sparse)?;
    if sparse {
        let mut pieces: Vec<u64> = pieces.iter().map(|piece| u64::from(*piece)).filter(|piece| *piece < size).collect();
        pieces.sort_unstable();
        pieces.iter().try_for_each(|piece| packer.place(*piece, 1).map(drop))?;
    }
    tree.set_data(node, size, packer.end())
}

fuzz_target!(|changes: Vec<Change>| {
    let (tree, blocks) = make(&changes);
    let bytes = write(&tree, blocks);
    let image = Image::open(&bytes[..]).expect("what is written is an image");
    let listing = list(&image).expect("all of an image that was written can be read");
    let again = Tree::of(&image, Limits::default()).expect("an image that was written becomes a tree");
    let bytes_again = write(&again, blocks);
    assert_eq!(bytes_again.len(), bytes.len());
    let image_again = Image::open(&bytes_again[..]).expect("what is written is an image");
    assert_eq!(list(&image_again).expect("it can be read"), listing);
    for (path, seen) in &listing {
        let mut node = tree.root();
        for name in path.split(|byte| *byte == b'/').skip(1) {
            node = tree.find(node, name).expect("only what is in the tree is in the image");
        }
        assert_eq!(tree.file_type(node), seen.0);
        let attributes = tree.attributes(node).expect("attributes that were accepted are read");

        assert_eq!(attributes, seen.1);
    }
});
