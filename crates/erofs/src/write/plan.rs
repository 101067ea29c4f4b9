//! The places of everything in an image, found without writing anything.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Volume;
use super::order::{Order, listing};
use crate::error::{Result, too_large};
use crate::format::{
    BLOCK_BITS, CHUNK_INDEX_SIZE, CHUNK_INDEXES, COMPACT_SIZE, DIRENT_SIZE, EXTENDED_SIZE, FileType, Layout, NID_UNIT,
    OnDisk, SLOT_SIZE, SUPER_OFFSET, SUPER_SIZE, Super, Time,
};
use crate::tree::{Record, Tree};
use crate::xattr;

pub(super) const BLOCK: u64 = 1 << BLOCK_BITS;

/// The most of a directory or a target that is put behind its inode: more would leave too much of blocks unused.
const MAX_INLINE: u64 = BLOCK / 2;
/// The most attributes of one inode that are references.
const MAX_SHARED: usize = 127;

/// A directory and where it is.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub(super) inode: u32,
    /// Which entries of the order it has.
    pub(super) range: Range<usize>,
    pub(super) size: u64,
    pub(super) nlink: u32,
    /// The first of its blocks, counted from the first block of directories and long targets.
    pub(super) first: u64,
}

/// How an inode has its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Having {
    /// Behind it.
    Inline,
    /// By reference: where the set begins, counted from where shared ones do.
    Shared(u64),
}

pub(super) struct Plan {
    pub(super) order: Order,
    /// The directories, in the order in which what is in them is written.
    pub(super) directories: Vec<Directory>,
    pub(super) superblock: Super,
    pub(super) havings: Vec<Having>,
    /// Links whose targets have a block of their own, and which one.
    pub(super) long_links: BTreeMap<u32, u64>,
    /// The places of inodes, in the format's unit; 0 for those that have none.
    nids: Vec<u32>,
    pub(super) directory_block: u64,
    pub(super) shared_block: u64,
    pub(super) bytes: u64,
}

/// An inode as it will be written.
pub(super) struct Placed {
    pub(super) disk: OnDisk,
    pub(super) compact: bool,
    /// How many bytes come behind the attributes.
    pub(super) tail: u64,
}

impl Placed {
    fn header(&self) -> u64 {
        let inode = if self.compact { COMPACT_SIZE } else { EXTENDED_SIZE };
        (inode + xattr::size_of(self.disk.xattr_count)) as u64
    }

    fn total(&self) -> u64 {
        self.header() + self.tail
    }
}

impl Plan {
    pub(super) fn make(tree: &Tree, volume: &Volume) -> Result<Self> {
        let (havings, shared) = havings(tree);
        let mut plan = Self {
            order: Order::of(tree),
            directories: Vec::new(),
            superblock: Super {
                build_time: usual_time(tree),
                uuid: volume.uuid,
                name: volume.name,
                ..Super::default()
            },
            havings,
            long_links: BTreeMap::new(),
            nids: vec![0; tree.inodes.len()],
            directory_block: 0,
            shared_block: 0,
            bytes: 0,
        };
        let (end, directory_blocks) = plan.place_inodes(tree)?;
        plan.directory_block = end.div_ceil(BLOCK);
        plan.shared_block = plan.directory_block + directory_blocks;
        // `fsck.erofs` 1.5 reads the head of the attributes of every inode, of those that have none, too.
        let least = (end + xattr::HEADER as u64).div_ceil(BLOCK);
        let blocks = least.max(plan.shared_block + shared.div_ceil(BLOCK));
        plan.bytes = blocks * BLOCK;
        let own = u32::try_from(blocks).ok().filter(|own| own.checked_add(volume.data_blocks).is_some());
        let own = own.ok_or_else(|| too_large("the image has more blocks than the format can count"))?;
        let superblock = &mut plan.superblock;
        superblock.blocks = own;
        superblock.root_nid = u16::try_from(FIRST / NID_UNIT).unwrap_or_default();
        superblock.xattr_block = u32::try_from(plan.shared_block).unwrap_or_default();
        superblock.device = (volume.data_blocks > 0).then_some((volume.data_blocks, own));
        Ok(plan)
    }

