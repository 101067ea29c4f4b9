//! The daemon: its configuration, and daemons in this process on directories of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;
mod authority;
mod bad_input;
mod config;
mod content;
mod docker;
mod every_call;
mod load;
mod proxy;
mod raw;
mod second_client;
mod served;
mod serving;
mod shared;
mod transfer;
mod verified;
