//! Registries for tests: one of ours that misbehaves on demand, and Debian's real one.
//!
//! - [`Fake`] serves manifests and blobs out of memory on a loopback port, goes wrong in the ways of [`Fault`], asks for
//!   credentials as [`Auth`] says, and remembers every request.
//! - [`DockerRegistry`] runs the `docker-registry` of Debian, for the happy paths; [`Nginx`] stands before it, [`TokenServer`] says who may what.
//! - [`Squid`] and [`Socks`] are proxies.
//!
//! None of them has anything to do with how our own client works: they share no code with it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

mod abortable;
mod access;
mod body;
mod docker;
mod fake;
mod fault;
mod nginx;
mod process;
mod referrers;
mod serve;
mod socks;
mod squid;
mod tls;
mod token_server;
mod uploads;

pub use access::{Auth, Bearer};
pub use docker::{Access, DockerRegistry};
pub use fake::{Fake, Recorded};
pub use fault::Fault;
pub use nginx::{Front, Nginx};
pub use socks::Socks;
pub use squid::Squid;
pub use tls::{Identity, Validity};
pub use token_server::{TokenRequest, TokenServer};
pub use uploads::Taking;
