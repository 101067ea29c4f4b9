//! The traits of the contract over containerd's gRPC API, both ways.
//!
//! Every noun has one module with three parts: conversions between the contract's types and the messages, a server that
//! answers calls with the services of any [`Host`](windlass_core::Host), and a client that implements the trait of the
//! contract by calls. [`Client`] is a `Host` itself, so that whatever runs on an engine runs on a daemon, ours or containerd's.
//!
//! Reading order: [`error`] and [`scope`] say what every call has in common, [`namespaces`] is the smallest noun, [`content`]
//! the heart.
//!
//! Not here: sockets, configuration and plugins, which are the daemon's.

mod client;
mod connect;
pub mod containers;
pub mod content;
pub mod diff;
pub mod error;
pub mod events;
mod gathering;
pub mod health;
pub mod images;
pub mod introspection;
pub mod leases;
mod lingering;
pub mod maintenance;
mod mount;
pub mod mounts;
pub mod namespaces;
mod routes;
pub mod scope;
pub mod server;
pub mod snapshots;
mod socket;
pub mod streaming;
pub mod tasks;
mod time;
pub mod transfer;
mod wire;

pub use client::Client;
pub use connect::make_room;
pub use gathering::Gathering;
pub use lingering::{Lingering, ReadNow, Turn};
pub use routes::Routes;
pub use socket::Socket;
pub use windlass_proto as proto;

/// The largest message that is sent or taken, in bytes: as containerd has it.
pub const MAX_MESSAGE: usize = 16 << 20;

/// How many bytes of a call may be on their way, unread: the windows of HTTP/2 begin with 64 KiB, which is little where the
/// other end is on the same machine.
const STREAM_WINDOW: u32 = 2 << 20;

/// How many bytes of all calls of a connection may be on their way, unread. Calls whose other end does not read share it, and
/// hold up the rest when it is used up: so it has room for many.
const CONNECTION_WINDOW: u32 = 256 << 20;

/// The largest frame that is taken, in bytes: the fewer there are of some content, the less there is to do, and the longer a
/// small message waits behind one.
const MAX_FRAME: u32 = 256 << 10;
