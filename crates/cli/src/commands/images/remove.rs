//! `dist images rm`: records are deleted, and what only they needed is collected.

use serde::Serialize;
use windlass_core::image::{Deletion, Name};
use windlass_core::{Result, Services};

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
    /// Absent where a daemon does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    freed: Option<Freed>,
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
    let services = context.services().await?;
    let mut deleted: Vec<Name> = Vec::new();
    for text in &args.names {
        let name = find(&services, text).await?.name;
        if !deleted.contains(&name) {
            deleted.push(name);
        }
    }
    delete(context, &services, deleted).await
}

/// Deletes images and what only they needed, and says what that was.
pub(super) async fn delete(context: &Context, services: &Services, deleted: Vec<Name>) -> Outcome {
    let freed = collect(services, &deleted).await?;
    context.output().record(&Report { deleted, freed }, |Report { deleted, freed }| {
        let mut lines: Vec<_> = deleted.iter().map(|name| ("deleted", name.to_string())).collect();
        if let Some(freed) = freed {
            let (blobs, snapshots) = (count(freed.blobs.count, "blob"), count(freed.snapshots.count, "snapshot"));
            lines.push(("freed", format!("{} ({blobs}, {snapshots})", size(freed.bytes))));
        }
        fields(&lines)
    })
}

/// Deletes images, collects what only they needed, and returns what that was where somebody can tell.
async fn collect(services: &Services, names: &[Name]) -> Result<Option<Freed>> {
    let Some(collector) = &services.collector else {
        // The last one waits for the collection, which sees all of them.
        for (position, name) in names.iter().enumerate() {
            let last = position + 1 == names.len();
            let deletion = if last { Deletion::Synchronous } else { Deletion::Background };
            services.images.delete(name, deletion).await?;
        }
        return Ok(None);
    };
    for name in names {
        services.images.delete(name, Deletion::Background).await?;
    }
    let collected = collector.collect().await?;
    Ok(Some(Freed {
        bytes: collected.bytes(),
        blobs: Count { count: collected.blobs.count, bytes: collected.blobs.bytes },
        snapshots: Count { count: collected.snapshots.count, bytes: collected.snapshots.bytes },
    }))
}
