//! The engine as its users see it: a host, and pulls onto a real root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod misbehaving;
mod pulls;
