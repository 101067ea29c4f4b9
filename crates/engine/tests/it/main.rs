//! The engine as its users see it: a host, and pulls onto a real root.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod differences;
mod doctor;
mod events;
mod explained;
mod explained_real;
mod host;
mod layers;
mod mirrors;
mod misbehaving;
mod model;
mod pulls;
mod transcript;
mod verifiers;
