//! The remote against a registry that misbehaves, against Debian's real one, and against directories.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod access;
mod connection;
mod cut;
mod docker;
mod doctor;
mod fetch;
mod foreign;
mod hosts;
mod layout;
mod push;
mod real;
mod redirect;
mod referrers;
mod repositories;
mod resolve;
mod retries;
mod sample;
mod support;
mod transfer;
