//! `dist content label`: labels of a blob.

use windlass_core::Digest;
use windlass_core::content::Info;
use windlass_core::field::FieldMask;

use crate::context::Context;
use crate::failure::Outcome;
use crate::label;
use crate::render::labels;

/// Set labels of a blob, and print those that it then has; an empty value removes one.
///
/// Labels that begin with containerd.io/gc. say what keeps the blob, and what it keeps, from being collected.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist content label sha256:… team=mine            set one, leave the others
  dist content label sha256:… team=                remove it
  dist content label sha256:… -r team=mine         this one and no other
  dist content label sha256:… containerd.io/gc.root=$(date -u +%FT%TZ)")]
pub(crate) struct Args {
    /// Blob.
    #[arg(value_name = "DIGEST", value_parser = super::digest)]
    digest: Digest,
    /// Labels.
    #[arg(value_name = "KEY=VALUE", value_parser = label::parse, required_unless_present = "replace_all")]
    labels: Vec<(String, String)>,
    /// Remove all other labels.
    #[arg(short, long)]
    replace_all: bool,
}

/// Sets them.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let content = context.services().await?.content;
    let mut info = content.info(&args.digest).await?;
    let paths: Vec<String> = args.labels.iter().map(|(key, _)| format!("labels.{key}")).collect();
    let mask = if args.replace_all { FieldMask::all() } else { FieldMask::parse(paths.iter().map(String::as_str))? };
    info.labels = if args.replace_all { label::all(args.labels) } else { label::change(args.labels) };
    let info = content.update(&info, &mask).await?;
    context.output().record(&info, |info: &Info| labels(&info.labels))
}
