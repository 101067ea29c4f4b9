//! A tree while it is made: names and inodes, in as little memory as will do.
//!
//! An entry takes 24 bytes and its name, an inode 48, and sets of attributes are kept once: about 110 bytes for a file with
//! a name of 20, with what finding names again takes. A million files are known in little more than 100 MB. Nothing of it moves
//! when it grows.

mod index;
mod pieces;

use std::borrow::Cow;
use std::mem::size_of;

use crate::error::{Error, Result, too_large};
use crate::format::{BLOCK_BITS, CHUNK_INDEX_SIZE, Device, FileType, MAX_NAME, Time};
use crate::xattr::{self, Sets, Xattrs};
use index::Index;
use pieces::{Pieces, Text};

/// Something in a tree: an inode, which may have several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(pub(crate) u32);

/// What is known of something beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions with setuid, setgid and sticky: 12 bits.
    pub permissions: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content changed last.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// A file, which is empty until it is given data.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(&'a [u8]),
    /// A character device; 0/0 is overlayfs' mark of a deleted name.
    Character(Device),
    /// A block device.
    Block(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl What<'_> {
    fn file_type(&self) -> FileType {
        match self {
            Self::Regular => FileType::Regular,
            Self::Directory => FileType::Directory,
            Self::Symlink(_) => FileType::Symlink,
            Self::Character(_) => FileType::Character,
            Self::Block(_) => FileType::Block,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
        }
    }
}

/// Where the bytes of a file are, in blocks of the data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Data {
    /// Nowhere: there are none, or all of them are zero.
    #[default]
    Nothing,
    /// In one piece, from this block on.
    Blocks(u32),
    /// Chunk by chunk.
    Chunks {
        /// The binary logarithm of the blocks in a chunk.
        bits: u8,
        /// The chunks that are somewhere, in order.
        runs: Vec<Run>,
    },
}

/// Chunks that are one after the other, in the file and in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The number of the first one in the file.
    pub first: u64,
    /// How many there are.
    pub count: u32,
    /// The block of the first one.
    pub block: u32,
}

/// How large a tree may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most memory, in bytes.
    pub memory: u64,
}

impl Default for Limits {
    /// 512 MiB: more than four million files.
    fn default() -> Self {
        Self { memory: 512 << 20 }
    }
}

/// The chunks of one sparse file.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    pub(crate) bits: u8,
    pub(crate) runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) mtime: Time,
    /// Of a directory the directory that it is in.
    pub(crate) size: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    /// The first block, the number of chunks' map, of a device, the place of a target, or the first entry.
    pub(crate) data: u32,
    pub(crate) xattrs: u32,
    pub(crate) mode: u16,
    pub(crate) chunked: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) parent: u32,
    pub(crate) name: u32,
    /// [`NONE`] when the name is free.
    pub(crate) inode: u32,
    /// The entry of the same directory that came before.
    next: u32,
    pub(crate) len: u8,
}

/// Stands for nothing where a number is asked for.
pub(crate) const NONE: u32 = u32::MAX;

/// A tree of files. What comes later under a name takes the place of what was there.
#[derive(Debug)]
pub struct Tree {
    pub(crate) inodes: Pieces<Record>,
    pub(crate) entries: Pieces<Entry>,
    /// Names and targets of links.
    text: Text,
    index: Index,
    pub(crate) sets: Sets,
    pub(crate) chunks: Vec<Chunks>,
    chunk_memory: u64,
    limits: Limits,
}

impl Tree {
    /// Begins with a root of mode 0755 that belongs to root and has no time.
    pub fn new(limits: Limits) -> Self {
        let root = Record {
            mtime: Time::default(),
            size: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            data: NONE,
            xattrs: xattr::NONE,
            mode: FileType::Directory.bits() | 0o755,
            chunked: false,
        };
        let mut inodes = Pieces::default();
        inodes.push(root);
        Self {
            inodes,
            entries: Pieces::default(),
            text: Text::default(),
            index: Index::default(),
            sets: Sets::default(),
            chunks: Vec::new(),
            chunk_memory: 0,
            limits,
        }
    }

    /// Returns the root.
    pub fn root(&self) -> Node {
        Node(0)
    }

    /// Looks a name up in a directory.
    pub fn find(&self, directory: Node, name: &[u8]) -> Option<Node> {
        let entry = self.entry(directory, name)?;
        Some(entry.inode).filter(|inode| *inode != NONE).map(Node)
    }

