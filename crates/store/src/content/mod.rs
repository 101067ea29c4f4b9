//! Content: bytes on disk, records in the database, and the view of both from one namespace.
//!
//! [`blobs`] and [`ingests`] know files and nothing of namespaces' records; [`view`] joins them with the database;
//! [`records`] writes the latter; [`writer`] is the way from the one to the other, with a short cut for [`small`] blobs.
//! [`depot`] is where the bytes of blobs are, which may be [`behind`] a socket. [`sparse`] lets a writer write at several places; [`edge`] is how far somebody behind it can read.

#[cfg(test)]
mod at_once;
mod behind;
mod blobs;
mod commit;
mod depot;
mod edge;
mod gathered;
mod ingests;
mod open_refs;
mod reader;
mod records;
#[cfg(test)]
mod rehash;
mod running;
mod sink;
mod small;
mod sparse;
mod state;
mod view;
mod work;
mod writeback;
mod writer;

use std::path::Path;

use windlass_core::Result;

use crate::disk::Disk;
use crate::precedence::Precedence;

pub(crate) use behind::Behind;
pub(crate) use blobs::Blobs;
pub(crate) use depot::Depot;
pub(crate) use ingests::{Found as FoundIngest, Ingests, look as look_at_ingest};
pub(crate) use records::{recorded_anywhere, remove_bytes};
pub(crate) use small::SmallBlobs;
pub(crate) use view::Content;

/// Opens what is on disk below a root, or makes it. Blocking.
pub(crate) fn open(disk: &Disk, root: &Path, precedence: Precedence) -> Result<(Blobs, SmallBlobs, Ingests)> {
    let content = root.join("content");
    blobs::make_directories(disk, root, &["content"])?;
    blobs::make_directories(disk, &content, &["blobs", "ingest", "small"])?;
    let blobs = Blobs::open(disk, &content)?;
    let small = SmallBlobs::open(disk, &content, &blobs, precedence)?;
    Ok((blobs, small, Ingests::open(disk, &content)))
}
