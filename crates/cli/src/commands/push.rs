//! `dist push`: an image that is here goes to a registry, or into a directory.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use windlass::registry::PassedOver;
use windlass::transfer::push::{Missing, Object};
use windlass::transfer::{self, Push, Pushed};
use windlass_core::content::{ProviderExt as _, Store};
use windlass_core::document::{MAX_MANIFEST_SIZE, Root};
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::{Descriptor, Digest, MediaType, Platform, Reference, Result, Services};

use super::images::find;
use super::pull::failing;
use crate::context::Context;
use crate::credentials::User;
use crate::failure::Outcome;
use crate::familiar;
use crate::interrupt::{interruptible, within};
use crate::remote::Hosts;
use crate::render::{fields, size};
use crate::transfers::{Deadline, Pace, count};

/// Push an image to a registry, or into a directory in OCI layout.
///
/// What the registry has is not sent, and what it has in another repository it is asked to take over. The tag points at the
/// image only when all of it is there. An interrupted push sends what is missing when it is run again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist push registry.test/app:1                what is recorded under that name
  dist push registry.test/app:1 app:1          another image, by its name
  dist push registry.test/app:1 sha256:…       any index or manifest that is here
  dist push --platform linux/amd64 reg.test/x  one platform, without the index
  dist push --fetch-missing registry.test/x    what is not here is streamed from where it came
  dist push oci:./layout:1 app:1               into a directory")]
pub(crate) struct Args {
    /// Where to push it.
    #[arg(help = "Where to push it: NAME[:TAG], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "REF", value_parser = familiar::parse)]
    to: Reference,
    /// Image to push, by its name, or a digest; without it, the image of the same name.
    #[arg(value_name = "LOCAL")]
    local: Option<String>,
    #[command(flatten)]
    what: What,
    /// Stream what is not here from where it came, and not only layers that were dropped.
    #[arg(long)]
    fetch_missing: bool,
    #[command(flatten)]
    user: User,
}

/// What is pushed or copied of an image, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct What {
    /// Platform, such as linux/arm64; may be given again [default: all of them].
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// Leave out layers that may not be passed on.
    #[arg(long)]
    skip_non_distributable: bool,
    /// How many blobs are uploaded at once.
    #[arg(
        long,
        value_name = "COUNT",
        env = "DIST_MAX_CONCURRENT_UPLOADS",
        hide_env_values = true,
        default_value_t = Push::default().concurrent_uploads,
        value_parser = count
    )]
    max_concurrent_uploads: usize,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    pub(crate) deadline: Deadline,
}

impl What {
    /// Returns what the workflow is told.
    pub(crate) fn options(&self) -> Push {
        self.pace.push(Push {
            platforms: match self.platforms.as_slice() {
                [] => Selection::All,
                platforms => Selection::Best(platforms.to_vec()),
            },
            concurrent_uploads: self.max_concurrent_uploads,
            skip_non_distributable: self.skip_non_distributable,
            ..Push::default()
        })
    }
}

/// Pushes.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let missing = if args.fetch_missing { Missing::Fetch } else { Missing::default() };
    let options = Push { missing, ..args.what.options() };
    let resolver = Arc::new(args.what.hosts.resolver_for(&args.to, &args.user)?);
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let host = context.host().await?;
        let namespace = &context.globals.namespace;
        let services = host.services(&namespace.clone().into()).await?;
        let name = args.to.to_string();
        let object = object(&services, args.local.as_deref().unwrap_or(&name)).await?;
        let pushed = transfer::push(&*host, namespace, resolver.clone(), &object, &args.to, &options, &tracker).await?;
        Ok((pushed, resolver.passed_over()))
    });
    let (pushed, passed_over) =
        context.display().during(&tracker, interruptible(within(args.what.deadline.timeout(), work))).await?;
    print(context, &pushed, &passed_over)
}

/// Finds what is to be pushed: an image by its name, or an index or a manifest by its digest.
async fn object(services: &Services, text: &str) -> Result<Object> {
    let Ok(digest) = text.parse::<Digest>() else {
        return Ok(Object::from(&find(services, text).await?));
    };
    let target = manifest_of(&*services.content, &digest).await?;
    Ok(Object { target, name: None, alone: false })
}

/// Describes an index or a manifest that is here and known only by its digest.
///
/// # Errors
/// `InvalidArgument` for a blob that is neither.
async fn manifest_of(content: &dyn Store, digest: &Digest) -> Result<Descriptor> {
    let size = content.info(digest).await?.size;
    let unknown = Descriptor::new(MediaType::OCTET_STREAM, digest.clone(), size);
    let bytes = content.read_all(&unknown, MAX_MANIFEST_SIZE).await?;
    let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let own = document.get("mediaType").and_then(Value::as_str).map(MediaType::new);
    let media_type = own.unwrap_or_else(|| {
        MediaType::new(if document.get("manifests").is_some() { MediaType::OCI_INDEX } else { MediaType::OCI_MANIFEST })
    });
    let descriptor = Descriptor { media_type, ..unknown };
    Root::parse(&descriptor, &bytes).map_err(|error| error.hint("`dist push-object` pushes a blob"))?;
    Ok(descriptor)
}

/// What a push or a copy says when it is done.
#[derive(Serialize)]
struct Report<'a> {
    digest: &'a Digest,
    #[serde(flatten)]
    pushed: &'a Pushed,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    passed_over: &'a [PassedOver],
}

/// Prints what came of a push or a copy.
pub(crate) fn print(context: &Context, pushed: &Pushed, passed_over: &[PassedOver]) -> Outcome {
    context.output().record(&Report { digest: &pushed.target.digest, pushed, passed_over }, |_| {
        let mut shown = vec![
            ("name", pushed.name.to_string()),
            ("digest", pushed.target.digest.to_string()),
            ("uploaded", size(pushed.uploaded)),
            ("mounted", size(pushed.mounted)),
            ("existing", size(pushed.existing)),
        ];
        shown.extend(passed_over.iter().map(failing));
        fields(&shown)
    })
}
