//! Reading an image, strictly: what this crate does not write is refused, but for other block sizes of names and inodes in
//! other places.
//!
//! Numbers from the image are not trusted: every one is checked against the size of the metadata before it is used.

mod content;

use std::fs::File;
use std::io;

use crate::checksum::crc32c;
use crate::error::{Error, Result, damaged};
use crate::format::{
    BLOCK_BITS, COMPACT_SIZE, Device, EXTENDED_SIZE, FileType, INCOMPAT_CHUNKED, INCOMPAT_DEVICES, Layout, MAGIC,
    NID_UNIT, OnDisk, SLOT_INDEX, SLOT_TAG, SUPER_OFFSET, SUPER_SIZE, Time,
};
use crate::tree::Attributes;
use crate::xattr::{self, Xattrs};

pub use content::{Entry, Extent};

pub(crate) const BLOCK: u64 = 1 << BLOCK_BITS;

/// Something whose bytes can be read in any order.
pub trait ReadAt {
    /// Fills the buffer with the bytes from `offset` on; fewer are an error.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Returns how many bytes there are.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

/// The metadata of an image.
#[derive(Debug)]
pub struct Image<R> {
    reader: R,
    size: u64,
    blocks: u64,
    root_nid: u64,
    inodes: u64,
    build_time: Time,
    meta: u64,
    shared: u64,
    name: [u8; 16],
    uuid: [u8; 16],
    /// How many blocks the data has.
    data_blocks: Option<u32>,
}

/// An inode of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: u64,
    /// What it is.
    pub file_type: FileType,
    /// Permissions with setuid, setgid and sticky: 12 bits.
    pub permissions: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content changed last.
    pub mtime: Time,
    /// How many names it has; of a directory, two and one for each directory in it.
    pub nlink: u32,
    /// The size of its content in bytes.
    pub size: u64,
    /// Which device it is.
    pub device: Device,
    layout: Layout,
    union: u32,
    /// Where its attributes are, and how many bytes they have.
    attributes: (u64, usize),
}

/// Takes numbers off the front of bytes.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *first
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn time(&mut self) -> Time {
        Time { seconds: self.u64().cast_signed(), nanoseconds: self.u32() }
    }
}

impl<R: ReadAt> Image<R> {
    /// Opens an image, of which the first block is checked.
    ///
    /// # Errors
    /// `Damaged` for anything but an image as this crate writes them.
    pub fn open(reader: R) -> Result<Self> {
        let image = Self::open_part(reader)?;
        if image.blocks * BLOCK > image.size {
            return damaged(format!("it has {} bytes and should have {} blocks", image.size, image.blocks));
        }
        Ok(image)
    }

    /// Opens what may be no more than the first block of an image.
    pub(crate) fn open_part(reader: R) -> Result<Self> {
        let size = reader.size()?;
        let mut first = vec![0; 1 << BLOCK_BITS];
        if size < BLOCK {
            return damaged("it is shorter than a block");
        }
        reader.read_exact_at(&mut first, 0)?;
        let mut covered = first.split_off(SUPER_OFFSET);
        let mut numbers = Numbers(&covered);
        if numbers.u32() != MAGIC {
            return damaged("it has no superblock");
        }
        let checksum = numbers.u32();
        if let Some(place) = covered.get_mut(4..8) {
            place.fill(0);
        }
        if crc32c(&covered) != checksum {
            return damaged("the checksum of the first block is wrong");
        }
        let mut image = Self::decode(reader, size, &covered)?;
        if image.data_blocks.is_some() {
            image.data_blocks = Some(Numbers(covered.get(SUPER_SIZE + SLOT_TAG..).unwrap_or_default()).u32());
        }
        Ok(image)
    }

    fn decode(reader: R, size: u64, superblock: &[u8]) -> Result<Self> {
        let mut numbers = Numbers(superblock.get(8..).unwrap_or_default());
        let _compatible = numbers.u32();
        let (block_bits, slots) = (numbers.u8(), numbers.u8());
        if u32::from(block_bits) != BLOCK_BITS || slots != 0 {
            return damaged(format!("blocks of 2^{block_bits} bytes are not read"));
        }
        let (root_nid, inodes, build_time) = (numbers.u16(), numbers.u64(), numbers.time());
        let (blocks, meta, shared) = (numbers.u32(), numbers.u32(), numbers.u32());
        let (uuid, name, incompatible) = (numbers.take(), numbers.take(), numbers.u32());
        if incompatible & !(INCOMPAT_CHUNKED | INCOMPAT_DEVICES) != 0 {
            return damaged(format!("it has the features {incompatible:#x}, not all of which are known"));
        }
        let _algorithms = numbers.u16();
        let (devices, slot) = (numbers.u16(), numbers.u16());
        if devices > 1
            || (devices == 1) != (incompatible & INCOMPAT_DEVICES != 0)
            || (devices == 1 && slot != SLOT_INDEX)
        {
            return damaged("its table of devices is not where it should be");
        }
        Ok(Self {
            reader,
            size,
            blocks: blocks.into(),
            root_nid: root_nid.into(),
            inodes,
            build_time,
            meta: u64::from(meta) * BLOCK,
            shared: u64::from(shared) * BLOCK,
            name,
            uuid,
            data_blocks: (devices == 1).then_some(0),
        })
    }