    /// Returns what is in a directory, in any order.
    pub fn children(&self, directory: Node) -> impl Iterator<Item = (&[u8], Node)> {
        let is_directory = self.file_type(directory) == FileType::Directory;
        let mut at = if is_directory { self.record(directory).data } else { NONE };
        let next = move || {
            let entry = self.entries.get(at as usize)?;
            at = entry.next;
            Some(entry)
        };
        let live = |entry: &Entry| entry.inode != NONE;
        std::iter::from_fn(next).filter(move |entry| live(entry)).map(|entry| (self.name(entry), Node(entry.inode)))
    }

    /// Returns what a node is.
    pub fn file_type(&self, node: Node) -> FileType {
        FileType::of_mode(self.record(node).mode).unwrap_or(FileType::Regular)
    }

    /// Tells whether a node is overlayfs' mark of a deleted name.
    pub fn is_whiteout(&self, node: Node) -> bool {
        self.file_type(node) == FileType::Character && self.record(node).data == 0
    }

    /// Returns where a symbolic link points; nothing for anything else.
    pub fn target(&self, node: Node) -> &[u8] {
        let record = self.record(node);
        if self.file_type(node) != FileType::Symlink {
            return &[];
        }
        let length = usize::try_from(record.size).unwrap_or_default();
        self.text.get(record.data, length).unwrap_or_default()
    }

    /// Returns what is known of a node.
    pub fn attributes(&self, node: Node) -> Result<Attributes> {
        let Record { mtime, uid, gid, xattrs, mode, .. } = *self.record(node);
        Ok(Attributes { permissions: mode & 0o7777, uid, gid, mtime, xattrs: self.sets.get(xattrs)? })
    }

    /// Puts something under a name; what was there goes, with everything that is in it.
    ///
    /// # Errors
    /// `Invalid` when it is no directory, for a name that cannot be, or attributes that there is no place for;
    /// `TooLarge` above the limits.
    pub fn add(&mut self, directory: Node, name: &[u8], what: What<'_>, attributes: &Attributes) -> Result<Node> {
        self.check(directory, name)?;
        let kind = what.file_type();
        let mut record = Record {
            mtime: attributes.mtime,
            size: 0,
            uid: attributes.uid,
            gid: attributes.gid,
            nlink: 1,
            data: NONE,
            xattrs: self.sets.number(&attributes.xattrs)?,
            mode: kind.bits() | attributes.permissions & 0o7777,
            chunked: false,
        };
        match what {
            What::Symlink(target) => {
                record.size = target.len() as u64;
                record.data = self.keep(target)?;
                record.mode = kind.bits() | 0o777;
            }
            What::Character(device) | What::Block(device) => record.data = device.encode(),
            What::Directory => record.size = directory.0.into(),
            What::Regular | What::Fifo | What::Socket => {}
        }
        let number = u32::try_from(self.inodes.len()).ok().filter(|number| *number != NONE);
        let number = number.ok_or_else(|| too_large("the tree has too many files"))?;
        self.inodes.push(record);
        self.place(directory, name, number)?;
        Ok(Node(number))
    }

    /// Gives a node, which must not be a directory, another name.
    ///
    /// # Errors
    /// As [`Tree::add`].
    pub fn link(&mut self, directory: Node, name: &[u8], node: Node) -> Result<()> {
        self.check(directory, name)?;
        if self.file_type(node) == FileType::Directory {
            return Err(Error::Invalid("a directory cannot have a second name".to_owned()));
        }
        if self.find(directory, name) == Some(node) {
            return Ok(());
        }
        let record = self.record_mut(node);
        record.nlink = record.nlink.checked_add(1).ok_or_else(|| too_large("a file has too many names"))?;
        self.place(directory, name, node.0)
    }

    /// Takes a name away, with everything that is below it; tells whether there was something.
    pub fn remove(&mut self, directory: Node, name: &[u8]) -> bool {
        let Some(at) = self.index.find(directory.0, name, |at| self.key(at)) else { return false };
        let inode = self.entries.get_mut(at as usize).map_or(NONE, |entry| std::mem::replace(&mut entry.inode, NONE));
        self.release(inode);
        inode != NONE
    }

