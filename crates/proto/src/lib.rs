//! containerd's API as Rust types: messages, clients and servers.
//!
//! The modules are made of the files in `proto/` by `cargo xtask codegen` and checked in; a test holds them, and the files
//! against published descriptions of the same messages. Names, types and numbers of fields are facts of the wire;
//! nothing is interpreted here. The module of a package is its name: [`containerd::services::content::v1`].
//!
//! Not here: what any of it means, which is `windlass-grpc`'s.

#[expect(
    missing_docs,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "made by a generator of the files that say it"
)]
#[rustfmt::skip]
mod generated {
    include!("generated/mod.rs");
}

pub use generated::{containerd, google, grpc, windlass};
pub use prost;
pub use prost_types;
