//! The daemon: its configuration, and real ones on directories of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod config;