    /// Gives a node other attributes.
    ///
    /// # Errors
    /// As [`Tree::add`].
    pub fn set_attributes(&mut self, node: Node, attributes: &Attributes) -> Result<()> {
        let xattrs = self.sets.number(&attributes.xattrs)?;
        let record = self.record_mut(node);
        record.xattrs = xattrs;
        record.mode = record.mode & !0o7777 | attributes.permissions & 0o7777;
        (record.uid, record.gid, record.mtime) = (attributes.uid, attributes.gid, attributes.mtime);
        self.within_limits()
    }

    /// Sets one extended attribute of a node.
    ///
    /// # Errors
    /// As [`Tree::add`].
    pub fn set_xattr(&mut self, node: Node, name: &[u8], value: &[u8]) -> Result<()> {
        let mut xattrs = self.sets.get(self.record(node).xattrs)?;
        xattrs.insert(name.to_vec(), value.to_vec());
        let number = self.sets.number(&xattrs)?;
        self.record_mut(node).xattrs = number;
        self.within_limits()
    }

    /// Says how long a file is and where its bytes are. What no run has is zero.
    ///
    /// # Errors
    /// `TooLarge` above the limits.
    pub fn set_data(&mut self, node: Node, size: u64, data: Data) -> Result<()> {
        let (data, chunked) = match data {
            Data::Blocks(first) => (first, false),
            Data::Nothing if size == 0 => (NONE, false),
            Data::Nothing => (self.keep_chunks(size, Chunks { bits: whole_bits(size), runs: Vec::new() })?, true),
            Data::Chunks { bits, runs } => (self.keep_chunks(size, Chunks { bits, runs })?, true),
        };
        let record = self.record_mut(node);
        (record.size, record.data, record.chunked) = (size, data, chunked);
        Ok(())
    }

