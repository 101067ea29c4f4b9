//! Content over the wire: `containerd.services.content.v1.Content`.
//!
//! Three of the nine calls carry bytes or lists without end, and none of them keeps more than a few megabytes:
//!
//! - `Read` sends a blob, or a part of it, in messages of at most a MiB.
//! - `List` sends pages of records.
//! - `Write` is a conversation: every message of the client is answered. [`write`](self) has its rules.
//!
//! Reading order: the conversions here, [`server`](self), then the client's half.

mod aborts;
mod files;
mod list;
mod read;
mod reader;
mod remote;
mod server;
mod write;
mod writer;
mod writers;

use windlass_core::content::{Info, Status};
use windlass_core::{Digest, Error, Result};
use windlass_proto::containerd::services::content::v1 as wire;

use crate::{time, wire as messages};

pub(crate) use files::Peer;
pub use remote::Remote;
pub use server::Server;
pub(crate) use writers::Writers;

/// How many bytes of content a message carries at most.
const CHUNK: usize = 1 << 20;

fn info_message(info: Info) -> wire::Info {
    wire::Info {
        digest: info.digest.to_string(),
        size: messages::size_number(info.size),
        created_at: time::to_wire(info.created_at),
        updated_at: time::to_wire(info.updated_at),
        labels: messages::label_map(info.labels),
    }
}

fn info(wire: Option<wire::Info>) -> Result<Info> {
    let wire = wire.ok_or_else(|| Error::invalid_argument("no info of content is given"))?;
    Ok(Info {
        digest: wire.digest.parse()?,
        size: messages::size("the size of content,", wire.size)?,
        created_at: time::from_wire(wire.created_at)?,
        updated_at: time::from_wire(wire.updated_at)?,
        labels: messages::labels(wire.labels),
    })
}

fn status_message(status: Status) -> wire::Status {
    wire::Status {
        started_at: time::to_wire(status.started_at),
        updated_at: time::to_wire(status.updated_at),
        r#ref: status.ingest.into(),
        offset: messages::size_number(status.offset),
        total: messages::size_number(status.total.unwrap_or_default()),
        expected: digest_text(status.expected.as_ref()),
    }
}

fn status(wire: Option<wire::Status>) -> Result<Status> {
    let wire = wire.ok_or_else(|| Error::invalid_argument("no status of an ingest is given"))?;
    Ok(Status {
        ingest: wire.r#ref.try_into()?,
        offset: messages::size("the offset of an ingest,", wire.offset)?,
        total: total(wire.total)?,
        expected: digest(&wire.expected)?,
        started_at: time::from_wire(wire.started_at)?,
        updated_at: time::from_wire(wire.updated_at)?,
    })
}

/// Reads a size that is declared; nothing declares none, and so does zero.
fn total(total: i64) -> Result<Option<u64>> {
    Ok(Some(messages::size("the declared size,", total)?).filter(|total| *total > 0))
}

/// Reads a digest that is declared.
fn digest(text: &str) -> Result<Option<Digest>> {
    Some(text).filter(|text| !text.is_empty()).map(str::parse).transpose()
}

fn digest_text(digest: Option<&Digest>) -> String {
    digest.map(ToString::to_string).unwrap_or_default()
}
