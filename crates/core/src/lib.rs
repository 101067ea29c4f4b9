//! The contract of Windlass: nouns, object-safe traits and errors.
//!
//! Everything that moves between two crates is defined here, and nothing here moves anything: there is no
//! file, socket, clock thread or runtime behind these types. An implementation lives in the crate of its room
//! (`store`, `registry`, `layer`, `snapshot`), is assembled by the engine, and is interchangeable with any other
//! that passes the conformance suite of its trait.
//!
//! Reading order: [`mod@reference`] and [`remote`] say what is asked for and where it comes from, [`content`] and
//! [`snapshot`] where it goes, [`image`] what is recorded, [`host`] how the services are handed out, [`error`] how
//! all of it fails.

pub mod activation;
pub mod any;
pub mod checkup;
pub mod claim;
pub mod container;
pub mod content;
pub mod descriptor;
pub mod diff;
pub mod digest;
pub mod document;
mod durability;
pub mod error;
pub mod event;
pub mod field;
pub mod filter;
pub mod fsck;
pub mod gc;
pub mod host;
pub mod identifier;
pub mod image;
pub mod inspect;
pub mod label;
pub mod lease;
pub mod media_type;
pub mod namespace;
pub mod platform;
pub mod plugin;
pub mod progress;
pub mod reference;
pub mod remote;
pub mod room;
pub mod settings;
pub mod snapshot;
mod text;
pub mod timestamp;

pub use descriptor::Descriptor;
pub use digest::{ChainId, DiffId, Digest};
pub use durability::Durability;
pub use error::{Attempt, Error, Kind, Result, ResultExt};
pub use host::{Host, Leased, Scope, Services};
pub use label::Labels;
pub use media_type::MediaType;
pub use namespace::Namespace;
pub use platform::Platform;
pub use reference::Reference;

/// A stream of bytes that may fail at any point.
pub type ByteStream = futures::stream::BoxStream<'static, Result<bytes::Bytes>>;

/// The items of a listing, one at a time: a list of a million records does not have to fit in memory.
pub type Listing<T> = futures::stream::BoxStream<'static, Result<T>>;
