//! `dist snapshots unpack`: the layers of an image that is here become snapshots.

use futures::TryStreamExt as _;
use windlass::transfer::present::unpack;
use windlass_core::image::Image;
use windlass_core::progress::Tracker;
use windlass_core::{Digest, Error, Result, Services};

use super::Of;
use crate::commands::images::find;
use crate::context::Context;
use crate::failure::Outcome;
use crate::interrupt::interruptible;
use crate::platforms::Platforms;

/// Unpack an image whose content is here, and print the names of the topmost snapshots.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist snapshots unpack redis
  dist snapshots unpack --snapshotter erofs redis")]
pub(crate) struct Args {
    #[command(flatten)]
    of: Of,
    /// Image, by its name or by the digest that it points at.
    #[arg(value_name = "REF|DIGEST")]
    image: String,
    #[command(flatten)]
    platforms: Platforms,
}

/// Unpacks.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let host = context.host().await?;
        let namespace = &context.globals.namespace;
        let services = host.services(&namespace.clone().into()).await?;
        let image = image(&services, &args.image).await?;
        let (snapshotter, selection) = (args.of.snapshotter.as_deref(), args.platforms.selection());
        let image = (&image.name, &image.target);
        Ok(unpack(&*host, namespace, image, &selection, snapshotter, &tracker).await?)
    });
    let snapshots = context.display().during(&tracker, interruptible(work)).await?;
    let mut names = context.output().names();
    for snapshot in &snapshots {
        names.push(snapshot)?;
    }
    names.finish()
}

/// Finds an image by its name, or by what it points at.
async fn image(services: &Services, text: &str) -> Result<Image> {
    let Ok(digest) = text.parse::<Digest>() else { return find(services, text).await };
    let filter = format!("target.digest=={digest}").parse()?;
    let mut images = services.images.list(std::slice::from_ref(&filter));
    let found = images.try_next().await?;
    found.ok_or_else(|| {
        Error::not_found(format!("no image points at {digest}")).hint("`dist images ls` lists those that are here")
    })
}
