//! Layers applied to real directories, as root.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod apply;
mod archive;
mod bombs;
mod formats;
mod hostile;
mod image;
mod metadata;
mod overlay;
mod parser;
mod streams;
mod tree;
mod whiteouts;
mod writers;
