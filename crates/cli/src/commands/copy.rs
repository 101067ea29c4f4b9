//! `dist copy`: from registry to registry, past the store.

use windlass::transfer::{self, Push};
use windlass_core::Reference;
use windlass_core::progress::Tracker;

use super::push::{What, print};
use crate::context::Context;
use crate::failure::Outcome;
use crate::familiar;
use crate::interrupt::{interruptible, within};
use crate::verification::Verification;

/// Copy an image from registry to registry, or from and to a directory in OCI layout. Nothing is stored here.
///
/// Every digest is verified while the bytes pass. What the destination has is not sent; within one registry, blobs are
/// taken over and not sent either.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist copy redis:7 registry.test/redis:7       every platform
  dist copy registry.test/a:1 registry.test/b:1 within one registry: no layer is sent
  dist copy --platform linux/arm64 redis:7 registry.test/redis:7-arm64
  dist copy redis:7 oci:./layout:7              into a directory
  dist copy oci:./layout:7 registry.test/x:7    and back
  dist copy --policy policy.toml redis:7 registry.test/redis:7
                                                when the policy allows it")]
pub(crate) struct Args {
    /// Image to copy.
    #[arg(help = "Image to copy: NAME[:TAG][@DIGEST], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "FROM", value_parser = familiar::parse)]
    from: Reference,
    /// Where to copy it.
    #[arg(help = "Where to copy it: NAME[:TAG], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "TO", value_parser = familiar::parse)]
    to: Reference,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    verification: Verification,
}

/// Copies.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let resolver = args.what.hosts.resolver()?;
    let options = Push { verifier: args.verification.verifier()?, ..args.what.options() };
    let tracker = Tracker::new();
    let work = Box::pin(async { Ok(transfer::copy(&resolver, &args.from, &args.to, &options, &tracker).await?) });
    let copied = context.display().during(&tracker, interruptible(within(args.what.deadline.timeout(), work))).await?;
    print(context, &copied, &resolver.passed_over())
}
