//! The structures of an image, byte by byte. Kernel documentation, `filesystems/erofs.rst`; all numbers are little-endian.

use crate::error::{Result, damaged};

/// Blocks have 4096 bytes: what every kernel that has extra devices reads, and the page size of nearly all machines.
pub const BLOCK_BITS: u32 = 12;
const BLOCK_BITS_BYTE: u8 = 12;
/// The longest name, in bytes.
pub const MAX_NAME: usize = 255;

pub(crate) const MAGIC: u32 = 0xE0F5_E1E2;
/// Where the superblock is, whatever the size of blocks.
pub(crate) const SUPER_OFFSET: usize = 1024;
pub(crate) const SUPER_SIZE: usize = 128;
pub(crate) const SLOT_SIZE: usize = 128;
/// Inodes are addressed by their number of these.
pub(crate) const NID_UNIT: u64 = 32;
pub(crate) const COMPACT_SIZE: usize = 32;
pub(crate) const EXTENDED_SIZE: usize = 64;
pub(crate) const DIRENT_SIZE: usize = 12;
pub(crate) const CHUNK_INDEX_SIZE: usize = 8;
/// The address of a chunk that is a hole.
pub(crate) const HOLE: u32 = u32::MAX;

pub(crate) const COMPAT_CHECKSUM: u32 = 1;
pub(crate) const COMPAT_MTIME: u32 = 2;
pub(crate) const INCOMPAT_CHUNKED: u32 = 4;
pub(crate) const INCOMPAT_DEVICES: u32 = 8;

pub(crate) const CHUNK_BITS_MASK: u16 = 0x1f;
pub(crate) const CHUNK_INDEXES: u16 = 0x20;

/// How the bytes of an inode are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In blocks one after the other.
    Plain = 0,
    /// The same, with the last part behind the inode.
    Inline = 2,
    /// By an index of chunks behind the inode.
    Chunks = 4,
}

impl Layout {
    pub(crate) fn of(format: u16) -> Result<Self> {
        match format >> 1 & 7 {
            0 => Ok(Self::Plain),
            2 => Ok(Self::Inline),
            4 => Ok(Self::Chunks),
            other => damaged(format!("data layout {other} is not known")),
        }
    }
}

/// A point in time: seconds since 1970, and nanoseconds (below 10⁹) after that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds to add.
    pub nanoseconds: u32,
}

/// The numbers of a device: 12 and 20 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

impl Device {
    /// The kernel's `new_encode_dev`.
    pub(crate) fn encode(self) -> u32 {
        (self.minor & 0xff) | (self.major & 0xfff) << 8 | (self.minor & 0xf_ff00) << 12
    }

    pub(crate) fn decode(number: u32) -> Self {
        Self { major: number >> 8 & 0xfff, minor: (number & 0xff) | (number >> 12 & 0xf_ff00) }
    }
}

/// What something in a directory is; the numbers are those of directory entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FileType {
    Regular = 1,
    Directory = 2,
    Character = 3,
    Block = 4,
    Fifo = 5,
    Socket = 6,
    Symlink = 7,
}

impl FileType {
    /// The bits of a mode that say it, inode(7).
    pub(crate) fn bits(self) -> u16 {
        match self {
            Self::Fifo => 0o1 << 12,
            Self::Character => 0o2 << 12,
            Self::Directory => 0o4 << 12,
            Self::Block => 0o6 << 12,
            Self::Regular => 0o10 << 12,
            Self::Symlink => 0o12 << 12,
            Self::Socket => 0o14 << 12,
        }
    }

    pub(crate) fn of_mode(mode: u16) -> Option<Self> {
        Some(match mode >> 12 {
            0o1 => Self::Fifo,
            0o2 => Self::Character,
            0o4 => Self::Directory,
            0o6 => Self::Block,
            0o10 => Self::Regular,
            0o12 => Self::Symlink,
            0o14 => Self::Socket,
            _ => return None,
        })
    }

