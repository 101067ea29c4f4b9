//! `dist pull`: resolve, plan, fetch, unpack, record.

use serde::Serialize;
use windlass::registry::{PassedOver, Remote};
use windlass::transfer::room::{Amount, Place, Room, Verdict};
use windlass::transfer::{self, Content, Plan, Pull, Pulled, Referrers, Unpack};
use windlass_core::media_type::Role;
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::{Descriptor, Digest, Error, Platform, Reference, Result};

use crate::context::Context;
use crate::failure::Outcome;
use crate::interrupt::{interruptible, within};
use crate::remote::Registries;
use crate::render::{Format, count, digest, fields, line, size};
use crate::transfers::{Transfers, content};
use crate::verification::Verification;
use crate::{by_daemon, familiar};

/// Pull an image: fetch what is missing, unpack it, and record its name.
///
/// Everything fetched is verified. What is here already, from any earlier pull or in another namespace, is not
/// downloaded again. An interrupted pull continues where it stopped when it is run again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist pull redis                              docker.io/library/redis:latest for this machine
  dist pull --platform linux/arm64 redis:7     for another platform
  dist pull --no-unpack quay.io/x/app:1        content only; needs no root
  dist pull --plan redis                       what would be done
  dist pull --content drop redis               without the compressed layers
  dist pull --plain-http registry.test:5000/x  without TLS (loopback hosts need no flag)
  dist pull oci:./layout:latest                from a directory in OCI layout")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Unpack with this snapshotter: overlayfs, erofs, native.
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
    /// Keep the layers' blobs only, and make no snapshots.
    #[arg(long, conflicts_with = "snapshotter")]
    no_unpack: bool,
    /// What becomes of the compressed bytes of layers: keep them, or drop those of layers that are unpacked, which saves the
    /// space and the writing; `dist fetch` brings them back when they are needed [default: keep, or what the daemon is
    /// configured for].
    #[arg(long, value_name = "WHAT", env = "DIST_CONTENT", hide_env_values = true, value_parser = content)]
    content: Option<Content>,
    /// Print what a pull would do, and stop.
    #[arg(long)]
    plan: bool,
}

/// What is wanted, and of where.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// Image to bring here.
    #[arg(help = "Image to bring here: NAME[:TAG][@DIGEST], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "REF", value_parser = familiar::parse)]
    pub(crate) reference: Reference,
    /// Platform, such as linux/arm64; may be given again [default: this machine's].
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// Every platform there is.
    #[arg(long, conflicts_with = "platforms")]
    all_platforms: bool,
    /// Try although too little space seems to be free.
    #[arg(long)]
    pub(crate) ignore_space: bool,
    /// Bring what is attached to the image, too: signatures, lists of parts; all of it, or that of some types.
    #[arg(
        long,
        value_name = "TYPE,…",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = attached
    )]
    pub(crate) with_referrers: Option<Referrers>,
    #[command(flatten)]
    pub(crate) registries: Registries,
    #[command(flatten)]
    pub(crate) transfers: Transfers,
    #[command(flatten)]
    pub(crate) verification: Verification,
}

impl Source {
    /// Makes the resolver of the reference.
    pub(crate) fn resolver(&self) -> Result<Remote> {
        let (per_host, patience) = (self.transfers.per_host(), self.transfers.rate_limit_wait());
        self.registries.resolver_with(&self.reference, per_host, patience)
    }

    /// Returns the platforms to bring.
    pub(crate) fn selection(&self) -> Selection {
        match self.platforms.as_slice() {
            _ if self.all_platforms => Selection::All,
            [] => Selection::default(),
            platforms => Selection::Best(platforms.to_vec()),
        }
    }
}

/// Reads which artifacts are wanted: those of the types, all when none is named.
fn attached(text: &str) -> Result<Referrers> {
    if text.is_empty() {
        return Ok(Referrers::All);
    }
    let kinds: Vec<String> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    if kinds.iter().any(String::is_empty) {
        return Err(Error::invalid_argument(format!("{text:?} is not a list of types"))
            .hint("types stand between commas; without any, everything that is attached is brought"));
    }
    Ok(Referrers::Of(kinds))
}

/// Pulls, or says what a pull would do.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let unpack = if args.no_unpack { Unpack::No } else { Unpack::Yes };
    // Before anything is downloaded: files get owners and devices, which takes root.
    if unpack == Unpack::Yes && !args.plan && !context.may_unpack()? {
        let error = Error::permission_denied(format!("unpacking {} needs root", args.source.reference));
        return Err(error
            .hint("run it as root, or keep the content only: `dist pull --no-unpack` or `dist fetch`")
            .into());
    }
    let options = Pull {
        platforms: args.source.selection(),
        unpack,
        snapshotter: args.snapshotter,
        ignore_space: args.source.ignore_space,
        content: args.content.unwrap_or_default(),
        verifier: args.source.verification.verifier()?,
        referrers: args.source.with_referrers.clone().unwrap_or_default(),
        ..args.source.transfers.pull()
    };
    if args.plan {
        return plan(context, &args.source, &options).await;
    }
    pull(context, &args.source, &options, args.content.map(|content| content == Content::Keep)).await
}

