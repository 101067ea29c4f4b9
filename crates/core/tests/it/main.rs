//! Properties of the contract's parsers: whatever the text, no panic, and what was parsed is written as it was.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digest;
mod document;
mod filter;
mod platform;
mod record;
mod reference;
