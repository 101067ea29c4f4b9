//! `dist images import`: an archive becomes recorded images.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;
use windlass::transfer::import::Digests;
use windlass::transfer::{Import, Imported, Naming, Unpack, import};
use windlass_core::progress::Tracker;
use windlass_core::{Error, Result, image};

use crate::context::Context;
use crate::failure::Outcome;
use crate::interrupt::interruptible;
use crate::platforms::Platforms;
use crate::render::{digest, fields, size};
use crate::verification::Verification;
use crate::{familiar, input, label};

/// Import images from an archive: an OCI layout, or what `docker save` writes; plain, or compressed with gzip or zstd.
///
/// The archive is read once, from a file or from standard input, and everything in it is verified. The names are those
/// that it has; a tag alone is put behind the base name. When anything is wrong, nothing is imported.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "load",
    after_help = "\
Examples:
  dist images import app.tar                   what `docker save` or `skopeo copy … oci-archive:` wrote
  ssh host docker save app | dist images import -
  dist images import --base-name quay.io/x/app app.tar.gz
  dist images import --digests app.tar         under digests, too: for archives without names
  dist images import --index-name app:all --all-platforms app.tar"
)]
pub(crate) struct Args {
    /// Archive; `-` is standard input.
    #[arg(value_name = "FILE")]
    archive: PathBuf,
    /// What tags are put behind; whole names that do not begin with it are left out [default: import-DATE, and every name].
    #[arg(long, value_name = "NAME", value_parser = familiar::base)]
    base_name: Option<String>,
    /// Record images under their digests as well.
    #[arg(long)]
    digests: bool,
    /// Record under digests only what has no other name.
    #[arg(long, requires = "digests")]
    skip_digest_for_named: bool,
    /// Record everything in an OCI layout under this name.
    #[arg(long, value_name = "NAME", value_parser = familiar::name)]
    index_name: Option<image::Name>,
    #[command(flatten)]
    platforms: Platforms,
    /// Unpack with this snapshotter: overlayfs, erofs, native.
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
    /// Keep the content only, and make no snapshots.
    #[arg(long, conflicts_with = "snapshotter")]
    no_unpack: bool,
    /// Label of the images; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label::parse)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    verification: Verification,
}

impl Args {
    fn options(&self) -> Result<Import> {
        let digests = match (self.digests, self.skip_digest_for_named) {
            (false, _) => Digests::No,
            (true, false) => Digests::All,
            (true, true) => Digests::Unnamed,
        };
        let base = self.base_name.clone().unwrap_or_else(today);
        let naming = Naming {
            only_base: self.base_name.is_some(),
            digests,
            index: self.index_name.clone(),
            complete: |name| familiar::parse(name).map(|reference| reference.to_string()),
            ..Naming::new(base)
        };
        Ok(Import {
            platforms: self.platforms.selection(),
            unpack: if self.no_unpack { Unpack::No } else { Unpack::Yes },
            snapshotter: self.snapshotter.clone(),
            labels: label::all(self.labels.clone()),
            verifier: self.verification.verifier()?,
            ..Import::new(naming)
        })
    }
}

/// Returns the base of names for archives that have tags alone, as `ctr` has it.
fn today() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("import-{}", now.split('T').next().unwrap_or_default())
}

/// Imports.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let options = args.options()?;
    // Before anything is read: files get owners and devices, which takes root.
    if options.unpack == Unpack::Yes && !context.may_unpack()? {
        return Err(Error::permission_denied("unpacking the images of an archive needs root")
            .hint("run it as root, or keep the content only with --no-unpack")
            .into());
    }
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let archive = input::stream(&args.archive).await?;
        let host = context.host().await?;
        let namespace = &context.globals.namespace;
        let imported = import(&*host, namespace, archive, &options, &tracker).await;
        Ok(imported.map_err(|error| error.context(args.archive.display().to_string()))?)
    });
    let imported = context.display().during(&tracker, interruptible(work)).await?;
    context.output().record(&Report { imported: &imported }, |report| table(report.imported))
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    imported: &'a Imported,
}

fn table(imported: &Imported) -> String {
    let mut lines: Vec<(&str, String)> = imported
        .images
        .iter()
        .map(|image| ("imported", format!("{} ({})", image.name, digest(&image.target.digest))))
        .collect();
    lines.push(("read", size(imported.totals.downloaded)));
    lines.push(("reused", size(imported.totals.reused)));
    fields(&lines)
}