async fn pull(context: &Context, source: &Source, options: &Pull, keep_layers: Option<bool>) -> Outcome {
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let place = context.place().await?;
        let namespace = &context.globals.namespace;
        if let Some(transfers) = by_daemon::transfers(&place, source).await? {
            let ask = by_daemon::Ask { namespace, source, options, keep_layers, fetch: false };
            return Ok(by_daemon::pull(&transfers, ask, &tracker).await?);
        }
        let resolver = source.resolver()?;
        let pulled = transfer::pull(place.host(), namespace, &resolver, &source.reference, options, &tracker).await?;
        Ok((pulled, resolver.passed_over()))
    });
    let (pulled, passed_over) =
        context.display().during(&tracker, interruptible(within(source.transfers.timeout(), work))).await?;
    print_pulled(context, &pulled, &passed_over)
}

async fn plan(context: &Context, source: &Source, options: &Pull) -> Outcome {
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let resolver = source.resolver()?;
        let host = context.host().await?;
        let namespace = &context.globals.namespace;
        Ok(transfer::plan(&*host, namespace, &resolver, &source.reference, options, &tracker).await?)
    });
    let plan = context.display().during(&tracker, interruptible(within(source.transfers.timeout(), work))).await?;
    print_plan(context, &plan)
}

/// What a pull or a fetch says when it is done.
#[derive(Serialize)]
struct Report<'a> {
    digest: &'a Digest,
    #[serde(flatten)]
    pulled: &'a Pulled,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    passed_over: &'a [PassedOver],
}

/// Says which host failed, although everything came of another one.
pub(crate) fn failing(passed_over: &PassedOver) -> (&'static str, String) {
    let PassedOver { attempt, times, .. } = passed_over;
    let often = if *times > 1 { format!(" ({times} times)") } else { String::new() };
    ("failing", format!("{attempt}{often}"))
}

/// Prints what came of a pull or a fetch.
pub(crate) fn print_pulled(context: &Context, pulled: &Pulled, passed_over: &[PassedOver]) -> Outcome {
    context.output().record(&Report { digest: &pulled.target.digest, pulled, passed_over }, |_| {
        let mut shown = vec![("name", pulled.name.to_string()), ("digest", pulled.target.digest.to_string())];
        // Whoever wonders where its root filesystem is reads that there is none.
        shown.extend(pulled.artifacts.iter().map(|kind| ("artifact", format!("{kind}, kept as it is"))));
        shown.push(("downloaded", size(pulled.totals.downloaded)));
        shown.push(("reused", size(pulled.totals.reused)));
        shown.extend(passed_over.iter().map(failing));
        fields(&shown)
    })
}

/// One blob of a plan, as a row.
#[derive(Serialize)]
struct Row<'a> {
    blob: &'a Descriptor,
    state: &'static str,
}

fn print_plan(context: &Context, plan: &Plan) -> Outcome {
    let output = context.output();
    if output.format == Format::Json {
        return output.record(plan, |_| String::new());
    }
    let images = plan.images.iter().map(|image| {
        let platform = image.platform.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        let kind = match &image.artifact_type {
            Some(kind) => format!("artifact {kind}"),
            None => count(image.layers.len() as u64, "layer"),
        };
        format!("{platform} {} ({kind})", digest(&image.manifest.digest))
    });
    let total: u64 = plan.blobs.iter().map(|blob| blob.descriptor.size).sum();
    let missing = plan.missing_bytes();
    let mut shown = vec![
        ("name", plan.name.to_string()),
        ("digest", plan.target.digest.to_string()),
        ("images", images.collect::<Vec<_>>().join(", ")),
        ("download", format!("{} of {}", size(missing), size(total))),
    ];
    shown.extend(plan.room.iter().flat_map(room));
    line(&fields(&shown))?;
    for attached in &plan.attached {
        line(&format!("attached  {} to {}", digest(&attached.manifest.digest), digest(&attached.subject)))?;
    }
    let mut list = output.list(["BLOB", "DIGEST", "SIZE", "STATE"]);
    for blob in &plan.blobs {
        let state = if blob.present { "present" } else { "missing" };
        list.push(&Row { blob: &blob.descriptor, state }, |row| {
            [role(row.blob), row.blob.digest.to_string(), size(row.blob.size), row.state.to_owned()]
        })?;
    }
    list.finish()
}

/// Says what a pull needs and what is free, filesystem by filesystem.
fn room(room: &Room) -> Vec<(&'static str, String)> {
    let place = |place: &Place| {
        let says = match place.verdict() {
            Verdict::TooLittle => ": too little",
            Verdict::Tight => ": it may become full",
            Verdict::Fits | Verdict::Unknown => "",
        };
        let (needed, free) = (amount(place.needs_bytes), size(place.free.bytes));
        ("room", format!("{needed} needed, {free} free on {}{says}", place.free.filesystem))
    };
    std::iter::once(("unpack", amount(room.unpacked))).chain(room.places.iter().map(place)).collect()
}

fn amount(amount: Amount) -> String {
    let Amount { at_least, probably } = amount;
    if at_least == probably { size(at_least) } else { format!("{} to {}", size(at_least), size(probably)) }
}

/// Returns what a blob is within an image.
pub(crate) fn role(descriptor: &Descriptor) -> String {
    match descriptor.media_type.role() {
        Role::Index => "index".to_owned(),
        Role::Manifest | Role::Schema1 => "manifest".to_owned(),
        Role::Config => "config".to_owned(),
        Role::Layer(_) => "layer".to_owned(),
        Role::Opaque => descriptor.media_type.to_string(),
    }
}
