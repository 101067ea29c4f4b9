//! `dist images usage`: what an image takes up.

use windlass::transfer::usage::{Usage, usage};

use super::find;
use crate::commands::pull::role;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{fields, line, size};

/// Show what an image takes up, in content and in snapshots, and what of it other images need as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist images usage redis
  dist --format json images usage redis | jq '.total, .shared'")]
pub(crate) struct Args {
    /// Image, by its name.
    #[arg(value_name = "REF")]
    name: String,
    /// Snapshotter [default: overlayfs as root, native otherwise].
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
}

/// Measures.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let image = find(&services, &args.name).await?;
    let measured = usage(&services, &image, args.snapshotter.as_deref()).await?;
    let output = context.output();
    if output.is_json() {
        return output.record(&measured, |_| String::new());
    }
    print(context, &measured)
}

fn print(context: &Context, measured: &Usage) -> Outcome {
    let of = |total: u64, shared: u64| format!("{} ({} shared)", size(total), size(shared));
    line(&fields(&[
        ("name", measured.name.to_string()),
        ("content", of(measured.total.content, measured.shared.content)),
        ("snapshots", of(measured.total.snapshots, measured.shared.snapshots)),
    ]))?;
    let mut list = context.output().list(["KEY", "KIND", "SIZE", "INODES", "SHARED"]);
    for snapshot in &measured.snapshots {
        list.push(snapshot, |snapshot| {
            let usage = snapshot.usage;
            let kind = "snapshot".to_owned();
            let inodes = usage.inodes.to_string();
            [snapshot.key.to_string(), kind, size(usage.bytes), inodes, snapshot.shared.to_string()]
        })?;
    }
    for blob in &measured.blobs {
        list.push(blob, |blob| {
            let descriptor = &blob.descriptor;
            let (digest, kind) = (descriptor.digest.to_string(), role(descriptor));
            [digest, kind, size(descriptor.size), "-".to_owned(), blob.shared.to_string()]
        })?;
    }
    list.finish()
}