    /// Returns where inodes end, and how many blocks directories have.
    fn place_inodes(&mut self, tree: &Tree) -> Result<(u64, u64)> {
        let mut at = FIRST;
        let mut blocks = 0;
        self.place_directory(tree, 0, &mut at, &mut blocks)?;
        let mut next = 0;
        while let Some(directory) = self.directories.get(next) {
            for place in directory.range.clone() {
                let Some(inode) = self.order.entries(tree, place..place + 1).next().map(|entry| entry.inode) else {
                    continue;
                };
                match tree.inodes.get(inode as usize) {
                    Some(record) if is_directory(record) => self.place_directory(tree, inode, &mut at, &mut blocks)?,
                    Some(record) if self.nid(inode) == 0 => {
                        if FileType::of_mode(record.mode) == Some(FileType::Symlink) && record.size > MAX_INLINE {
                            self.long_links.insert(inode, blocks);
                            blocks += record.size.div_ceil(BLOCK);
                        }
                        let placed = self.placed(tree, inode, record, None);
                        self.superblock.chunked |= placed.disk.layout == Layout::Chunks;
                        self.place(inode, &placed, &mut at)?;
                    }
                    _ => {}
                }
            }
            next += 1;
        }
        Ok((at, blocks))
    }

    fn place_directory(&mut self, tree: &Tree, inode: u32, at: &mut u64, blocks: &mut u64) -> Result<()> {
        let Some(record) = tree.inodes.get(inode as usize) else { return Ok(()) };
        let range = self.order.range(tree, inode);
        let is_below = |at: u32| tree.inodes.get(at as usize).is_some_and(is_directory);
        let below = self.order.entries(tree, range.clone()).filter(|entry| is_below(entry.inode)).count();
        let nlink = u32::try_from(below).ok().and_then(|below| below.checked_add(2));
        let nlink = nlink.ok_or_else(|| too_large("a directory has too many directories"))?;
        let mut size = Sizes::default();
        listing(tree, &self.order, inode, range.clone()).for_each(|listed| {
            size.add(listed.name);
        });
        let directory = Directory { inode, range, size: size.total(), nlink, first: *blocks };
        let placed = self.placed(tree, inode, record, Some(&directory));
        *blocks +=
            if placed.disk.layout == Layout::Inline { directory.size / BLOCK } else { directory.size.div_ceil(BLOCK) };
        self.place(inode, &placed, at)?;
        self.directories.push(directory);
        Ok(())
    }

    /// Puts an inode at the next place that will do. What is behind it must not lie in two blocks if it is a part of the
    /// content.
    fn place(&mut self, inode: u32, placed: &Placed, at: &mut u64) -> Result<()> {
        *at = at.next_multiple_of(NID_UNIT);
        if placed.disk.layout == Layout::Inline && placed.tail > 0 {
            let (start, end) = (*at + placed.header(), *at + placed.total());
            if start / BLOCK != (end - 1) / BLOCK {
                // A little into the next block at most, where there is room enough for the longest tail.
                *at = (start.next_multiple_of(BLOCK) - placed.header() % BLOCK).next_multiple_of(NID_UNIT);
            }
        }
        let nid = u32::try_from(*at / NID_UNIT).map_err(|_| too_large("the metadata of the image is too large"))?;
        if let Some(place) = self.nids.get_mut(inode as usize) {
            *place = nid;
        }
        self.superblock.inodes += 1;
        *at += placed.total();
        Ok(())
    }

    pub(super) fn nid(&self, inode: u32) -> u64 {
        self.nids.get(inode as usize).copied().unwrap_or_default().into()
    }

    /// Returns the address of one of the blocks of directories and long targets.
    pub(super) fn block(&self, number: u64) -> u32 {
        u32::try_from(self.directory_block + number).unwrap_or_default()
    }

