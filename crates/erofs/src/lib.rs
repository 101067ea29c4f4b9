//! EROFS images: a [`Tree`] becomes the metadata of one, and [`Image`] reads it back.
//!
//! An image has two parts. One holds what a tree is made of: inodes, names, targets of links, attributes. The other, an
//! extra device of the filesystem, holds nothing but the bytes of files, each from a block of its own on, and is written
//! by whoever has the bytes; [`Packer`] says where they go. So the bytes can be on the disk before the tree is complete, and a tree
//! can be complete before the bytes are there.
//!
//! ```text
//!   names, attributes ──► Tree ──────────────► metadata   superblock, inodes, directories
//!                          ▲ where                         │ refers to
//!   bytes of files ─────► Packer ────────────► data       bytes from the beginnings of blocks on
//! ```
//!
//! Nothing of tar, layers or snapshots is known here, and no file is opened. What is written is plain: no compression, and
//! nothing that Linux 5.16 would not read. `docs/format/erofs.md` has the layout.

mod checksum;
mod error;
mod format;
mod pack;
mod read;
mod rebuild;
mod tree;
mod write;
mod xattr;

pub use error::{Error, Result};
pub use format::{BLOCK_BITS, Device, FileType, MAX_NAME, Time};
pub use pack::{Packer, Place};
pub use read::{Entry, Extent, Image, Inode, ReadAt};
pub use rebuild::{IMPLIED_ROOT, change_root};
pub use tree::{Attributes, Data, Limits, Node, Run, Tree, What};
pub use write::{Summary, Volume};
pub use xattr::{Xattrs, is_supported as is_xattr_supported};
