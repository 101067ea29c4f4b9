//! `dist content ls` and `dist content active`.

use futures::TryStreamExt;
use windlass_core::content::Status;
use windlass_core::filter::Filter;

use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{age, labels, size};

/// List blobs.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "list")]
pub(crate) struct Args {
    /// Print digests only.
    #[arg(short, long)]
    quiet: bool,
    /// Filters, any of which must match: digest~=re, size==x, labels."a.b"==x.
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
}

/// Lists blobs.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let mut blobs = services.content.list(&args.filters);
    let output = context.output();
    if args.quiet {
        let mut list = output.names();
        while let Some(info) = blobs.try_next().await? {
            list.push(&info.digest)?;
        }
        return list.finish();
    }
    let mut list = output.list(["DIGEST", "SIZE", "CREATED", "LABELS"]);
    while let Some(info) = blobs.try_next().await? {
        list.push(&info, |info| {
            [info.digest.to_string(), size(info.size), age(info.created_at), labels(&info.labels)]
        })?;
    }
    list.finish()
}

/// Lists ingests.
pub(super) async fn active(context: &Context, filters: &[Filter]) -> Outcome {
    let services = context.services().await?;
    let mut list = context.output().list(["REF", "SIZE", "STARTED", "UPDATED"]);
    for status in services.content.statuses(filters).await? {
        list.push(&status, |status: &Status| {
            let total = status.total.map_or_else(|| "?".to_owned(), size);
            let size = format!("{}/{total}", size(status.offset));
            [status.ingest.to_string(), size, age(status.started_at), age(status.updated_at)]
        })?;
    }
    list.finish()
}
