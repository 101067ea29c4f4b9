//! `dist content ls`.

use futures::TryStreamExt;
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
