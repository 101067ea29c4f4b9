//! `dist images rm`: records are deleted, and what only they needed is collected.

use serde::Serialize;
use windlass_core::Host;
use windlass_core::image::{Deletion, Name};

use super::find;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{count, fields, size};

/// Delete images, and everything only they needed.
///
/// Nothing is deleted when one of the names is not here. Content and snapshots that another image, a mount or a pull
/// under way needs stay.
#[derive(Debug, clap::Args)]
#[command(visible_aliases = ["remove", "delete", "del"], after_help = "\
Examples:
  dist images rm redis
  dist images rm $(dist images ls -q)          all of them")]
pub(crate) struct Args {
    /// Images, by their names.
    #[arg(value_name = "REF", required = true)]
    names: Vec<String>,
}

/// What was deleted and what went with it.
#[derive(Serialize)]
struct Report {
    deleted: Vec<Name>,
    freed: Freed,
}

#[derive(Serialize)]
struct Freed {
    bytes: u64,
    blobs: Count,
    snapshots: Count,
}

#[derive(Serialize)]
struct Count {
    count: u64,
    bytes: u64,
}

/// Deletes.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let engine = context.engine().await?;
    let services = engine.services(&context.globals.namespace.clone().into()).await?;
    let mut deleted: Vec<Name> = Vec::new();
    for text in &args.names {
        let name = find(&services, text).await?.name;
        if !deleted.contains(&name) {
            deleted.push(name);
        }
    }
    for name in &deleted {
        services.images.delete(name, Deletion::Background).await?;
    }
    let collected = engine.collect().await?;
    let freed = Freed {
        bytes: collected.bytes(),
        blobs: Count { count: collected.blobs.count, bytes: collected.blobs.bytes },
        snapshots: Count { count: collected.snapshots.count, bytes: collected.snapshots.bytes },
    };
    context.output().record(&Report { deleted, freed }, |Report { deleted, freed }| {
        let (blobs, snapshots) = (count(freed.blobs.count, "blob"), count(freed.snapshots.count, "snapshot"));
        let freed = format!("{} ({blobs}, {snapshots})", size(freed.bytes));
        let mut lines: Vec<_> = deleted.iter().map(|name| ("deleted", name.to_string())).collect();
        lines.push(("freed", freed));
        fields(&lines)
    })
}
