//! Snapshotters over directories of this machine, and the mounts they speak of.
//!
//! [`overlay`] keeps a directory per layer and mounts a stack of them as one overlay; [`native`] keeps a whole tree per
//! snapshot and works where overlayfs cannot. Both are one state machine, [`snapshots::Snapshots`], over two ways to lay
//! trees out. [`mount`] carries mounts out, which a snapshotter itself never does: it returns them as data.
//!
//! Not here: what a layer holds, whiteouts and tar (the `layer` crate), and which namespace sees which snapshot.

mod barrier;
mod directories;
pub mod fsck;
mod in_use;
pub mod mount;
pub mod native;
pub mod overlay;
mod records;
pub mod snapshots;
mod steps;
mod tree;
