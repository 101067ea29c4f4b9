//! What the tests of every room share.
//!
//! - [`suite`]: conformance suites, one per trait of the contract. Every implementor passes the suite of its trait, and
//!   so does everything that forwards one.
//! - [`memory`]: strict in-memory implementations, for tests of what stands on the traits.
//! - [`image`]: images made to order, right ones and wrong ones.
//! - [`containerd`]: Debian's containerd as a process.
//! - [`debian`]: large real images, made of Debian's packages.
//! - [`loopback`]: a small disk of its own, which can be full, and whose power can be cut.
//! - [`mounted`]: what the mounts of a snapshot would show, without mounting.
//! - [`tree`]: directories as comparable lists of entries.
//!
//! For tests and development tools only: nothing here is part of the product, and nothing in the product depends on it.

pub mod containerd;
pub mod debian;
pub mod image;
pub mod loopback;
pub mod memory;
pub mod mounted;
pub mod registry;
pub mod suite;
pub mod tree;

#[doc(hidden)]
pub use windlass_core as contract;
