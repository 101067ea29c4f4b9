//! `dist push-object`: one blob or manifest that is here, without what it refers to.

use std::sync::Arc;

use windlass::transfer::push::Object;
use windlass::transfer::{self, Push};
use windlass_core::progress::Tracker;
use windlass_core::{Descriptor, Digest, Error, MediaType, Reference};

use super::push::print;
use crate::context::Context;
use crate::failure::Outcome;
use crate::familiar;
use crate::interrupt::{interruptible, within};
use crate::remote::Registries;
use crate::transfers::{Deadline, Pace};

/// Push one object that is here, without what it refers to: a blob, or a manifest under a tag.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist push-object registry.test/app sha256:…        a blob
  dist push-object registry.test/app:1 sha256:… --media-type application/vnd.oci.image.manifest.v1+json
                                                     a manifest, whose parts are there")]
pub(crate) struct Args {
    /// Where to push it.
    #[arg(help = "Where to push it: NAME[:TAG], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "REF", value_parser = familiar::parse_locator)]
    to: Reference,
    /// Object to push.
    #[arg(value_name = "DIGEST")]
    digest: Digest,
    /// What the object is; an index or a manifest goes among the manifests.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = MediaType::OCTET_STREAM,
        value_parser = |text: &str| Ok::<_, Error>(MediaType::new(text))
    )]
    media_type: MediaType,
    #[command(flatten)]
    registries: Registries,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    deadline: Deadline,
}

/// Pushes the object.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let resolver = Arc::new(args.registries.resolver(&args.to)?);
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let host = context.host().await?;
        let namespace = &context.globals.namespace;
        let services = host.services(&namespace.clone().into()).await?;
        let size = services.content.info(&args.digest).await?.size;
        let target = Descriptor::new(args.media_type.clone(), args.digest.clone(), size);
        let object = Object { target, name: None, alone: true };
        let options = args.pace.push(Push::default());
        Ok(transfer::push(&*host, namespace, resolver, &object, &args.to, &options, &tracker).await?)
    });
    let pushed = context.display().during(&tracker, interruptible(within(args.deadline.timeout(), work))).await?;
    print(context, &pushed, &[])
}
