//! The store: blobs on disk, metadata records in a database, leases and garbage collection.
//!
//! [`Store`] owns one root directory through its [`RootLock`] and hands out the traits of `windlass-core` bound to a
//! scope. Blobs, database and collection live in one crate because their crash order is one subject: the order of every
//! durable path is a numbered comment where it happens, and `docs/format/store.md` draws the layout,
//! `docs/format/durability.md` says what survives.
//!
//! Not here: where content comes from, how layers become directories (the snapshotters behind the namespaced view).

mod blocking;
mod containers;
mod content;
#[cfg(test)]
mod crash;
mod db;
mod disk;
#[cfg(test)]
mod durability;
mod elsewhere;
mod fault;
pub mod fsck;
mod gc;
mod group;
mod images;
mod leases;
mod lock;
mod namespaces;
mod precedence;
mod sharing;
mod snapshots;
mod store;
mod turns;
mod unique;
mod unsynced;

pub use elsewhere::Elsewhere;
pub use gc::{Collections, Observer, Policy, Schedule};
pub use group::Group;
pub use lock::{LockWait, Owner, RootLock};
pub use precedence::{Precedence, Taken};
pub use sharing::Sharing;
pub use store::{Options, Store};
