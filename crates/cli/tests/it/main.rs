//! The `dist` command from the outside: the real binary, real directories, real mounts, real peers.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod content;
mod dist;
mod help;
mod namespaces;
mod usage;
