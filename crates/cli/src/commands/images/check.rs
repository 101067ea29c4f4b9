//! `dist images check`: which images are here as a whole, and unpacked.

use futures::TryStreamExt as _;
use windlass::transfer::check::{Checked, Status, check};
use windlass_core::filter::Filter;

use crate::context::Context;
use crate::failure::Outcome;
use crate::platforms::Platforms;
use crate::render::size;

/// Check which images are here as a whole, and unpacked.
///
/// Only whether blobs and snapshots are there is looked at; `dist fsck` reads their bytes. STATUS is complete, incomplete,
/// unavailable when documents are missing, or dropped when only layers are missing that a pull was told not to keep.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist images check
  dist images check -q                         names of those that are complete
  dist --format json images check | jq -r '.[] | select(.status == \"incomplete\") | .missing[].digest'")]
pub(crate) struct Args {
    /// Print the names of complete images only.
    #[arg(short, long)]
    quiet: bool,
    /// Snapshotter [default: overlayfs as root, native otherwise].
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
    #[command(flatten)]
    platforms: Platforms,
    /// Filters, any of which must match: name==x, labels."a.b"~=re.
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
}

/// Checks.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let platforms = args.platforms.selection();
    let output = context.output();
    let mut images = services.images.list(&args.filters);
    if args.quiet {
        let mut names = output.names();
        while let Some(image) = images.try_next().await? {
            let checked = check(&services, &image, &platforms, args.snapshotter.as_deref()).await?;
            if checked.status == Status::Complete {
                names.push(&checked.name)?;
            }
        }
        return names.finish();
    }
    let mut list = output.list(["REF", "TYPE", "DIGEST", "STATUS", "SIZE", "UNPACKED"]);
    while let Some(image) = images.try_next().await? {
        list.push(&check(&services, &image, &platforms, args.snapshotter.as_deref()).await?, cells)?;
    }
    list.finish()
}

fn cells(checked: &Checked) -> [String; 6] {
    let Checked { present, required, .. } = checked;
    let status = match checked.status {
        Status::Complete => format!("complete ({present}/{required})"),
        Status::Dropped => format!("dropped ({present}/{required})"),
        Status::Incomplete => format!("incomplete ({present}/{required})"),
        Status::Unavailable => format!("unavailable ({present}/?)"),
    };
    let whole = checked.status != Status::Unavailable;
    let required = if whole { size(checked.required_bytes) } else { "?".to_owned() };
    [
        checked.name.to_string(),
        checked.target.media_type.to_string(),
        checked.target.digest.to_string(),
        status,
        format!("{}/{required}", size(checked.present_bytes)),
        checked.unpacked.to_string(),
    ]
}
