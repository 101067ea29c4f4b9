//! A pull, told from the top.
//!
//! ```text
//! resolve ─► verify ─► is all of it here? ─► plan ─► fetch every blob ─────────┐
//!                                                      └─► unpack every layer ──┴─► record the name ─► release the lease
//! ```
//!
//! Everything between resolving and recording is held by a lease, and recording is the one step that makes a pull
//! visible. A pull that fails for a reason that may pass keeps what it brought, so that running it again continues; one
//! that cannot succeed gives that up, and it is collected. What earlier ones left goes only with damaged data.

use std::num::NonZeroU64;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Semaphore;
use windlass_core::content::Store;
use windlass_core::field::FieldMask;
use windlass_core::gc::{self, Deletion};
use windlass_core::image::{Image, StoreExt};
use windlass_core::platform::Selection;
use windlass_core::progress::{State, Totals, Tracker};
use windlass_core::remote::{Fetcher, Resolved, Resolver, SOURCE_LABEL};
use windlass_core::{
    ChainId, Descriptor, Error, Host, Kind, Labels, Leased, Namespace, Reference, Result, ResultExt, image, lease,
};

use crate::budget::{Budget, Budgeted, Priority};
use crate::fetch::Fetch;
use crate::parts::Parts;
use crate::plan::{Absent, Plan};
use crate::referrers::{self, Referrers};
use crate::stop::Stop;
use crate::unpack::Unpacker;
use crate::verify::{self, InRepository, Subject, Verifier};
use crate::{dropped, here, interrupted, missing, run};

/// The label of a running pull's lease: the reference that is pulled.
pub const LEASE_LABEL: &str = "windlass.dev/pull";

/// The label of the lease that keeps what an interrupted pull brought: the reference that was pulled. The next pull of it
/// goes on with it.
pub const INTERRUPTED_LABEL: &str = "windlass.dev/interrupted-pull";

/// The label that tells which pull's lease that one is filled from: as long as it exists, the filling goes on.
pub const INTERRUPTED_FROM_LABEL: &str = "windlass.dev/interrupted-pull.from";

/// What is wanted of a pull.
#[derive(Debug, Clone)]
pub struct Pull {
    /// The platforms.
    pub platforms: Selection,
    /// Whether layers become snapshots.
    pub unpack: Unpack,
    /// The snapshotter, or the host's default one.
    pub snapshotter: Option<String>,
    /// Whether the large blobs are fetched.
    pub metadata_only: bool,
    /// Whether it is tried although too little space is free, by what can be known.
    pub ignore_space: bool,
    /// How many blobs are fetched at once.
    pub concurrent_downloads: usize,
    /// How many layers are unpacked at once.
    pub concurrent_unpacks: usize,
    /// How large blobs are split.
    pub parts: Parts,
    /// What becomes of the compressed bytes of layers.
    pub content: Content,
    /// How far the download of a layer may be ahead of its unpacking, in bytes. They wait in the page cache,
    /// not in this process.
    pub lead: u64,
    /// Who is asked whether the image may be here; nobody when there is none.
    pub verifier: Option<Arc<dyn Verifier>>,
    /// What is brought along that is attached to the image.
    pub referrers: Referrers,
    /// How many bytes may come in a second, in all; any number when there is none.
    pub limit_rate: Option<NonZeroU64>,
    /// What is shared with other transfers of the process.
    pub budget: Budget,
    /// Which of those it gives way to.
    pub priority: Priority,
    /// When it is to stop: what it brought is then kept for the next one, as after an error.
    pub stop: Stop,
}

/// What becomes of the compressed bytes of layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Content {
    /// They are kept.
    #[default]
    Keep,
    /// Those of layers that are unpacked are never written down; a fetch brings them. What is here already stays.
    Drop,
}

/// Whether layers become snapshots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unpack {
    /// They do.
    #[default]
    Yes,
    /// Only their blobs are kept.
    No,
}

impl Default for Pull {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            platforms: Selection::default(),
            unpack: Unpack::default(),
            snapshotter: None,
            metadata_only: false,
            ignore_space: false,
            concurrent_downloads: 6,
            concurrent_unpacks: cores.max(2),
            parts: Parts::default(),
            content: Content::default(),
            lead: 256 << 20,
            verifier: None,
            referrers: Referrers::None,
            limit_rate: None,
            budget: Budget::default(),
            priority: Priority::default(),
            stop: Stop::default(),
        }
    }
}

