//! `dist images ls`: the recorded images.

use futures::TryStreamExt;
use windlass_core::filter::Filter;
use windlass_core::inspect::Summarized;

use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{age, size};

/// List images.
///
/// SIZE is what the image has for the platforms that are here, as its manifests say; STORED is what of that is in the
/// content store. JSON adds the labels and the whole target.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  dist images ls
  dist images ls -q                            names only
  dist images ls 'name~=redis'                 those that a filter matches
  dist --format json images ls | jq -r '.[] | select(.stored < .size) | .name'"
)]
pub(crate) struct Args {
    /// Print names only.
    #[arg(short, long)]
    quiet: bool,
    /// Filters, any of which must match: name==x, labels."a.b"~=re.
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
}

/// Lists.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let output = context.output();
    if args.quiet {
        let mut images = services.images.list(&args.filters);
        let mut list = output.names();
        while let Some(image) = images.try_next().await? {
            list.push(&image.name)?;
        }
        return list.finish();
    }
    let mut list = output.list(["REF", "TYPE", "DIGEST", "SIZE", "STORED", "PLATFORMS", "CREATED"]);
    let mut images = services.summaries(&args.filters);
    while let Some(image) = images.try_next().await? {
        list.push(&image, cells)?;
    }
    list.finish()
}

fn cells(row: &Summarized) -> [String; 7] {
    let Summarized { image, summary } = row;
    let platforms: Vec<String> = summary.platforms.iter().map(ToString::to_string).collect();
    [
        image.name.to_string(),
        image.target.media_type.to_string(),
        image.target.digest.to_string(),
        size(summary.size),
        size(summary.stored),
        if platforms.is_empty() { "-".to_owned() } else { platforms.join(",") },
        age(image.created_at),
    ]
}
