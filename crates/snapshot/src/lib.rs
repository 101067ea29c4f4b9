//! Snapshotters over directories of this machine, and the mounts they speak of.
//!
//! [`overlay`] keeps a directory per layer and mounts a stack of them as one overlay; [`erofs`] keeps an image per layer, two
//! files whatever is in it, and stacks those; [`native`] keeps a whole tree per
//! snapshot and works where overlayfs cannot. All are one state machine, [`snapshots::Snapshots`], over the ways to lay
//! trees out. [`mount`] carries mounts out, which a snapshotter itself never does: it returns them as data.
//!
//! Not here: what a layer holds, whiteouts and tar (the `layer` crate), and which namespace sees which snapshot.

pub mod activations;
mod barrier;
mod directories;
pub mod erofs;
pub mod fsck;
mod in_use;
pub mod mount;
pub mod native;
pub mod overlay;
mod records;
pub mod snapshots;
mod steps;
mod tree;
pub mod verity;