    /// Returns what the image is called.
    pub fn name(&self) -> [u8; 16] {
        self.name
    }

    /// Returns what tells the image from others.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Returns how many inodes there should be.
    pub fn inodes(&self) -> u64 {
        self.inodes
    }

    /// Returns how many blocks the data has.
    pub fn data_blocks(&self) -> u32 {
        self.data_blocks.unwrap_or_default()
    }

    /// Returns the root.
    pub fn root(&self) -> Result<Inode> {
        let root = self.inode(self.root_nid)?;
        if root.file_type == FileType::Directory { Ok(root) } else { damaged("the root is no directory") }
    }

    /// Returns the inode of a number.
    pub fn inode(&self, nid: u64) -> Result<Inode> {
        let at = nid.checked_mul(NID_UNIT).and_then(|at| at.checked_add(self.meta));
        let Some(at) = at.filter(|at| *at < self.size) else { return damaged(format!("there is no inode {nid}")) };
        let short = self.bytes(at, COMPACT_SIZE)?;
        let format = Numbers(&short).u16();
        if format >> 4 != 0 {
            return damaged(format!("inode {nid} has an unknown form"));
        }
        let extended = format & 1 == 1;
        let bytes = if extended { self.bytes(at, EXTENDED_SIZE)? } else { short };
        let mut inode = self.decode_inode(nid, format, &bytes)?;
        inode.attributes.0 = at + bytes.len() as u64;
        Ok(inode)
    }

    fn decode_inode(&self, nid: u64, format: u16, bytes: &[u8]) -> Result<Inode> {
        let mut numbers = Numbers(bytes.get(2..).unwrap_or_default());
        let (xattr_count, mode, short_nlink) = (numbers.u16(), numbers.u16(), numbers.u16());
        let Some(file_type) = FileType::of_mode(mode) else {
            return damaged(format!("inode {nid} has the mode {mode:o}"));
        };
        let extended = format & 1 == 1;
        let size = if extended { numbers.u64() } else { numbers.u64() & u64::from(u32::MAX) };
        let union = numbers.u32();
        let _number = numbers.u32();
        let (uid, gid, mtime, nlink) = if extended {
            (numbers.u32(), numbers.u32(), numbers.time(), numbers.u32())
        } else {
            (numbers.u16().into(), numbers.u16().into(), self.build_time, short_nlink.into())
        };
        let is_device = matches!(file_type, FileType::Character | FileType::Block);
        Ok(Inode {
            nid,
            file_type,
            permissions: mode & 0o7777,
            uid,
            gid,
            mtime,
            nlink,
            size,
            device: if is_device { Device::decode(union) } else { Device::default() },
            layout: Layout::of(format)?,
            union,
            attributes: (0, xattr::size_of(xattr_count)),
        })
    }

    /// Returns an inode as it is written, without attributes.
    pub(crate) fn on_disk(inode: &Inode) -> Result<OnDisk> {
        let Inode { layout, union, size, uid, gid, mtime, nlink, .. } = *inode;
        let mode = inode.file_type.bits() | inode.permissions;
        let number = u32::try_from(inode.nid).or_else(|_| damaged("its root is too far away"))?;
        Ok(OnDisk { layout, xattr_count: 0, mode, size, union, number, uid, gid, mtime, nlink })
    }

    /// Returns what is known of an inode, as a tree wants it.
    pub fn attributes(&self, inode: &Inode) -> Result<Attributes> {
        let Inode { permissions, uid, gid, mtime, .. } = *inode;
        Ok(Attributes { permissions, uid, gid, mtime, xattrs: self.xattrs(inode)? })
    }

    /// Returns the extended attributes of an inode.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs> {
        let (at, size) = inode.attributes;
        let mut xattrs = Xattrs::new();
        if size == 0 {
            return Ok(xattrs);
        }
        let bytes = self.bytes(at, size)?;
        let mut header = Numbers(&bytes);
        let _filter = header.u32();
        let shared = usize::from(header.u8());
        let mut rest = bytes.get(xattr::HEADER..).unwrap_or_default();
        for _ in 0..shared {
            let Some((number, after)) = rest.split_first_chunk() else {
                return damaged(format!("the attributes of inode {} are cut off", inode.nid));
            };
            rest = after;
            let at = self.shared + u64::from(u32::from_le_bytes(*number)) * 4;
            let (name, value) = self.shared_xattr(at)?;
            xattrs.insert(name, value);
        }
        while !rest.is_empty() {
            let (name, value) = xattr::decode(&mut rest)?;
            xattrs.insert(name, value);
        }
        Ok(xattrs)
    }

    fn shared_xattr(&self, at: u64) -> Result<(Vec<u8>, Vec<u8>)> {
        let head = self.bytes(at, 4)?;
        let mut numbers = Numbers(&head);
        let (name, _, value) = (numbers.u8(), numbers.u8(), numbers.u16());
        let bytes = self.bytes(at, 4 + usize::from(name) + usize::from(value))?;
        xattr::decode(&mut &bytes[..])
    }

    /// Reads bytes of the metadata.
    fn bytes(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        if at.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return damaged(format!("{length} bytes at {at} are beyond its end"));
        }
        let mut bytes = vec![0; length];
        self.reader.read_exact_at(&mut bytes, at).map_err(Error::Io)?;
        Ok(bytes)
    }
}
