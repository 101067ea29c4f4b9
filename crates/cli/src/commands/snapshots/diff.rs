//! `dist snapshots diff`: what changed between two snapshots, as a layer.

use std::io::IsTerminal as _;

use windlass::transfer::difference::{LEASE_LABEL, Snapshots, compare};
use windlass_core::content::IngestRef;
use windlass_core::diff::CompareOptions;
use windlass_core::gc::Deletion;
use windlass_core::snapshot::Key;
use windlass_core::{Descriptor, Error, Labels, Leased, MediaType, Result, lease};

use super::Of;
use crate::commands::content::root;
use crate::context::Context;
use crate::failure::Outcome;
use crate::interrupt::interruptible;
use crate::label;
use crate::render::{fields, size, write_bytes};

/// How much of the layer is read at once, in bytes.
const PART: usize = 1 << 20;

/// Write what changed between two snapshots as a layer to standard output.
///
/// With one snapshot, it is what changed since its parent. The same snapshots make the same bytes. With --keep the layer also
/// stays in the content store, until `dist content rm` deletes it; with --format json its descriptor is printed instead
/// of its bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist snapshots diff work > layer.tar.gz      what was changed in it
  dist snapshots diff --media-type application/vnd.oci.image.layer.v1.tar A B | tar tv
  dist --format json snapshots diff --keep A B | jq -r .digest")]
pub(crate) struct Args {
    #[command(flatten)]
    of: Of,
    /// What was; with one snapshot alone, what is.
    #[arg(value_name = "A")]
    one: Key,
    /// What is.
    #[arg(value_name = "B")]
    other: Option<Key>,
    /// Media type of the layer, which says its compression.
    #[arg(long, value_name = "TYPE", default_value = MediaType::OCI_LAYER_GZIP)]
    media_type: String,
    /// Key of the ingest that the layer is written through.
    #[arg(long = "ref", value_name = "REFKEY")]
    ingest: Option<IngestRef>,
    /// Keep the layer in the content store.
    #[arg(long)]
    keep: bool,
    /// Label of the layer; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label::parse)]
    labels: Vec<(String, String)>,
    /// Seconds since 1970 that nothing in the layer is later than.
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", hide_env_values = true)]
    source_date_epoch: Option<i64>,
}

/// Compares.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let is_json = context.output().is_json();
    if !args.keep && (is_json || std::io::stdout().is_terminal()) {
        return Err(Error::invalid_argument("the bytes of a layer are not for a terminal, and no JSON")
            .hint("redirect standard output, or keep the layer in the content store with --keep")
            .into());
    }
    let snapshots = match args.other {
        Some(upper) => Snapshots { lower: Some(args.one), upper },
        None => Snapshots { lower: None, upper: args.one },
    };
    let mut labels = if args.keep { root() } else { Labels::new() };
    labels.extend(&label::all(args.labels));
    let options = CompareOptions {
        ingest: args.ingest,
        labels,
        source_date_epoch: args.source_date_epoch,
        ..CompareOptions::new(&*args.media_type)
    };
    let snapshotter = args.of.snapshotter;
    interruptible(async {
        let host = context.host().await?;
        let labels = Labels::new().with(LEASE_LABEL, snapshots.upper.to_string());
        let lease = lease::Options { id: None, expiry: Some(lease::DEFAULT_EXPIRY), labels };
        let leased = Leased::acquire(&*host, &context.globals.namespace, lease).await?;
        let written = async {
            let layer = compare(&leased, snapshotter.as_deref(), &snapshots, options).await?;
            if is_json || (args.keep && std::io::stdout().is_terminal()) {
                context.output().record(&layer, |layer: &Descriptor| {
                    fields(&[("digest", layer.digest.to_string()), ("size", size(layer.size))])
                })
            } else {
                print(&leased, &layer).await
            }
        };
        let written = written.await;
        leased.release(Deletion::Synchronous).await?;
        written
    })
    .await
}

/// Writes the bytes of a layer to standard output.
async fn print(leased: &Leased, layer: &Descriptor) -> Outcome {
    let reader = leased.content.reader(layer).await?;
    let mut offset = 0;
    while offset < reader.size() {
        let part: Result<_> = reader.read_at(offset, PART).await;
        let part = part?;
        if part.is_empty() {
            return Err(Error::data_loss(format!("layer {} ends at {offset}", layer.digest)).into());
        }
        offset += part.len() as u64;
        write_bytes(part).await?;
    }
    Ok(())
}