    /// Describes an inode. Addresses are right only when everything has its place; sizes always are.
    pub(super) fn placed(&self, tree: &Tree, inode: u32, record: &Record, directory: Option<&Directory>) -> Placed {
        let having = self.havings.get(record.xattrs as usize).copied();
        let attributes = match having {
            None => 0,
            Some(Having::Inline) => xattr::HEADER + tree.sets.encoded(record.xattrs).len(),
            Some(Having::Shared(_)) => xattr::HEADER + 4 * tree.sets.starts(record.xattrs).len(),
        };
        let (layout, union, size, tail) = match FileType::of_mode(record.mode) {
            Some(FileType::Directory) => self.directory_content(directory),
            Some(FileType::Symlink) => match self.long_links.get(&inode) {
                Some(block) => (Layout::Plain, self.block(*block), record.size, 0),
                None => (Layout::Inline, NO_BLOCK, record.size, record.size),
            },
            Some(FileType::Regular) if record.size > 0 => {
                let (bits, _) = tree.chunks_of(record);
                let count = record.size.div_ceil(BLOCK << bits);
                let format = CHUNK_INDEXES | u16::from(bits);
                // The index begins at a multiple of its entries' size.
                (Layout::Chunks, format.into(), record.size, count * CHUNK_INDEX_SIZE as u64)
            }
            Some(FileType::Character | FileType::Block) => (Layout::Plain, record.data, 0, 0),
            _ => (Layout::Plain, 0, 0, 0),
        };
        let disk = OnDisk {
            layout,
            xattr_count: xattr::count_of(attributes).unwrap_or_default(),
            mode: record.mode,
            size,
            union,
            number: u32::try_from(self.nid(inode)).unwrap_or_default(),
            uid: record.uid,
            gid: record.gid,
            mtime: record.mtime,
            nlink: directory.map_or(record.nlink, |directory| directory.nlink),
        };
        let compact = inode != 0 && disk.is_compact(self.superblock.build_time);
        let mut placed = Placed { disk, compact, tail };
        if layout == Layout::Chunks {
            placed.tail += placed.header().next_multiple_of(CHUNK_INDEX_SIZE as u64) - placed.header();
        }
        placed
    }

    fn directory_content(&self, directory: Option<&Directory>) -> (Layout, u32, u64, u64) {
        let Some(directory) = directory else { return (Layout::Plain, 0, 0, 0) };
        let (size, rest) = (directory.size, directory.size % BLOCK);
        if rest == 0 || rest > MAX_INLINE {
            return (Layout::Plain, self.block(directory.first), size, 0);
        }
        (Layout::Inline, if size < BLOCK { NO_BLOCK } else { self.block(directory.first) }, size, rest)
    }
}

/// Where inodes begin; the root is the first.
pub(crate) const FIRST: u64 = (SUPER_OFFSET + SUPER_SIZE + SLOT_SIZE) as u64;
/// The address of content that is behind its inode as a whole.
const NO_BLOCK: u32 = u32::MAX;

pub(super) fn is_directory(record: &Record) -> bool {
    FileType::of_mode(record.mode) == Some(FileType::Directory)
}

/// The size of a directory: entries and names, of which none lies in two blocks.
#[derive(Default)]
pub(super) struct Sizes {
    full: u64,
    used: usize,
}

impl Sizes {
    /// Adds a name; tells whether it begins a block.
    pub(super) fn add(&mut self, name: &[u8]) -> bool {
        let more = DIRENT_SIZE + name.len();
        let begins = self.used == 0 || self.used + more > 1 << BLOCK_BITS;
        if begins && self.used > 0 {
            self.full += 1;
            self.used = 0;
        }
        self.used += more;
        begins
    }

    pub(super) fn total(&self) -> u64 {
        self.full * BLOCK + self.used as u64
    }
}

/// Decides which sets of attributes are shared: those that several inodes have. Returns also how many bytes those take.
fn havings(tree: &Tree) -> (Vec<Having>, u64) {
    let mut uses = vec![0u8; tree.sets.len()];
    for record in tree.inodes.iter().filter(|record| record.nlink > 0) {
        if let Some(uses) = uses.get_mut(record.xattrs as usize) {
            *uses = uses.saturating_add(1);
        }
    }
    let mut shared = 0;
    let having = |(number, uses): (usize, &u8)| {
        let number = u32::try_from(number).unwrap_or(xattr::NONE);
        let (encoded, count) = (tree.sets.encoded(number), tree.sets.starts(number).len());
        if *uses < 2 || count > MAX_SHARED {
            return Having::Inline;
        }
        let at = shared;
        shared += encoded.len() as u64;
        Having::Shared(at)
    };
    (uses.iter().enumerate().map(having).collect(), shared)
}

/// Returns the time that more than half of the inodes have: those are short. Nothing else may decide, so that the order in
/// which a tree was made does not show.
fn usual_time(tree: &Tree) -> Time {
    let times = || tree.inodes.iter().filter(|record| record.nlink > 0).map(|record| record.mtime);
    let mut candidate = Time::default();
    let mut lead = 0u32;
    for time in times() {
        match lead {
            0 => (candidate, lead) = (time, 1),
            _ if time == candidate => lead += 1,
            _ => lead -= 1,
        }
    }
    let having = times().filter(|time| *time == candidate).count();
    if having * 2 > times().count() { candidate } else { Time::default() }
}
