//! What is below the layer: the images of the layers there, seen as the one tree that an overlay makes of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use windlass_core::error::IoResultExt as _;
use windlass_core::snapshot::{LAYER_DATA, LAYER_IMAGE};
use windlass_core::{Error, Result};
use windlass_erofs::{Attributes, Device, FileType, Image, Inode};

use super::failed;
use super::whiteout::is_opaque;
use crate::path::LayerPath;

/// How much of a file is copied at once.
const PIECE: u64 = 1 << 20;

/// The images, the topmost first.
pub(super) struct Images(Vec<Below>);

struct Below {
    image: Image<File>,
    /// Read once: every search begins there, in all images.
    root: Inode,
    data: File,
}

/// What the images have under a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Which of the images has it.
    pub(super) at: usize,
    pub(super) inode: Inode,
}

/// Bytes of a file that are somewhere.
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Where in the data.
    pub(super) at: u64,
}

impl Images {
    pub(super) fn open(directories: &[PathBuf]) -> Result<Self> {
        let open = |directory: &PathBuf| {
            let file = |name: &str| {
                let path = directory.join(name);
                File::open(&path).attempt(|| format!("open {} below the layer", path.display()))
            };
            let image = Image::open(file(LAYER_IMAGE)?).map_err(failed)?;
            let root = image.root().map_err(failed)?;
            Ok(Below { image, root, data: file(LAYER_DATA)? })
        };
        directories.iter().map(open).collect::<Result<_>>().map(Self)
    }

    fn of(&self, at: usize) -> Result<&Below> {
        self.0.get(at).ok_or_else(|| Error::internal("there is no such image below"))
    }

    /// Looks a path up; none of its components may be a symbolic link.
    pub(super) fn find(&self, path: &LayerPath) -> Result<Option<Found>> {
        let mut stack: Vec<Found> = self.roots().collect();
        let depths = path.components().count();
        for (depth, name) in path.components().enumerate() {
            let mut next = Vec::new();
            let mut other = None;
            for Found { at, inode } in stack {
                let image = &self.of(at)?.image;
                let Some(inode) = image.find(&inode, name).map_err(failed)? else { continue };
                if inode.file_type != FileType::Directory {
                    // A name that is not a directory hides everything under it.
                    if next.is_empty() && !is_whiteout(&inode) {
                        other = Some(Found { at, inode });
                    }
                    break;
                }
                next.push(Found { at, inode });
                if is_opaque(&image.xattrs(&inode).map_err(failed)?) {
                    break;
                }
            }
            match (other, next.is_empty()) {
                (Some(found), _) if depth + 1 == depths => return Ok(Some(found)),
                (Some(_), _) | (None, true) => return Ok(None),
                (None, false) => stack = next,
            }
        }
        Ok(stack.into_iter().next())
    }

    fn roots(&self) -> impl Iterator<Item = Found> {
        self.0.iter().enumerate().map(|(at, below)| Found { at, inode: below.root })
    }

    /// Returns what is known of the topmost root.
    pub(super) fn root_attributes(&self) -> Result<Attributes> {
        let below = self.of(0)?;
        self.attributes(0, &below.root)
    }

    /// Returns the names in the root.
    pub(super) fn root_names(&self) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        for Found { at, inode } in self.roots() {
            let each = |entry: windlass_erofs::Entry| {
                if entry.name != b"." && entry.name != b".." {
                    names.insert(entry.name);
                }
                Ok::<_, windlass_erofs::Error>(())
            };
            self.of(at)?.image.for_each_name(&inode, each).map_err(failed)?;
        }
        Ok(names)
    }

    /// Returns what is known of something, but for overlayfs' own marks.
    pub(super) fn attributes(&self, at: usize, inode: &Inode) -> Result<Attributes> {
        let mut attributes = self.of(at)?.image.attributes(inode).map_err(failed)?;
        attributes.xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay."));
        Ok(attributes)
    }

    pub(super) fn target(&self, at: usize, inode: &Inode) -> Result<Vec<u8>> {
        self.of(at)?.image.target(inode).map_err(failed)
    }

    /// Returns the stretches of a file that are somewhere.
    pub(super) fn extents(&self, at: usize, inode: &Inode) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let each = |extent: windlass_erofs::Extent| {
            if let Some(at) = extent.at {
                pieces.push(Piece { offset: extent.offset, length: extent.length, at });
            }
            Ok::<_, windlass_erofs::Error>(())
        };
        self.of(at)?.image.for_each_extent(inode, each).map_err(failed)?;
        Ok(pieces)
    }

    /// Reads bytes of the data, as many as are wanted or a piece of them.
    pub(super) fn read(&self, at: usize, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length.min(PIECE)).unwrap_or_default()];
        let read = self.of(at)?.data.read_exact_at(&mut bytes, offset);
        read.attempt(|| "read a file of a layer below".to_owned())?;
        Ok(bytes)
    }
}

/// Tells whether something is overlayfs' mark of a deleted name.
fn is_whiteout(inode: &Inode) -> bool {
    inode.file_type == FileType::Character && inode.device == Device::default()
}
