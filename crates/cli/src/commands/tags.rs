//! `dist tags`: the tags of a repository.

use futures::TryStreamExt as _;
use windlass_core::{Reference, ResultExt as _};

use crate::context::Context;
use crate::failure::Outcome;
use crate::familiar;
use crate::remote::Registries;

/// List the tags of a repository, or of a directory in OCI layout.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist tags redis
  dist tags registry.test/app | sort -V | tail -n1
  dist --format json tags registry.test/app")]
pub(crate) struct Args {
    /// Repository.
    #[arg(help = "Repository: NAME, HOST/REPOSITORY, or oci:DIRECTORY")]
    #[arg(value_name = "REPO", value_parser = familiar::parse_locator)]
    repository: Reference,
    #[command(flatten)]
    registries: Registries,
}

/// Lists.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let resolver = args.registries.resolver(&args.repository)?;
    let mut tags = resolver.tags(&args.repository);
    let mut list = context.output().names();
    while let Some(tag) = tags.try_next().await.context(|| format!("list the tags of {}", args.repository))? {
        list.push(&tag)?;
    }
    list.finish()
}