    /// The number in a directory entry.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// Puts numbers into a buffer of fixed size, one after the other.
pub(crate) struct Fields<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fields<N> {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.at + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn done(&self) -> [u8; N] {
        debug_assert!(self.at <= N, "more fields than bytes");
        self.bytes
    }
}

/// What a superblock says, as far as it differs between images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Super {
    pub(crate) root_nid: u16,
    pub(crate) inodes: u64,
    /// The time of compact inodes.
    pub(crate) build_time: Time,
    pub(crate) blocks: u32,
    pub(crate) meta_block: u32,
    pub(crate) xattr_block: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) name: [u8; 16],
    pub(crate) chunked: bool,
    /// The extra device, if there is one: how many blocks it has, and which address its first one has.
    pub(crate) device: Option<(u32, u32)>,
}

/// Where the slots of devices are: right behind the superblock, in units of a slot.
pub(crate) const SLOT_INDEX: u16 = 9;
/// How many bytes of a slot tell devices from each other.
pub(crate) const SLOT_TAG: usize = 64;

impl Super {
    /// Writes the superblock and the slot of the device, without the checksum.
    pub(crate) fn encode(&self) -> ([u8; SUPER_SIZE], [u8; SLOT_SIZE]) {
        let mut incompatible = 0;
        incompatible |= if self.chunked { INCOMPAT_CHUNKED } else { 0 };
        incompatible |= if self.device.is_some() { INCOMPAT_DEVICES } else { 0 };
        let mut fields = Fields::<SUPER_SIZE>::new();
        fields.u32(MAGIC).u32(0).u32(COMPAT_CHECKSUM | COMPAT_MTIME).u8(BLOCK_BITS_BYTE).u8(0);
        fields.u16(self.root_nid).u64(self.inodes);
        fields.u64(self.build_time.seconds.cast_unsigned()).u32(self.build_time.nanoseconds);
        fields.u32(self.blocks).u32(self.meta_block).u32(self.xattr_block);
        fields.put(&self.uuid).put(&self.name).u32(incompatible).u16(0);
        fields.u16(u16::from(self.device.is_some())).u16(if self.device.is_some() { SLOT_INDEX } else { 0 });
        let mut slot = Fields::<SLOT_SIZE>::new();
        if let Some((blocks, address)) = self.device {
            slot.put(&[0; SLOT_TAG]).u32(blocks).u32(address);
        }
        (fields.done(), slot.done())
    }
}

/// An inode as it is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnDisk {
    pub(crate) layout: Layout,
    /// The size of the attributes behind the inode, in the format's own unit.
    pub(crate) xattr_count: u16,
    pub(crate) mode: u16,
    pub(crate) size: u64,
    /// The first block, the number of a device, or the format of chunks.
    pub(crate) union: u32,
    pub(crate) number: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) nlink: u32,
}

impl OnDisk {
    /// Tells whether the short form can say everything, when all short ones have that time.
    pub(crate) fn is_compact(&self, build_time: Time) -> bool {
        let short = |number: u32| u16::try_from(number).is_ok();
        self.mtime == build_time
            && short(self.uid)
            && short(self.gid)
            && short(self.nlink)
            && u32::try_from(self.size).is_ok()
    }

    pub(crate) fn encode_extended(&self) -> [u8; EXTENDED_SIZE] {
        let mut fields = Fields::new();
        fields.u16(1 | (self.layout as u16) << 1).u16(self.xattr_count).u16(self.mode).u16(0).u64(self.size);
        fields.u32(self.union).u32(self.number).u32(self.uid).u32(self.gid);
        fields.u64(self.mtime.seconds.cast_unsigned()).u32(self.mtime.nanoseconds).u32(self.nlink);
        fields.done()
    }

    /// The short form. Numbers that do not fit are the caller's to keep out.
    pub(crate) fn encode_compact(&self) -> [u8; COMPACT_SIZE] {
        let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let mut fields = Fields::new();
        fields.u16((self.layout as u16) << 1).u16(self.xattr_count).u16(self.mode).u16(short(self.nlink));
        fields.u32(u32::try_from(self.size).unwrap_or(u32::MAX)).u32(0);
        fields.u32(self.union).u32(self.number).u16(short(self.uid)).u16(short(self.gid));
        fields.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_back() {
        for (major, minor) in [(0, 0), (8, 1), (1, 3), (0xfff, 0xf_ffff), (10, 0x1234)] {
            let device = Device { major, minor };
            assert_eq!(Device::decode(device.encode()), device);
        }
        assert_eq!(Device { major: 8, minor: 1 }.encode(), 0x801);
    }
}
