//! Writing an image from front to back.

use std::io::Write;

use super::Summary;
use super::order::{Listed, listing};
use super::plan::{BLOCK, Directory, Having, Plan, Sizes, is_directory};
use crate::checksum::crc32c;
use crate::error::{Error, Result};
use crate::format::{
    BLOCK_BITS, CHUNK_INDEX_SIZE, DIRENT_SIZE, Fields, FileType, HOLE, Layout, NID_UNIT, SUPER_OFFSET,
};
use crate::tree::{Node, Record, Tree};
use crate::xattr;

/// How many bytes are written at once.
const PIECE: usize = 256 << 10;

/// A writer that knows where it is, and finishes the superblock before the first block leaves.
struct Out<W> {
    inner: W,
    bytes: Vec<u8>,
    /// Where the bytes belong.
    start: u64,
}

impl<W: Write> Out<W> {
    fn at(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() < PIECE { Ok(()) } else { self.flush() }
    }

    fn fill(&mut self, to: u64) -> Result<()> {
        let missing = to.checked_sub(self.at()).and_then(|missing| usize::try_from(missing).ok());
        let Some(missing) = missing else {
            return Err(Error::Invalid(format!("the place {to} in the image has passed")));
        };
        self.bytes.resize(self.bytes.len() + missing, 0);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.start == 0 {
            seal(&mut self.bytes);
        }
        self.inner.write_all(&self.bytes)?;
        self.start += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// Sets the checksum, which covers the first block from the superblock on.
pub(crate) fn seal(first: &mut [u8]) {
    let Some(covered) = first.get_mut(SUPER_OFFSET..1 << BLOCK_BITS) else { return };
    if let Some(checksum) = covered.get_mut(4..8) {
        checksum.fill(0);
    }
    let value = crc32c(covered).to_le_bytes();
    if let Some(checksum) = covered.get_mut(4..8) {
        checksum.copy_from_slice(&value);
    }
}

pub(super) fn write(tree: &Tree, plan: &Plan, inner: impl Write) -> Result<Summary> {
    let mut out = Out { inner, bytes: Vec::with_capacity(PIECE + (64 << 10)), start: 0 };
    out.fill(SUPER_OFFSET as u64)?;
    let (superblock, slot) = plan.superblock.encode();
    out.put(&superblock)?;
    out.put(&slot)?;

    let mut directories = plan.directories.iter();
    if let (Some(root), Some(record)) = (directories.next(), tree.inodes.get(0)) {
        inode(&mut out, tree, plan, root.inode, record, Some(root))?;
    }
    for parent in &plan.directories {
        for entry in plan.order.entries(tree, parent.range.clone()) {
            let Some(record) = tree.inodes.get(entry.inode as usize) else { continue };
            // What has several names was written with the first of them.
            if is_directory(record) {
                inode(&mut out, tree, plan, entry.inode, record, directories.next())?;
            } else if plan.nid(entry.inode) * NID_UNIT >= out.at() {
                inode(&mut out, tree, plan, entry.inode, record, None)?;
            }
        }
    }
    out.fill(plan.directory_block * BLOCK)?;
    blocks(&mut out, tree, plan)?;
    out.fill(plan.shared_block * BLOCK)?;
    for (number, having) in plan.havings.iter().enumerate() {
        if matches!(having, Having::Shared(_)) {
            out.put(tree.sets.encoded(u32::try_from(number).unwrap_or(xattr::NONE)))?;
        }
    }
    out.fill(plan.bytes)?;
    out.flush()?;
    out.inner.flush()?;
    Ok(Summary { inodes: plan.superblock.inodes, bytes: plan.bytes })
}

fn inode<W: Write>(
    out: &mut Out<W>,
    tree: &Tree,
    plan: &Plan,
    number: u32,
    record: &Record,
    directory: Option<&Directory>,
) -> Result<()> {
    let placed = plan.placed(tree, number, record, directory);
    out.fill(plan.nid(number) * NID_UNIT)?;
    if placed.compact {
        out.put(&placed.disk.encode_compact())?;
    } else {
        out.put(&placed.disk.encode_extended())?;
    }
    attributes(out, tree, plan, record)?;
    match (placed.disk.layout, directory) {
        (Layout::Inline, Some(directory)) => {
            let last = directory.size / BLOCK;
            for_blocks(tree, plan, directory, |number, block| if number == last { out.put(block) } else { Ok(()) })
        }
        (Layout::Inline, None) => out.put(tree.target(Node(number))),
        (Layout::Chunks, _) => chunks(out, tree, plan, record),
        (Layout::Plain, _) => Ok(()),
    }
}

/// The blocks of directories and of long targets, which lie between them.
fn blocks<W: Write>(out: &mut Out<W>, tree: &Tree, plan: &Plan) -> Result<()> {
    let mut links: Vec<(u64, u32)> = plan.long_links.iter().map(|(inode, block)| (*block, *inode)).collect();
    links.sort_unstable();
    let mut links = links.into_iter().peekable();
    for directory in &plan.directories {
        while let Some((block, inode)) = links.next_if(|(block, _)| *block < directory.first) {
            long_link(out, tree, plan, block, inode)?;
        }
        let Some(record) = tree.inodes.get(directory.inode as usize) else { continue };
        let layout = plan.placed(tree, directory.inode, record, Some(directory)).disk.layout;
        let whole = if layout == Layout::Inline { directory.size / BLOCK } else { directory.size.div_ceil(BLOCK) };
        for_blocks(tree, plan, directory, |number, block| {
            if number >= whole {
                return Ok(());
            }
            out.fill(u64::from(plan.block(directory.first + number)) * BLOCK)?;
            out.put(block)
        })?;
    }
    links.try_for_each(|(block, inode)| long_link(out, tree, plan, block, inode))
}

fn long_link<W: Write>(out: &mut Out<W>, tree: &Tree, plan: &Plan, block: u64, inode: u32) -> Result<()> {
    out.fill(u64::from(plan.block(block)) * BLOCK)?;
    out.put(tree.target(Node(inode)))
}

fn attributes<W: Write>(out: &mut Out<W>, tree: &Tree, plan: &Plan, record: &Record) -> Result<()> {
    let Some(having) = plan.havings.get(record.xattrs as usize) else { return Ok(()) };
    let mut header = Fields::<{ xattr::HEADER }>::new();
    let starts = tree.sets.starts(record.xattrs);
    match having {
        Having::Inline => {
            out.put(&header.done())?;
            out.put(tree.sets.encoded(record.xattrs))
        }
        Having::Shared(at) => {
            out.put(&header.u32(0).u8(u8::try_from(starts.len()).unwrap_or_default()).done())?;
            for start in starts {
                let place = u32::try_from((at + u64::from(*start)) / 4);
                let place = place.map_err(|_| crate::error::too_large("there are too many extended attributes"))?;
                out.put(&place.to_le_bytes())?;
            }
            Ok(())
        }
    }
}

/// The index of a file: where each chunk is.
fn chunks<W: Write>(out: &mut Out<W>, tree: &Tree, plan: &Plan, record: &Record) -> Result<()> {
    let (bits, runs) = tree.chunks_of(record);
    out.fill(out.at().next_multiple_of(CHUNK_INDEX_SIZE as u64))?;
    let mut runs = runs.iter().peekable();
    let device = u16::from(plan.superblock.device.is_some());
    for number in 0..record.size.div_ceil(BLOCK << bits) {
        while runs.next_if(|run| run.first + u64::from(run.count) <= number).is_some() {}
        let address = match runs.peek() {
            Some(run) if run.first <= number => {
                let beyond = (number - run.first) << bits;
                Some(u32::try_from(u64::from(run.block) + beyond).unwrap_or(HOLE))
            }
            _ => None,
        };
        let mut index = Fields::<CHUNK_INDEX_SIZE>::new();
        index.u16(0).u16(if address.is_some() { device } else { 0 }).u32(address.unwrap_or(HOLE));
        out.put(&index.done())?;
    }
    Ok(())
}

/// Makes the blocks of a directory, one after the other; each is as long as what is in it.
fn for_blocks(
    tree: &Tree,
    plan: &Plan,
    directory: &Directory,
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut sizes = Sizes::default();
    let (mut number, mut block, mut listed) = (0, Vec::with_capacity(1 << BLOCK_BITS), Vec::<Listed<'_>>::new());
    for one in listing(tree, &plan.order, directory.inode, directory.range.clone()) {
        if sizes.add(one.name) && !listed.is_empty() {
            fill_block(tree, plan, &listed, &mut block);
            each(number, &block)?;
            listed.clear();
            number += 1;
        }
        listed.push(one);
    }
    fill_block(tree, plan, &listed, &mut block);
    each(number, &block)
}

fn fill_block(tree: &Tree, plan: &Plan, listed: &[Listed<'_>], block: &mut Vec<u8>) {
    block.clear();
    let mut name_at = listed.len() * DIRENT_SIZE;
    for one in listed {
        let kind = tree.inodes.get(one.inode as usize).and_then(|record| FileType::of_mode(record.mode));
        let mut entry = Fields::<DIRENT_SIZE>::new();
        entry.u64(plan.nid(one.inode)).u16(u16::try_from(name_at).unwrap_or(u16::MAX));
        entry.u8(kind.map_or(0, FileType::code)).u8(0);
        block.extend_from_slice(&entry.done());
        name_at += one.name.len();
    }
    for one in listed {
        block.extend_from_slice(one.name);
    }
}
