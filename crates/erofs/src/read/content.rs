//! What inodes contain: names, targets, and where the bytes of files are.

use std::cmp::Ordering;

use super::{BLOCK, Image, Inode, Numbers, ReadAt};
use crate::error::{Result, damaged};
use crate::format::{
    BLOCK_BITS, CHUNK_BITS_MASK, CHUNK_INDEX_SIZE, CHUNK_INDEXES, DIRENT_SIZE, FileType, HOLE, Layout, MAX_NAME,
};

/// What a directory has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name; `.` and `..` are among them.
    pub name: Vec<u8>,
    /// The number of the inode.
    pub nid: u64,
    /// The kind of file, as the directory says it.
    pub code: u8,
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// Where it begins in the data; nothing for a hole.
    pub at: Option<u64>,
}

impl<R: ReadAt> Image<R> {
    /// Calls for each name in a directory, in order.
    ///
    /// # Errors
    /// `Damaged`, or what the call returns.
    pub fn for_each_name<E: From<crate::Error>>(
        &self,
        directory: &Inode,
        mut each: impl FnMut(Entry) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        for number in 0..Self::directory_blocks(directory)? {
            for entry in self.directory_block(directory, number)? {
                each(entry)?;
            }
        }
        Ok(())
    }

    /// Looks a name up in a directory.
    pub fn find(&self, directory: &Inode, name: &[u8]) -> Result<Option<Inode>> {
        let (mut low, mut high) = (0, Self::directory_blocks(directory)?);
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.directory_block(directory, middle)?;
            let (Some(first), Some(last)) = (block.first(), block.last()) else {
                return damaged(format!("a block of directory {} is empty", directory.nid));
            };
            match (name.cmp(&first.name), name.cmp(&last.name)) {
                (Ordering::Less, _) => high = middle,
                (_, Ordering::Greater) => low = middle + 1,
                _ => {
                    return block
                        .iter()
                        .find(|entry| entry.name == name)
                        .map(|found| self.inode(found.nid))
                        .transpose();
                }
            }
        }
        Ok(None)
    }

    fn directory_blocks(directory: &Inode) -> Result<u64> {
        if directory.file_type != FileType::Directory {
            return damaged(format!("inode {} is no directory", directory.nid));
        }
        Ok(directory.size.div_ceil(BLOCK))
    }

    fn directory_block(&self, directory: &Inode, number: u64) -> Result<Vec<Entry>> {
        let wrong = |what: &str| damaged(format!("directory {} {what}", directory.nid));
        let bytes = self.content_block(directory, number)?;
        let first = bytes.get(8..10).map_or(0, |bytes| usize::from(Numbers(bytes).u16()));
        let count = first / DIRENT_SIZE;
        if count == 0 || first % DIRENT_SIZE != 0 || first > bytes.len() {
            return wrong("has a block without entries");
        }
        let mut numbers = Numbers(bytes.get(..first).unwrap_or_default());
        let mut heads = Vec::with_capacity(count);
        for _ in 0..count {
            let (nid, name_at) = (numbers.u64(), usize::from(numbers.u16()));
            let [code, _] = numbers.take();
            heads.push((nid, name_at, code));
        }
        let mut entries = Vec::with_capacity(count);
        for (index, (nid, start, code)) in heads.iter().enumerate() {
            let end = heads.get(index + 1).map_or(bytes.len(), |(_, start, _)| *start);
            let Some(name) = bytes.get(*start..end) else { return wrong("has a name outside of its block") };
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if name.is_empty() || name.len() > MAX_NAME {
                return wrong("has a name of an impossible length");
            }
            entries.push(Entry { name: name.to_vec(), nid: *nid, code: *code });
        }
        Ok(entries)
    }

    /// Reads a block of what a directory or a link contains.
    fn content_block(&self, inode: &Inode, number: u64) -> Result<Vec<u8>> {
        let start = number * BLOCK;
        let length = usize::try_from(inode.size.saturating_sub(start).min(BLOCK)).unwrap_or_default();
        let last = inode.size / BLOCK;
        let behind = inode.attributes.0 + inode.attributes.1 as u64;
        let at = match inode.layout {
            Layout::Inline if number == last => behind,
            Layout::Inline | Layout::Plain => (u64::from(inode.union) << BLOCK_BITS).saturating_add(start),
            Layout::Chunks => return damaged(format!("inode {} has chunks and is no file", inode.nid)),
        };
        self.bytes(at, length)
    }

    /// Returns where a symbolic link points.
    pub fn target(&self, link: &Inode) -> Result<Vec<u8>> {
        if link.file_type != FileType::Symlink || link.size > BLOCK {
            return damaged(format!("inode {} is no link of a possible length", link.nid));
        }
        self.content_block(link, 0)
    }

    /// Calls for each stretch of a file, in order.
    ///
    /// # Errors
    /// `Damaged`, or what the call returns.
    pub fn for_each_extent<E: From<crate::Error>>(
        &self,
        file: &Inode,
        each: impl FnMut(Extent) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if file.file_type != FileType::Regular {
            return Ok(damaged(format!("inode {} is no file", file.nid))?);
        }
        if file.size == 0 {
            return Ok(());
        }
        match file.layout {
            Layout::Plain | Layout::Inline => Ok(damaged(format!("file {} has bytes in the metadata", file.nid))?),
            Layout::Chunks => self.for_each_chunk(file, each),
        }
    }

    /// Returns how large the chunks of a file are, as the binary logarithm of their blocks.
    pub(crate) fn chunk_bits(file: &Inode) -> Result<u8> {
        let format = u16::try_from(file.union).unwrap_or(u16::MAX);
        if file.layout != Layout::Chunks || format & !CHUNK_BITS_MASK != CHUNK_INDEXES {
            return damaged(format!("the chunks of file {} have an unknown form", file.nid));
        }
        u8::try_from(format & CHUNK_BITS_MASK).or_else(|_| damaged("chunks are too large"))
    }

    fn for_each_chunk<E: From<crate::Error>>(
        &self,
        file: &Inode,
        mut each: impl FnMut(Extent) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let chunk = BLOCK << Self::chunk_bits(file)?;
        let start = (file.attributes.0 + file.attributes.1 as u64).next_multiple_of(CHUNK_INDEX_SIZE as u64);
        for number in 0..file.size.div_ceil(chunk) {
            let bytes = self.bytes(start + number * CHUNK_INDEX_SIZE as u64, CHUNK_INDEX_SIZE)?;
            let mut numbers = Numbers(&bytes);
            let (_, device, block) = (numbers.u16(), numbers.u16(), numbers.u32());
            let offset = number * chunk;
            let length = chunk.min(file.size - offset);
            let at = match (block, device) {
                (HOLE, _) => None,
                (block, 1) => Some(self.checked(u64::from(block), length)?),
                _ => return Ok(damaged(format!("a chunk of file {} is on device {device}", file.nid))?),
            };
            each(Extent { offset, length, at })?;
        }
        Ok(())
    }

    fn checked(&self, block: u64, length: u64) -> Result<u64> {
        let end = length.div_ceil(BLOCK).checked_add(block);
        if end.is_none_or(|end| end > self.data_blocks().into()) {
            return damaged(format!("block {block} and what follows are beyond the data"));
        }
        Ok(block * BLOCK)
    }
}
