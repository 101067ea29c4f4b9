//! The engine as a daemon: what `dist daemon` runs.
//!
//! ```text
//! configuration ─► engine on its root ─► sockets ─► ready ─► … ─► signal ─► drain ─► stop
//! ```
//!
//! What the services answer is in `windlass-grpc`, what they do in the engine; here is when they start, where they listen,
//! and how they end. Reading order: [`config`], [`Daemon`], `calls`.

mod assemble;
mod authority;
mod calls;
pub mod config;
mod daemon;
mod introspection;
mod metrics;
mod notify;
mod plugins;
mod processor;
mod proxy;
mod rest;
mod serve;
mod signals;
mod socket;
mod transfer;
mod ttrpc;
mod verified;

pub use config::Config;
pub use daemon::{Daemon, Process, run};
pub use proxy::content_of;