impl Pull {
    /// Has what a fetcher brings come out of the budgets.
    fn budgeted(&self, inner: Arc<dyn Fetcher>) -> Arc<dyn Fetcher> {
        let budgets = [self.budget.clone(), Budget::new(self.limit_rate)];
        Arc::new(Budgeted { inner, budgets, priority: self.priority })
    }
}

/// What came of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pulled {
    /// The name that was recorded.
    pub name: image::Name,
    /// What it points at.
    pub target: Descriptor,
    /// The topmost snapshot of each image that was unpacked.
    pub snapshots: Vec<ChainId>,
    /// The types of what is no image: artifacts, which have no root filesystem and are kept as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// What was moved.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What came of a fetch: a pull without snapshots.
pub type Fetched = Pulled;

/// Brings an image here: resolves the reference, fetches what is missing, unpacks, and records the name.
///
/// # Errors
/// Those of the resolver, the fetcher, the applier and the stores, with what was attempted. `NotFound` when no image
/// fits a platform; `PermissionDenied` when a verifier refuses the image.
///
/// # Cancel safety
/// Dropping the call stops it. The name is recorded or it is not; what was fetched stays under the pull's lease, and
/// the next pull continues.
pub async fn pull(
    host: &dyn Host,
    namespace: &Namespace,
    resolver: &dyn Resolver,
    reference: &Reference,
    options: &Pull,
    progress: &Tracker,
) -> Result<Pulled> {
    let pulled = Box::pin(carry_out(host, namespace, resolver, reference, options, progress));
    pulled.await.context(|| format!("pull {reference}"))
}

/// Brings all content of an image here and records the name, without snapshots.
///
/// # Errors
/// As [`fn@pull`].
///
/// # Cancel safety
/// As [`fn@pull`].
pub async fn fetch(
    host: &dyn Host,
    namespace: &Namespace,
    resolver: &dyn Resolver,
    reference: &Reference,
    options: &Pull,
    progress: &Tracker,
) -> Result<Fetched> {
    let options = Pull { unpack: Unpack::No, ..options.clone() };
    let fetched = Box::pin(carry_out(host, namespace, resolver, reference, &options, progress));
    fetched.await.context(|| format!("fetch {reference}"))
}

/// Says what a pull would do; fetches the small blobs for that and records no image. Where there is too little room for
/// all, what other namespaces have is taken over to find out what is missing. Nothing of it is kept.
///
/// # Errors
/// As [`fn@pull`].
pub async fn plan(
    host: &dyn Host,
    namespace: &Namespace,
    resolver: &dyn Resolver,
    reference: &Reference,
    options: &Pull,
    progress: &Tracker,
) -> Result<Plan> {
    let planned = async {
        let resolved = options.stop.or(find(resolver, reference, options, progress)).await?;
        let begun = begin(host, namespace, resolver, reference, &resolved, options, progress);
        let Begun { leased, fetch } = begun.await?;
        let result = survey(&leased, &fetch, resolver, reference, &resolved, options).await;
        leased.release(Deletion::Background).await?;
        result
    };
    planned.await.context(|| format!("plan {reference}"))
}

/// Makes a plan and looks whether there is room for it.
async fn survey(
    leased: &Leased,
    fetch: &Fetch,
    resolver: &dyn Resolver,
    reference: &Reference,
    resolved: &Resolved,
    options: &Pull,
) -> Result<Plan> {
    let unpacker = unpacker(leased, fetch, options)?;
    let mut plan = make_plan(fetch, resolver, reference, resolved, options).await?;
    if !options.metadata_only {
        plan.room = Some(missing::survey(leased, fetch, &plan, unpacker.as_ref(), options.content).await?);
    }
    Ok(plan)
}

/// Finds out what is to be brought, without the large blobs.
async fn make_plan(
    fetch: &Fetch,
    resolver: &dyn Resolver,
    reference: &Reference,
    resolved: &Resolved,
    options: &Pull,
) -> Result<Plan> {
    let mut plan = Plan::make(fetch, &resolved.name, &resolved.descriptor, &options.platforms, Absent::Fetch).await?;
    referrers::add(&mut plan, fetch, resolver, reference, &options.referrers).await?;
    Ok(plan)
}

