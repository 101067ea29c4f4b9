//! Strict implementations that keep their records in memory, for tests of what stands on the traits.
//!
//! Strict means: what the contract forbids fails here, even where a lenient implementation could go on. [`Host`] hands
//! them out bound to a namespace and a lease, with garbage collection, as the engine does; each one can also be had
//! alone. [`Remote`] serves images and fails as a script says.
//!
//! Bytes are not shared between namespaces, and nothing survives the value.

mod applier;
mod behind;
mod collect;
mod comparer;
mod container;
mod content;
mod events;
mod host;
mod image;
mod lease;
mod namespace;
mod remote;
mod room;
mod snapshotter;
mod space;

pub use applier::Applier;
pub use comparer::Comparer;
pub use container::Containers;
pub use content::Content;
pub use events::Events;
pub use host::{Host, SNAPSHOTTER};
pub use image::Images;
pub use lease::Leases;
pub use namespace::Namespaces;
pub use remote::{Fault, Gate, Remote};
pub use room::Room;
pub use snapshotter::Snapshotter;
