//! Tar archives, without any I/O: bytes in, entries and their data out, and the other way round.
//!
//! [`Parser`] is given buffers as they come and hands out [`Event`]s whose data borrows from those buffers. How an
//! archive is cut into buffers never changes what comes out. Nothing here touches a file system or decides whether a
//! name is acceptable. [`Writer`] writes ustar with PAX records.
//!
//! Accepted: v7, ustar, PAX (POSIX.1-2008, `pax`, "pax Extended Header"), star's prefix, GNU long names, GNU base-256
//! numbers, and sparse files in all four GNU encodings (GNU tar manual, appendix "Storing Sparse Files"). Where readers
//! differ this one does what Go's `archive/tar` does, because that is what layers were written for and are read by
//! elsewhere; `docs/format/layer.md` has the list.

mod entry;
mod header;
mod number;
mod parser;
mod pax;
mod sparse;
mod writer;

use std::collections::BTreeMap;

pub use parser::Parser;
pub use writer::Writer;

/// Everything in a tar archive comes in blocks of this many bytes.
pub const BLOCK: usize = 512;

/// The most bytes that the records of one extended header, one long name, or one sparse map may have: 1 MiB, as in Go's
/// reader.
pub const MAX_SPECIAL: u64 = 1 << 20;

/// A point in time: seconds since 1970, and nanoseconds (below 10⁹) after that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds to add.
    pub nanoseconds: u32,
}

/// The numbers of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its bytes follow as [`Event::Data`].
    Regular {
        /// The size in bytes once extracted.
        size: u64,
        /// Whether there are holes: data then comes with gaps, and may end before `size`.
        sparse: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it points at, verbatim.
        target: Vec<u8>,
    },
    /// Another name of a file that came before.
    Link {
        /// The name of that file, as written.
        target: Vec<u8>,
    },
    /// A character device.
    Character(Device),
    /// A block device.
    Block(Device),
    /// A named pipe.
    Fifo,
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as written: not cleaned, not checked. It has no NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky: 12 bits.
    pub mode: u32,
    /// The owner; never `u32::MAX`.
    pub uid: u32,
    /// The group; never `u32::MAX`.
    pub gid: u32,
    /// When the content changed last.
    pub mtime: Timestamp,
    /// Extended attributes, from `SCHILY.xattr.*` records.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entry {
    /// Makes an entry without a name, of root, that nobody has permissions for, of 1970.
    pub fn new(kind: Kind) -> Self {
        let (path, xattrs, mtime) = (Vec::new(), BTreeMap::new(), Timestamp::default());
        Self { path, kind, mode: 0, uid: 0, gid: 0, mtime, xattrs }
    }
}

/// What comes next in an archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'input> {
    /// All input is used: call again with more, or [`Parser::finish`] when there is none.
    NeedInput,
    /// A member begins. Any number of [`Event::Data`] and one [`Event::EndOfEntry`] follow.
    Entry(Box<Entry>),
    /// Bytes of the current member.
    Data {
        /// Where in the extracted file they belong: never before the end of the bytes that came earlier.
        offset: u64,
        /// The bytes, at least one.
        bytes: &'input [u8],
    },
    /// The current member is complete.
    EndOfEntry,
    /// The archive's end mark was read; whatever follows is padding, which is not looked at.
    End,
}