async fn carry_out(
    host: &dyn Host,
    namespace: &Namespace,
    resolver: &dyn Resolver,
    reference: &Reference,
    options: &Pull,
    progress: &Tracker,
) -> Result<Pulled> {
    let resolved = options.stop.or(find(resolver, reference, options, progress)).await?;
    if let Some(pulled) = here::find(host, namespace, reference, &resolved, options, progress).await {
        return Ok(pulled);
    }
    let Begun { leased, fetch } = begin(host, namespace, resolver, reference, &resolved, options, progress).await?;
    let ready = match options.stop.or(prepare(&leased, &fetch, resolver, reference, &resolved, options)).await {
        Ok(ready) => ready,
        // Documents are all that it brought.
        Err(error) => return Err(release(leased, error).await),
    };
    let mut earlier = Vec::new();
    let executed = execute(&leased, &fetch, reference, &ready, options, &mut earlier).await;
    settle(leased, reference, &earlier, executed).await
}

/// Finds out what the reference means, and whether that may be here.
async fn find(resolver: &dyn Resolver, reference: &Reference, options: &Pull, progress: &Tracker) -> Result<Resolved> {
    let resolved = resolve(resolver, reference, progress).await?;
    let subject = Subject { name: &reference.to_string(), descriptor: &resolved.descriptor };
    verify::check(options.verifier.as_ref(), &subject, &InRepository { resolver, reference }).await?;
    Ok(resolved)
}

/// What every workflow begins with.
struct Begun {
    leased: Leased,
    fetch: Fetch,
}

/// Takes a lease for what is brought.
async fn begin(
    host: &dyn Host,
    namespace: &Namespace,
    resolver: &dyn Resolver,
    reference: &Reference,
    resolved: &Resolved,
    options: &Pull,
    progress: &Tracker,
) -> Result<Begun> {
    let fetcher = options.budgeted(options.stop.or(resolver.fetcher(&resolved.name)).await?);
    let lease = lease::Options {
        id: None,
        expiry: Some(lease::DEFAULT_EXPIRY),
        labels: Labels::new().with(LEASE_LABEL, reference.to_string()),
    };
    let leased = Leased::acquire(host, namespace, lease).await?;
    let by = format!("the pull of {reference}");
    let fetch = Fetch { parts: options.parts, ..Fetch::new(&leased, fetcher, source_labels(reference), by, progress) };
    Ok(Begun { leased, fetch })
}

/// Returns the labels that tell where a blob came from; none of what no registry has.
pub(crate) fn source_labels(reference: &Reference) -> Labels {
    match (reference.host(), reference.repository()) {
        (Some(host), Some(repository)) => Labels::new().with(format!("{SOURCE_LABEL}{host}"), repository),
        _ => Labels::new(),
    }
}

/// Finds out what a reference means.
pub(crate) async fn resolve(resolver: &dyn Resolver, reference: &Reference, progress: &Tracker) -> Result<Resolved> {
    let task = progress.task(reference.to_string());
    task.set(State::Resolving);
    let resolved = resolver.resolve(reference).await;
    task.set(match &resolved {
        Ok(_) => State::Resolved,
        Err(error) => State::Failed { reason: error.to_string() },
    });
    resolved
}

/// Gives the lease up; when running the pull again could use what it holds, another one keeps that.
async fn settle(
    leased: Leased,
    reference: &Reference,
    earlier: &[lease::Id],
    executed: Result<Pulled>,
) -> Result<Pulled> {
    match executed {
        Ok(pulled) => {
            interrupted::give_up_fulfilled(&leased, reference).await?;
            leased.release(Deletion::Background).await?;
            Ok(pulled)
        }
        Err(error) if is_kept(&error, earlier) => {
            tell(interrupted::set_aside(leased, reference, earlier).await);
            Err(error)
        }
        Err(error) => {
            tell(interrupted::give_up(&*leased.leases, earlier).await);
            Err(release(leased, error).await)
        }
    }
}

/// Gives up all that a failed pull brought, and returns why it failed.
async fn release(leased: Leased, error: Error) -> Error {
    tell(leased.release(Deletion::Synchronous).await);
    error
}

/// Nothing comes of it but a lease that lasts longer.
fn tell(settled: Result<()>) {
    if let Err(unsettled) = settled {
        tracing::warn!(
            error = %unsettled,
            "the lease of a failed pull stays until the root is opened again, or expires by itself"
        );
    }
}

/// A pull that can succeed, as far as that can be known.
struct Ready {
    plan: Plan,
    unpacker: Option<Unpacker>,
}

