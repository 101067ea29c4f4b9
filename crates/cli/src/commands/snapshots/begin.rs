//! `dist snapshots prepare`, `view`, `commit`, `label`: snapshots by hand.

use std::path::PathBuf;

use windlass_core::Labels;
use windlass_core::field::FieldMask;
use windlass_core::snapshot::{Commit, Info, Key, Name};

use super::{Of, print_mounts};
use crate::commands::content::root;
use crate::context::Context;
use crate::failure::Outcome;
use crate::label;
use crate::render::labels;

/// Begin a writable snapshot, and print its mounts.
///
/// It stays until it is removed: `dist snapshots rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist snapshots prepare work                  an empty one
  dist snapshots prepare -t /mnt work sha256:… | sh   on an unpacked image, mounted")]
pub(crate) struct Args {
    #[command(flatten)]
    begin: Begin,
}

/// Begin a read-only snapshot, and print its mounts.
///
/// It stays until it is removed: `dist snapshots rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct ViewArgs {
    #[command(flatten)]
    begin: Begin,
}

#[derive(Debug, clap::Args)]
struct Begin {
    #[command(flatten)]
    of: Of,
    /// Key of the new snapshot.
    #[arg(value_name = "KEY")]
    key: Key,
    /// Committed snapshot to stand on; nothing when absent.
    #[arg(value_name = "PARENT")]
    parent: Option<Name>,
    /// Directory to mount on, in what is printed.
    #[arg(short = 't', long = "target", value_name = "DIR", default_value = "DIR")]
    directory: PathBuf,
    /// Label; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label::parse)]
    labels: Vec<(String, String)>,
}

/// Begins a writable one.
pub(super) async fn prepare(context: &Context, Args { begin }: Args) -> Outcome {
    let services = context.services().await?;
    let (_, snapshotter) = services.snapshotter(begin.of.snapshotter.as_deref())?;
    let mounts = snapshotter.prepare(&begin.key, begin.parent.as_ref(), kept(begin.labels)).await?;
    print_mounts(context, &mounts, &begin.directory)
}

/// Begins a read-only one.
pub(super) async fn view(context: &Context, ViewArgs { begin }: ViewArgs) -> Outcome {
    let services = context.services().await?;
    let (_, snapshotter) = services.snapshotter(begin.of.snapshotter.as_deref())?;
    let mounts = snapshotter.view(&begin.key, begin.parent.as_ref(), kept(begin.labels)).await?;
    print_mounts(context, &mounts, &begin.directory)
}

/// Turn an active snapshot into a committed one, and print its name.
///
/// Unmount it first. It stays until it is removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  dist snapshots commit changed work && dist snapshots diff changed > layer.tar.gz")]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    of: Of,
    /// Name of the committed snapshot.
    #[arg(value_name = "NAME")]
    name: Name,
    /// Active snapshot.
    #[arg(value_name = "KEY")]
    key: Key,
    /// Label; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label::parse)]
    labels: Vec<(String, String)>,
}

/// Commits.
pub(super) async fn commit(context: &Context, args: CommitArgs) -> Outcome {
    let services = context.services().await?;
    let (_, snapshotter) = services.snapshotter(args.of.snapshotter.as_deref())?;
    let commit = Commit { labels: kept(args.labels), parent: None };
    snapshotter.commit(&args.name, &args.key, commit).await?;
    context.output().name(&args.name)
}

/// Set labels of a snapshot, and print those that it then has; an empty value removes one.
#[derive(Debug, clap::Args)]
pub(crate) struct LabelArgs {
    #[command(flatten)]
    of: Of,
    /// Snapshot.
    #[arg(value_name = "KEY")]
    key: Key,
    /// Labels.
    #[arg(value_name = "KEY=VALUE", value_parser = label::parse, required = true)]
    labels: Vec<(String, String)>,
}

/// Labels.
pub(super) async fn label(context: &Context, args: LabelArgs) -> Outcome {
    let services = context.services().await?;
    let (_, snapshotter) = services.snapshotter(args.of.snapshotter.as_deref())?;
    let mut info = snapshotter.stat(&args.key).await?;
    let paths: Vec<String> = args.labels.iter().map(|(key, _)| format!("labels.{key}")).collect();
    info.labels = label::change(args.labels);
    let info = snapshotter.update(&info, &FieldMask::parse(paths.iter().map(String::as_str))?).await?;
    context.output().record(&info, |info: &Info| labels(&info.labels))
}

/// Returns labels with the one of what stays until it is deleted.
fn kept(labels: Vec<(String, String)>) -> Labels {
    let mut all = root();
    all.extend(&label::all(labels));
    all
}
