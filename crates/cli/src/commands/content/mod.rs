//! `dist content`: the blobs, and those on their way.

mod active;
mod edit;
mod get;
mod ingest;
mod label;
mod list;

use clap::Subcommand;
pub(crate) use ingest::root;
use serde::Serialize;
use windlass_core::content::{Info, IngestRef};
use windlass_core::{Digest, Error, Result};

use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{age, fields, labels, size};

/// List, read, write, label and remove blobs, and those on their way.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Ls(list::Args),
    Get(get::Args),
    Ingest(ingest::Args),
    Active(active::Args),
    Status(active::StatusArgs),
    /// Discard ingests and what was written of them.
    #[command(visible_alias = "cancel")]
    Abort {
        /// Ingests, as `content active` lists them.
        #[arg(value_name = "REFKEY", required = true)]
        ingests: Vec<IngestRef>,
    },
    /// Show the record of a blob.
    Info {
        /// Blob.
        #[arg(value_name = "DIGEST", value_parser = digest)]
        digest: Digest,
    },
    Label(label::Args),
    Edit(edit::Args),
    /// Delete blobs from the namespace. Images that need them will say that they are missing.
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Blobs.
        #[arg(value_name = "DIGEST", required = true, value_parser = digest)]
        digests: Vec<Digest>,
    },
}

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Ls(args) => list::run(context, args).await,
        Command::Get(args) => get::run(context, args).await,
        Command::Ingest(args) => ingest::run(context, args).await,
        Command::Active(args) => active::run(context, args).await,
        Command::Status(args) => active::status(context, args).await,
        Command::Abort { ingests } => abort(context, &ingests).await,
        Command::Info { digest } => info(context, &digest).await,
        Command::Label(args) => label::run(context, args).await,
        Command::Edit(args) => edit::run(context, args).await,
        Command::Rm { digests } => remove(context, &digests).await,
    }
}

async fn info(context: &Context, digest: &Digest) -> Outcome {
    let info = context.services().await?.content.info(digest).await?;
    context.output().record(&info, |info: &Info| {
        fields(&[
            ("digest", info.digest.to_string()),
            ("size", format!("{} ({} bytes)", size(info.size), info.size)),
            ("created", age(info.created_at)),
            ("updated", age(info.updated_at)),
            ("labels", labels(&info.labels)),
        ])
    })
}

async fn remove(context: &Context, digests: &[Digest]) -> Outcome {
    let content = context.services().await?.content;
    let mut removed = context.output().names();
    for digest in digests {
        content.delete(digest).await?;
        removed.push(digest)?;
    }
    removed.finish()
}

async fn abort(context: &Context, ingests: &[IngestRef]) -> Outcome {
    let content = context.services().await?.content;
    let mut aborted = context.output().names();
    for ingest in ingests {
        content.abort(ingest).await?;
        aborted.push(ingest)?;
    }
    aborted.finish()
}

/// Parses a digest, which has to be whole.
fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|error: Error| {
        error.hint(format!(
            "a whole digest is needed: `dist content ls -q digest~={text}` lists those that contain this"
        ))
    })
}

/// What an ingest left in the store.
#[derive(Serialize)]
struct Ingested {
    digest: Digest,
    size: u64,
}
