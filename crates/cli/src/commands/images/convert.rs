//! `dist images convert`: an image with other layers, or of another kind, under another name.

use clap::ValueEnum;
use windlass::transfer::convert::Family;
use windlass::transfer::{Convert, Converted, convert};
use windlass_core::media_type;
use windlass_core::progress::Tracker;
use windlass_core::{Error, image};

use super::find;
use crate::context::Context;
use crate::failure::Outcome;
use crate::familiar;
use crate::interrupt::interruptible;
use crate::platforms::Platforms;
use crate::render::{count, fields};

/// Make an image with other layers, or of another kind, and record it under another name.
///
/// Config, diff ids, history and annotations stay, and so do the snapshots. An index keeps the platforms that are wanted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist images convert --compression zstd app:1 app:1-zstd
  dist images convert --oci --all-platforms app:1 app:1-oci
  dist images convert --platform linux/arm64 --uncompress app:1 app:1-arm64")]
pub(crate) struct Args {
    /// Image, by its name.
    #[arg(value_name = "SRC")]
    source: String,
    /// Name of the converted one.
    #[arg(value_name = "DST", value_parser = familiar::name)]
    destination: image::Name,
    /// Leave layers as plain tar; the same as --compression none.
    #[arg(long, conflicts_with = "compression")]
    uncompress: bool,
    /// How layers are compressed [default: as they are].
    #[arg(long, value_name = "HOW", value_enum)]
    compression: Option<Compression>,
    /// Use OCI's media types.
    #[arg(long)]
    oci: bool,
    /// Use Docker's media types.
    #[arg(long, conflicts_with = "oci")]
    docker: bool,
    #[command(flatten)]
    platforms: Platforms,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Compression {
    // Without doc comments, which would make a page of the help.
    Gzip,
    Zstd,
    None,
}

/// Converts.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let compression = match args.compression {
        None => args.uncompress.then_some(media_type::Compression::None),
        Some(Compression::Gzip) => Some(media_type::Compression::Gzip),
        Some(Compression::Zstd) => Some(media_type::Compression::Zstd),
        Some(Compression::None) => Some(media_type::Compression::None),
    };
    let family = match (args.oci, args.docker) {
        (true, _) => Some(Family::Oci),
        (false, true) => Some(Family::Docker),
        (false, false) => None,
    };
    let options = Convert { platforms: args.platforms.selection(), compression, family };
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let host = context.host().await?;
        let namespace = &context.globals.namespace;
        let source = find(&host.services(&namespace.clone().into()).await?, &args.source).await?;
        if source.name == args.destination {
            return Err(Error::invalid_argument(format!("image {} cannot become itself", source.name))
                .hint("choose another name; `dist images tag --force` moves it back")
                .into());
        }
        Ok(convert(&*host, namespace, &source, &args.destination, &options, &tracker).await?)
    });
    let converted = context.display().during(&tracker, interruptible(work)).await?;
    context.output().record(&converted, |converted: &Converted| {
        fields(&[
            ("name", converted.name.to_string()),
            ("digest", converted.target.digest.to_string()),
            ("converted", count(converted.layers, "layer")),
        ])
    })
}
