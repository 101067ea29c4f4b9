//! Content: bytes on disk, records in the database, and the view of both from one namespace.
//!
//! [`blobs`] and [`ingests`] know files and nothing of namespaces' records; [`view`] joins them with the database;
//! [`writer`] is the way from the one to the other.

mod blobs;
mod ingests;
mod open_refs;
mod reader;
mod sink;
mod state;
mod view;
mod writer;

pub(crate) use blobs::Blobs;
pub(crate) use ingests::Ingests;
pub(crate) use view::{Content, recorded_anywhere};
