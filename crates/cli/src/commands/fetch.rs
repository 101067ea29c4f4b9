//! `dist fetch`: all content of an image into the store, no snapshots.

use windlass::transfer::{self, Pull};
use windlass_core::progress::Tracker;

use super::pull::{Source, print_pulled};
use crate::by_daemon;
use crate::context::Context;
use crate::failure::Outcome;
use crate::interrupt::{interruptible, within};

/// Fetch all content of an image into the store and record its name, without unpacking.
///
/// Needs no root. A later `dist pull` downloads nothing again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist fetch redis                             index, manifest, config and layers for this machine
  dist fetch --all-platforms redis             for every platform there is
  dist fetch --metadata-only redis             only the documents: enough for `dist images inspect`")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Fetch indexes, manifests and configs, and no layers.
    #[arg(long)]
    metadata_only: bool,
}

/// Fetches.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let Args { source, metadata_only } = args;
    let (platforms, ignore_space) = (source.selection(), source.ignore_space);
    let verifier = source.verification.verifier()?;
    let referrers = source.with_referrers.clone().unwrap_or_default();
    let options = Pull { platforms, metadata_only, ignore_space, verifier, referrers, ..source.transfers.pull() };
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let place = context.place().await?;
        let namespace = &context.globals.namespace;
        if let Some(transfers) = by_daemon::transfers(&place, &source).await? {
            let ask = by_daemon::Ask { namespace, source: &source, options: &options, keep_layers: None, fetch: true };
            return Ok(by_daemon::pull(&transfers, ask, &tracker).await?);
        }
        let resolver = source.resolver()?;
        let fetched =
            transfer::fetch(place.host(), namespace, &resolver, &source.reference, &options, &tracker).await?;
        Ok((fetched, resolver.passed_over()))
    });
    let (fetched, passed_over) =
        context.display().during(&tracker, interruptible(within(source.transfers.timeout(), work))).await?;
    print_pulled(context, &fetched, &passed_over)
}
