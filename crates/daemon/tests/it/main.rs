//! The daemon: its configuration, and daemons in this process on directories of their own.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod bad_input;
mod config;
mod load;
mod second_client;
mod served;
mod serving;
