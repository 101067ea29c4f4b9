//! Archives: tar and what it is compressed with, read and written. Buffers in, buffers out, without any I/O.
//!
//! Layers are such archives, and so are the files that images are carried in; that is why two neighbours need them.
//!
//! ```text
//!   reading   compressed bytes ──► compression::Decompressor ──► tar::Parser ──► entries and their data
//!   writing   entries and their data ──► tar::Writer ──► compression::Compressor ──► compressed bytes
//! ```
//!
//! Deliberately absent: files, whiteouts, what a layer is, and whether a name is acceptable.

pub mod compression;
pub mod parts;
pub mod tar;
