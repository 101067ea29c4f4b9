//! `dist gc`: garbage is collected, or listed.

use std::time::Duration;

use serde::Serialize;
use windlass_core::gc::{Collected, Doomed, DoomedKind, Tally};

use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{count, fields, line, size};

/// Remove what nothing needs any more, in all namespaces.
///
/// What neither an image nor a container nor a lease keeps goes. Deleting an image does this by itself. What is left over comes from interrupted work, from leases that have expired, and
/// from records that were deleted one by one. Pulls under way and what they need are left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist gc --plan                               what would go, and how much room that makes
  dist gc
  dist why sha256:…                            why something stays")]
pub(crate) struct Args {
    /// Only list what would go.
    #[arg(long)]
    plan: bool,
}

/// What was removed.
#[derive(Serialize)]
struct Report {
    bytes: u64,
    blobs: Count,
    snapshots: Count,
    ingests: Count,
    records: u64,
    leases: u64,
    images: u64,
    /// Seconds, as the two below.
    marking: f64,
    pause: f64,
    longest_pause: f64,
}

#[derive(Serialize)]
struct Count {
    count: u64,
    bytes: u64,
}

impl From<Tally> for Count {
    fn from(tally: Tally) -> Self {
        Self { count: tally.count, bytes: tally.bytes }
    }
}

/// Collects, or lists.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let collector = services.collector()?;
    if args.plan {
        return list(context, &collector.plan().await?);
    }
    let collected = collector.collect().await?;
    context.output().record(&report(&collected), |_| describe(&collected))
}

fn report(collected: &Collected) -> Report {
    Report {
        bytes: collected.bytes(),
        blobs: collected.blobs.into(),
        snapshots: collected.snapshots.into(),
        ingests: collected.ingests.into(),
        records: collected.contents,
        leases: collected.leases,
        images: collected.images,
        marking: collected.marking.as_secs_f64(),
        pause: collected.pause.as_secs_f64(),
        longest_pause: collected.longest_pause.as_secs_f64(),
    }
}

fn describe(collected: &Collected) -> String {
    let parts = [
        count(collected.blobs.count, "blob"),
        count(collected.snapshots.count, "snapshot"),
        count(collected.ingests.count, "ingest"),
    ];
    let expired = [count(collected.leases, "lease"), count(collected.images, "image")];
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    fields(&[
        ("freed", format!("{} ({})", size(collected.bytes()), parts.join(", "))),
        ("expired", expired.join(", ")),
        ("marking", milliseconds(collected.marking)),
        (
            "others waited",
            format!("{}, {} at a time at most", milliseconds(collected.pause), milliseconds(collected.longest_pause)),
        ),
    ])
}

fn list(context: &Context, plan: &[Doomed]) -> Outcome {
    let mut list = context.output().list(["KIND", "NAMESPACE", "ID", "FREES"]);
    for doomed in plan {
        list.push(doomed, |doomed| {
            let namespace = doomed.namespace.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            let frees = if doomed.bytes == 0 { "-".to_owned() } else { size(doomed.bytes) };
            [kind(doomed.kind).to_owned(), namespace, doomed.id.clone(), frees]
        })?;
    }
    list.finish()?;
    if context.output().is_json() {
        return Ok(());
    }
    let bytes = plan.iter().map(|doomed| doomed.bytes).sum();
    line(&format!("{} would go and free {}", count(plan.len() as u64, "object"), size(bytes)))
}

fn kind(kind: DoomedKind) -> &'static str {
    match kind {
        DoomedKind::Lease => "lease",
        DoomedKind::Image => "image",
        DoomedKind::Content => "blob",
        DoomedKind::Snapshot => "snapshot",
        DoomedKind::Ingest => "ingest",
    }
}