/// Does everything that comes before large blobs move.
async fn prepare(
    leased: &Leased,
    fetch: &Fetch,
    resolver: &dyn Resolver,
    reference: &Reference,
    resolved: &Resolved,
    options: &Pull,
) -> Result<Ready> {
    let unpacker = unpacker(leased, fetch, options)?;
    if let Some(unpacker) = &unpacker {
        unpacker.snapshotter.ready().await.context(|| format!("use snapshotter {}", unpacker.name))?;
    }
    let plan = make_plan(fetch, resolver, reference, resolved, options).await?;
    if unpacker.is_some() {
        plan.check_unpackable()?;
    }
    if !options.metadata_only {
        let room = missing::survey(leased, fetch, &plan, unpacker.as_ref(), options.content).await?;
        match room.check() {
            Err(error) if options.ignore_space => tracing::warn!("{error}; the disk may become full"),
            checked => checked?,
        }
    }
    Ok(Ready { plan, unpacker })
}

/// Brings what is missing and records the name; `earlier` become the leases of the interrupted pulls that it goes on with.
async fn execute(
    leased: &Leased,
    fetch: &Fetch,
    reference: &Reference,
    ready: &Ready,
    options: &Pull,
    earlier: &mut Vec<lease::Id>,
) -> Result<Pulled> {
    let Ready { plan, unpacker } = ready;
    let snapshots = if options.metadata_only {
        Vec::new()
    } else {
        let unpacker = unpacker.as_ref();
        let wanted = plan.resources(unpacker.map(|unpacker| unpacker.name.as_str()));
        *earlier = interrupted::borrow(leased, reference, &wanted).await?;
        if let Err(error) = run::run(fetch, plan, unpacker, options).await {
            clean_up(fetch, plan, unpacker, is_kept(&error, earlier)).await;
            return Err(error);
        }
        dropped::record(&*leased.content, plan).await?;
        match unpacker {
            Some(unpacker) => keep_snapshots(&*leased.content, plan, &unpacker.name).await?,
            None => Vec::new(),
        }
    };
    referrers::keep(&*leased.content, plan).await?;
    leased.images.put(&Image::new(plan.name.clone(), plan.target.clone())).await?;
    let totals = fetch.progress.totals();
    let artifacts = plan.images.iter().filter_map(|image| image.artifact_type.clone()).collect();
    Ok(Pulled { name: plan.name.clone(), target: plan.target.clone(), snapshots, artifacts, totals })
}

/// Returns what unpacks; none when nothing is to be unpacked.
fn unpacker(leased: &Leased, fetch: &Fetch, options: &Pull) -> Result<Option<Unpacker>> {
    if options.unpack == Unpack::No || options.metadata_only {
        return Ok(None);
    }
    let (name, snapshotter) = leased.snapshotter(options.snapshotter.as_deref())?;
    let places = Arc::new(Semaphore::new(options.concurrent_unpacks.max(1)));
    Ok(Some(Unpacker::new(leased, name, snapshotter.clone(), fetch.by.clone(), places)))
}

/// Removes what a failed pull leaves half-made: snapshots always, ingests unless they are kept for the next one.
async fn clean_up(fetch: &Fetch, plan: &Plan, unpacker: Option<&Unpacker>, ingests_are_kept: bool) {
    if let Some(unpacker) = unpacker {
        for layer in plan.layers() {
            unpacker.forget(layer).await;
        }
    }
    if !ingests_are_kept {
        for blob in plan.blobs.iter().filter(|blob| !blob.present) {
            fetch.discard(&blob.descriptor).await;
        }
    }
}

/// Tells whether what a failed pull holds is kept. Where earlier pulls had part in it, only damaged data is a reason not
/// to: they may have been another's, and what is wrong may be put right.
fn is_kept(error: &Error, earlier: &[lease::Id]) -> bool {
    is_resumable(error) || (!earlier.is_empty() && !matches!(error.kind(), Kind::DataLoss | Kind::OutOfRange))
}

/// Tells whether running a pull again could use what it brought so far.
fn is_resumable(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Unavailable
            | Kind::DeadlineExceeded
            | Kind::ResourceExhausted
            | Kind::Canceled
            | Kind::Aborted
            | Kind::Unauthenticated
            | Kind::Unknown
    )
}

/// Has each config keep the topmost snapshot of its layers alive.
pub(crate) async fn keep_snapshots(content: &dyn Store, plan: &Plan, snapshotter: &str) -> Result<Vec<ChainId>> {
    let label = gc::snapshot_label(snapshotter);
    let mask = FieldMask::parse([format!("labels.{label}").as_str()])?;
    let mut tops = Vec::new();
    for image in &plan.images {
        let Some(top) = image.layers.last() else { continue };
        let mut info = content.info(&image.config.digest).await?;
        info.labels.set(&label, top.chain_id.to_string());
        content.update(&info, &mask).await?;
        tops.push(top.chain_id.clone());
    }
    Ok(tops)
}
