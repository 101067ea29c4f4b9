//! Images read by others: the kernel, which needs root, and `fsck.erofs` of erofs-utils.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod kernel;
mod random;
mod rebuild;
mod sample;
