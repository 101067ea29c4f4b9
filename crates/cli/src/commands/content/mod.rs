//! `dist content`: the blobs, and those on their way.

mod get;
mod ingest;
mod list;

use clap::Subcommand;
use serde::Serialize;
use windlass_core::Digest;
use windlass_core::content::Info;

use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{age, fields, labels, size};

/// List, read, write and remove blobs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Ls(list::Args),
    Get(get::Args),
    Ingest(ingest::Args),
    /// List ingests: blobs on their way, or left by a pull that was interrupted.
    Active {
        /// Filters, any of which must match: ref==x, ref~=re.
        #[arg(value_name = "FILTER")]
        filters: Vec<windlass_core::filter::Filter>,
    },
    /// Show the record of a blob.
    Info {
        /// Blob.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
    },
    /// Delete blobs from the namespace. Images that need them will say that they are missing.
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Blobs.
        #[arg(value_name = "DIGEST", required = true)]
        digests: Vec<Digest>,
    },
}

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Ls(args) => list::run(context, args).await,
        Command::Get(args) => get::run(context, args).await,
        Command::Ingest(args) => ingest::run(context, args).await,
        Command::Active { filters } => list::active(context, &filters).await,
        Command::Info { digest } => info(context, &digest).await,
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

/// What an ingest left in the store.
#[derive(Serialize)]
struct Ingested {
    digest: Digest,
    size: u64,
}
