//! The suites on the in-memory implementations, and the parts together.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod image;
mod memory;
mod remote;
