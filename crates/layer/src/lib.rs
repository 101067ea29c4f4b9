//! Layer formats: compression, tar, whiteouts, and applying a layer to a directory.
//!
//! [`Differ`] is the room's front door: it implements [`windlass_core::diff::Applier`]. What it is made of is public,
//! because a pull that unpacks while the bytes arrive and a writer of other file systems are made of the same parts:
//!
//! ```text
//!   compressed parts ──► Pipeline ──► compression::Decompressor ──► diff id
//!                                                              └──► tar::Parser ─┬► extract::Extractor ──► directory
//!                                                                               └► image ───────────────► EROFS image
//! ```
//!
//! Deliberately absent: the network, the content store, mounting anything, and durability, which is the snapshotter's
//! commit.

mod ahead;
pub mod compare;
mod differ;
mod options;
mod sink;
mod walk;

pub mod extract;
pub mod image;
pub mod path;
pub mod pipeline;
pub mod target;
pub mod writeback;

pub use differ::Differ;
pub use options::{Devices, Options};
pub use sink::Destination;
pub use windlass_archive::{compression, tar};
