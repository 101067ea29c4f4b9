//! `dist fetch`: all content of an image into the store, no snapshots.

use windlass::transfer::{self, Pull};
use windlass_core::progress::Tracker;

use super::pull::{Source, print_pulled};
use crate::context::Context;
use crate::failure::Outcome;
use crate::interrupt::interruptible;

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
        let resolver = source.resolver()?;
        let host = context.host().await?;
        let namespace = &context.globals.namespace;
        Ok(transfer::fetch(&*host, namespace, &resolver, &source.reference, &options, &tracker).await?)
    });
    let fetched = context.display().during(&tracker, interruptible(work)).await?;
    print_pulled(context, &fetched)
}
