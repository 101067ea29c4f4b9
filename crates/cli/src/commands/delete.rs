//! `dist delete`: from a registry, not from here.

use windlass_core::{Reference, ResultExt as _};

use crate::context::Context;
use crate::failure::Outcome;
use crate::familiar;
use crate::remote::Registries;

/// Delete from a registry: a tag, or a manifest by its digest with all of its tags. What is here stays.
///
/// Few registries delete a tag alone, and many want to be told that they may delete at all. Space is freed when the registry
/// collects its garbage. Where a registry keeps no lists of referrers, the list of the manifest goes with it, and its entry in another
/// one; what is attached to it stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist delete registry.test/app:1              the tag
  dist delete registry.test/app@sha256:…       the manifest, and every tag that points at it")]
pub(crate) struct Args {
    /// What to delete.
    #[arg(help = "What to delete: HOST/REPOSITORY:TAG or HOST/REPOSITORY@DIGEST")]
    #[arg(value_name = "REF", value_parser = familiar::parse_locator)]
    reference: Reference,
    #[command(flatten)]
    registries: Registries,
}

/// Deletes.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let resolver = args.registries.resolver(&args.reference)?;
    resolver.delete(&args.reference).await.context(|| format!("delete {}", args.reference))?;
    context.output().name(&args.reference.to_string())
}