    /// How many inodes there are, with those that have no name any more.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Tells whether there is nothing in the root.
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.inode == NONE)
    }

    /// How much memory the tree takes, about, with what writing it will take.
    pub fn memory(&self) -> u64 {
        let written = (self.inodes.len() + self.entries.len()) * size_of::<u32>();
        let kept = self.inodes.memory() + self.entries.memory() + self.text.memory() + self.index.memory();
        let chunks = self.chunks.capacity() * size_of::<Chunks>();
        kept + (written + chunks) as u64 + self.sets.memory() + self.chunk_memory
    }

    pub(crate) fn record(&self, node: Node) -> &Record {
        // Nodes are given out by this tree only; one of another tree means some node of this one, or the root.
        let root = self.inodes.get(0);
        self.inodes.get(node.0 as usize).or(root).unwrap_or(&LOST)
    }

    /// Returns how large the chunks of a file are, and those that are somewhere.
    pub(crate) fn chunks_of(&self, record: &Record) -> (u8, Cow<'_, [Run]>) {
        if record.chunked {
            let chunks = self.chunks.get(record.data as usize);
            return chunks.map_or((0, Cow::default()), |chunks| (chunks.bits, Cow::Borrowed(&chunks.runs)));
        }
        let run = Run { first: 0, count: u32::MAX, block: record.data };
        (whole_bits(record.size), if record.data == NONE { Cow::default() } else { Cow::Owned(vec![run]) })
    }

    fn record_mut(&mut self, node: Node) -> &mut Record {
        let at = if (node.0 as usize) < self.inodes.len() { node.0 as usize } else { 0 };
        #[expect(clippy::expect_used, reason = "the root is always there")]
        self.inodes.get_mut(at).expect("a tree has a root")
    }

    pub(crate) fn name(&self, entry: &Entry) -> &[u8] {
        self.text.get(entry.name, entry.len.into()).unwrap_or_default()
    }

    fn key(&self, at: u32) -> (u32, &[u8]) {
        self.entries.get(at as usize).map_or((NONE, &[]), |entry| (entry.parent, self.name(entry)))
    }

    fn entry(&self, directory: Node, name: &[u8]) -> Option<&Entry> {
        self.entries.get(self.index.find(directory.0, name, |at| self.key(at))? as usize)
    }

    fn check(&self, directory: Node, name: &[u8]) -> Result<()> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        if self.file_type(directory) != FileType::Directory {
            return Err(Error::Invalid(format!("{:?} would be in something that is no directory", shown())));
        }
        if name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Error::Invalid(format!("{:?} is no name", shown())));
        }
        if name.len() > MAX_NAME {
            return Err(Error::Invalid(format!("{:?} is longer than the {MAX_NAME} bytes of a name", shown())));
        }
        Ok(())
    }

    /// Lets a name stand for an inode.
    fn place(&mut self, directory: Node, name: &[u8], inode: u32) -> Result<()> {
        if let Some(at) = self.index.find(directory.0, name, |at| self.key(at)) {
            let Some(entry) = self.entries.get_mut(at as usize) else { return Ok(()) };
            let old = std::mem::replace(&mut entry.inode, inode);
            self.release(old);
            return self.within_limits();
        }
        let at = u32::try_from(self.entries.len()).ok().filter(|at| *at != NONE);
        let at = at.ok_or_else(|| too_large("the tree has too many names"))?;
        let kept = self.keep(name)?;
        let next = std::mem::replace(&mut self.record_mut(directory).data, at);
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.entries.push(Entry { parent: directory.0, name: kept, inode, next, len });
        let Self { index, entries, text, .. } = self;
        index.insert(at, |at| {
            let entry = entries.get(at as usize);
            entry.map_or((NONE, &[][..]), |entry| {
                (entry.parent, text.get(entry.name, entry.len.into()).unwrap_or_default())
            })
        });
        self.within_limits()
    }

    /// An inode has lost a name; what is in a directory goes with it.
    fn release(&mut self, inode: u32) {
        let mut released = vec![inode];
        while let Some(inode) = released.pop() {
            let Some(record) = self.inodes.get_mut(inode as usize) else { continue };
            record.nlink = record.nlink.saturating_sub(1);
            if record.nlink > 0 || FileType::of_mode(record.mode) != Some(FileType::Directory) {
                continue;
            }
            let mut at = std::mem::replace(&mut record.data, NONE);
            while let Some(entry) = self.entries.get_mut(at as usize) {
                released.extend(Some(std::mem::replace(&mut entry.inode, NONE)).filter(|inode| *inode != NONE));
                at = entry.next;
            }
        }
    }

    fn keep(&mut self, text: &[u8]) -> Result<u32> {
        self.text.keep(text).ok_or_else(|| too_large("the names of the tree are too long"))
    }

    fn keep_chunks(&mut self, size: u64, chunks: Chunks) -> Result<u32> {
        let at = u32::try_from(self.chunks.len()).map_err(|_| too_large("the tree has too many sparse files"))?;
        self.chunk_memory += (chunks.runs.capacity() * size_of::<Run>()) as u64;
        // What the image will have of it, which a few bytes of an archive can make as large as they like.
        self.chunk_memory += size.div_ceil(1 << (BLOCK_BITS + u32::from(chunks.bits))) * CHUNK_INDEX_SIZE as u64;
        self.chunks.push(chunks);
        self.within_limits()?;
        Ok(at)
    }

    fn within_limits(&self) -> Result<()> {
        if self.memory() <= self.limits.memory {
            return Ok(());
        }
        Err(Error::TooLarge(format!(
            "names and attributes of {} files take more than {} bytes",
            self.inodes.len(),
            self.limits.memory
        )))
    }
}

/// How large the chunks of a file are, as the binary logarithm of their blocks: so that there are at most 65,536.
pub(crate) fn chunk_bits(size: u64) -> u8 {
    let blocks = size.div_ceil(1 << BLOCK_BITS).max(1);
    let bits = blocks.next_power_of_two().trailing_zeros().saturating_sub(16);
    u8::try_from(bits).map_or(MAX_CHUNK, |bits| bits.min(MAX_CHUNK))
}

/// The same for a file without holes: so that there is one.
pub(crate) fn whole_bits(size: u64) -> u8 {
    let blocks = size.div_ceil(1 << BLOCK_BITS).max(1);
    u8::try_from(blocks.next_power_of_two().trailing_zeros()).map_or(MAX_CHUNK, |bits| bits.min(MAX_CHUNK))
}

/// The largest chunks, as the binary logarithm of their blocks: the format has five bits for it.
const MAX_CHUNK: u8 = 31;

const LOST: Record = Record {
    mtime: Time { seconds: 0, nanoseconds: 0 },
    size: 0,
    uid: 0,
    gid: 0,
    nlink: 0,
    data: NONE,
    xattrs: xattr::NONE,
    mode: 0,
    chunked: false,
};

#[cfg(test)]
mod tests;
