//! Changing an image that is there: its root alone, in place, or everything, by making a tree of it again.

use std::collections::HashMap;

use crate::error::{Error, Result, damaged};
use crate::format::{BLOCK_BITS, EXTENDED_SIZE, FileType, OnDisk, SUPER_OFFSET};
use crate::pack::Packer;
use crate::read::{Image, Inode, ReadAt};
use crate::tree::{Attributes, Data, Limits, Node, Run, Tree, What};
use crate::write::{FIRST, seal};

/// The name of an image whose root stands for nothing: whoever puts the image onto another is to give it the root of that
/// one, by [`change_root`].
pub const IMPLIED_ROOT: [u8; 16] = *b"implied root\0\0\0\0";

/// Where the name of an image is.
const NAME: std::ops::Range<usize> = SUPER_OFFSET + 64..SUPER_OFFSET + 80;

/// Gives the root of an image of this crate other attributes, and takes its name away, given the first block. Returns
/// false, and changes nothing, when there are extended attributes before or after: those need another place.
///
/// # Errors
/// `Damaged` when it is not such a block.
pub fn change_root(first: &mut [u8], attributes: &Attributes) -> Result<bool> {
    let image = Image::open_part(&*first)?;
    let root = image.root()?;
    if first.len() != 1 << BLOCK_BITS || root.nid * crate::format::NID_UNIT != FIRST {
        return damaged("its root is not where it should be");
    }
    if !attributes.xattrs.is_empty() || !image.xattrs(&root)?.is_empty() {
        return Ok(false);
    }
    let old = Image::<&[u8]>::on_disk(&root)?;
    let new = OnDisk {
        mode: FileType::Directory.bits() | attributes.permissions & 0o7777,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime,
        ..old
    };
    let start = usize::try_from(FIRST).unwrap_or_default();
    let place = first.get_mut(start..start + EXTENDED_SIZE);
    let place = place.ok_or_else(|| Error::Damaged("its first block is cut off".to_owned()))?;
    place.copy_from_slice(&new.encode_extended());
    first.get_mut(NAME).unwrap_or_default().fill(0);
    seal(first);
    Ok(true)
}

impl Tree {
    /// Makes a tree of an image again. The bytes of files stay where they are.
    ///
    /// # Errors
    /// `Damaged`, or `TooLarge` above the limits.
    pub fn of<R: ReadAt>(image: &Image<R>, limits: Limits) -> Result<Self> {
        let mut tree = Self::new(limits);
        let root = image.root()?;
        tree.set_attributes(tree.root(), &image.attributes(&root)?)?;
        let mut known = HashMap::from([(root.nid, tree.root())]);
        let mut directories = vec![(root, tree.root())];
        while let Some((inode, node)) = directories.pop() {
            image.for_each_name(&inode, |entry| -> Result<()> {
                if entry.name == b"." || entry.name == b".." {
                    return Ok(());
                }
                let child = image.inode(entry.nid)?;
                if let Some(other) = known.get(&entry.nid) {
                    // One that is in itself would never end.
                    return tree.link(node, &entry.name, *other).or_else(|error| damaged(error.to_string()));
                }
                let added = tree.add_inode(image, node, &entry.name, &child)?;
                known.insert(entry.nid, added);
                if child.file_type == FileType::Directory {
                    directories.push((child, added));
                }
                Ok(())
            })?;
        }
        Ok(tree)
    }

    fn add_inode<R: ReadAt>(&mut self, image: &Image<R>, parent: Node, name: &[u8], inode: &Inode) -> Result<Node> {
        let target = if inode.file_type == FileType::Symlink { image.target(inode)? } else { Vec::new() };
        let what = match inode.file_type {
            FileType::Regular => What::Regular,
            FileType::Directory => What::Directory,
            FileType::Symlink => What::Symlink(&target),
            FileType::Character => What::Character(inode.device),
            FileType::Block => What::Block(inode.device),
            FileType::Fifo => What::Fifo,
            FileType::Socket => What::Socket,
        };
        let node = self.add(parent, name, what, &image.attributes(inode)?)?;
        if inode.file_type == FileType::Regular && inode.size > 0 {
            self.set_data(node, inode.size, places(image, inode)?)?;
        }
        Ok(node)
    }
}

/// Returns where the bytes of a file are.
fn places<R: ReadAt>(image: &Image<R>, file: &Inode) -> Result<Data> {
    let bits = Image::<R>::chunk_bits(file)?;
    let mut runs: Vec<Run> = Vec::new();
    let mut number = 0;
    image.for_each_extent(file, |extent| -> Result<()> {
        if let Some(at) = extent.at {
            let block = u32::try_from(at >> BLOCK_BITS).or_else(|_| damaged("a chunk is too far away"))?;
            let follows = |run: &Run| {
                run.first + u64::from(run.count) == number
                    && u64::from(run.block) + (u64::from(run.count) << bits) == u64::from(block)
            };
            match runs.last_mut().filter(|run| follows(run)) {
                Some(run) => run.count += 1,
                None => runs.push(Run { first: number, count: 1, block }),
            }
        }
        number += 1;
        Ok(())
    })?;
    Ok(match runs[..] {
        [] => Data::Nothing,
        [run] if Packer::is_whole(file.size, bits, run) => Data::Blocks(run.block),
        _ => Data::Chunks { bits, runs },
    })
}
