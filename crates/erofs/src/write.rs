//! Writing the metadata of an image: first everything gets its place, then it is written from front to back.
//!
//! ```text
//!   0      nothing (1024 bytes)
//!   1024   superblock, slot of the data
//!   1280   inodes, each with its attributes and what is inline: the root, then directory by directory what is in it
//!   …      blocks of directories that are larger than what is inline
//!   …      attributes that several inodes have
//! ```
//!
//! The same tree makes the same bytes.

mod emit;
mod order;
mod plan;

use std::io::Write;

use crate::error::Result;
use crate::tree::Tree;
use plan::Plan;

pub(crate) use emit::seal;
pub(crate) use plan::FIRST;

/// What is said of an image as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// What tells it from others.
    pub uuid: [u8; 16],
    /// What it is called: up to 16 bytes, filled up with zeros.
    pub name: [u8; 16],
    /// How many blocks the data has; there is no extra device when there are none.
    pub data_blocks: u32,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many inodes the image has.
    pub inodes: u64,
    /// How many bytes were written.
    pub bytes: u64,
}

impl Tree {
    /// Writes the metadata of an image of this tree.
    ///
    /// # Errors
    /// `TooLarge` for a tree that the format cannot hold, and those of the writer.
    pub fn write(&self, volume: &Volume, out: impl Write) -> Result<Summary> {
        let plan = Plan::make(self, volume)?;
        emit::write(self, &plan, out)
    }
}
