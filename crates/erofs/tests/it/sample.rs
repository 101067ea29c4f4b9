//! Trees to make images of, and what is expected to be read from those.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use windlass_erofs::{
    Attributes, Data, Device, FileType, Image, Inode, Limits, Node, Packer, Summary, Time, Tree, Volume, What, Xattrs,
};

/// Everything that can be seen of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) file_type: FileType,
    pub(crate) attributes: Attributes,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    pub(crate) device: Device,
    /// The target of a link, or the stretches of a file that are not zero.
    pub(crate) content: Content,
    /// Which file it is, by its first name.
    pub(crate) same_as: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content(pub(crate) BTreeMap<u64, Vec<u8>>);

pub(crate) type Listing = BTreeMap<Vec<u8>, Seen>;

/// A tree on its way into the two files of an image.
pub(crate) struct Maker {
    pub(crate) tree: Tree,
    packer: Packer,
    data: File,
    pub(crate) directory: PathBuf,
}

impl Maker {
    pub(crate) fn new(directory: &Path) -> Self {
        let data = File::create(directory.join("data")).unwrap();
        Self { tree: Tree::new(Limits::default()), packer: Packer::new(), data, directory: directory.to_owned() }
    }

    pub(crate) fn root(&self) -> Node {
        self.tree.root()
    }

    pub(crate) fn add(&mut self, parent: Node, name: &str, what: What<'_>, attributes: &Attributes) -> Node {
        self.tree.add(parent, name.as_bytes(), what, attributes).unwrap()
    }

    pub(crate) fn dir(&mut self, parent: Node, name: &str) -> Node {
        self.add(parent, name, What::Directory, &plain(0o755))
    }

    pub(crate) fn file(&mut self, parent: Node, name: &str, content: &[u8]) -> Node {
        let node = self.add(parent, name, What::Regular, &plain(0o644));
        self.fill(node, content.len() as u64, &[(0, content)], false);
        node
    }

    pub(crate) fn fill(&mut self, node: Node, size: u64, parts: &[(u64, &[u8])], sparse: bool) {
        self.packer.begin(size, sparse).unwrap();
        for (offset, bytes) in parts {
            let (mut offset, mut bytes) = (*offset, *bytes);
            while !bytes.is_empty() {
                let place = self.packer.place(offset, bytes.len()).unwrap();
                let (now, rest) = bytes.split_at(place.length);
                self.data.write_all_at(now, place.at).unwrap();
                offset += now.len() as u64;
                bytes = rest;
            }
        }
        let data = self.packer.end();
        if data == Data::Nothing {
            assert!(size == 0 || sparse);
        }
        self.tree.set_data(node, size, data).unwrap();
    }

    pub(crate) fn write(&mut self) -> Summary {
        let data_blocks = self.packer.blocks().max(1);
        self.data.set_len(u64::from(data_blocks) * 4096).unwrap();
        let volume = Volume { uuid: [7; 16], name: *b"sample\0\0\0\0\0\0\0\0\0\0", data_blocks };
        let out = BufWriter::new(File::create(self.directory.join("image")).unwrap());
        let summary = self.tree.write(&volume, out).unwrap();
        assert_eq!(std::fs::metadata(self.directory.join("image")).unwrap().len(), summary.bytes);
        summary
    }
}

pub(crate) fn plain(permissions: u16) -> Attributes {
    let mtime = Time { seconds: 1_600_000_000, nanoseconds: 5 };
    Attributes { permissions, mtime, ..Attributes::default() }
}

pub(crate) fn xattrs(pairs: &[(&str, &[u8])]) -> Xattrs {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

/// Cuts bytes into the stretches that are not zero, by blocks.
pub(crate) fn not_zero(content: &mut Content, offset: u64, bytes: &[u8]) {
    for (number, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            content.0.insert(offset + number as u64 * 4096, block.to_vec());
        }
    }
}

/// Lists an image by this crate's own reader.
pub(crate) fn list_image(directory: &Path) -> Listing {
    let image = Image::open(File::open(directory.join("image")).unwrap()).unwrap();
    let data = File::open(directory.join("data")).unwrap();
    let (mut listing, mut names) = (Listing::new(), BTreeMap::new());
    let mut open = vec![(Vec::new(), image.root().unwrap())];
    while let Some((path, inode)) = open.pop() {
        let same_as = names.entry(inode.nid).or_insert_with(|| path.clone()).clone();
        listing.insert(path.clone(), see(&image, &data, &inode, same_as));
        if inode.file_type != FileType::Directory {
            continue;
        }
        let mut below = Vec::new();
        image
            .for_each_name::<windlass_erofs::Error>(&inode, |entry| {
                let child = image.inode(entry.nid)?;
                assert_eq!(entry.code, child.file_type as u8);
                if entry.name != b"." && entry.name != b".." {
                    assert_eq!(image.find(&inode, &entry.name)?, Some(child));
                    below.push(([&path[..], b"/", &entry.name].concat(), child));
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(image.find(&inode, b"there is no such name").unwrap(), None);
        assert!(below.is_sorted_by(|a, b| a.0 < b.0));
        open.extend(below.into_iter().rev());
    }
    assert_eq!(image.inodes(), names.len() as u64);
    settle(&mut listing);
    listing
}

/// Names the first of several names of a file, in the order of their bytes.
pub(crate) fn settle(listing: &mut Listing) {
    let mut first = BTreeMap::new();
    for (path, seen) in listing.iter_mut() {
        let name = first.entry(seen.same_as.clone()).or_insert_with(|| path.clone());
        seen.same_as.clone_from(name);
    }
}

fn see(image: &Image<File>, data: &File, inode: &Inode, same_as: Vec<u8>) -> Seen {
    let mut content = Content::default();
    match inode.file_type {
        FileType::Symlink => _ = content.0.insert(0, image.target(inode).unwrap()),
        FileType::Regular => image
            .for_each_extent::<windlass_erofs::Error>(inode, |extent| {
                if let Some(at) = extent.at {
                    let mut bytes = vec![0; usize::try_from(extent.length).unwrap()];
                    data.read_exact_at(&mut bytes, at)?;
                    not_zero(&mut content, extent.offset, &bytes);
                }
                Ok(())
            })
            .unwrap(),
        _ => {}
    }
    let Inode { file_type, nlink, device, .. } = *inode;
    let size = if file_type == FileType::Directory { 0 } else { inode.size };
    Seen { file_type, attributes: image.attributes(inode).unwrap(), nlink, size, device, content, same_as }
}
