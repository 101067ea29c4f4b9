//! Images whose content is here: what a pull does after everything has arrived.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use windlass_core::gc::Deletion;
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::remote::{Body, ByteRange, Fetcher};
use windlass_core::{
    ChainId, Descriptor, Error, Host, Labels, Leased, Namespace, Result, ResultExt as _, image, lease,
};

use crate::fetch::Fetch;
use crate::plan::{Absent, Plan};
use crate::pull::{Pull, Unpack, keep_snapshots};
use crate::unpack::Unpacker;
use crate::{dropped, run};

/// The label of the lease of what unpacks an image that is here.
pub const LEASE_LABEL: &str = "windlass.dev/unpack";

/// Unpacks an image whose content is here, and returns the topmost snapshots.
///
/// # Errors
/// `FailedPrecondition` naming a blob that is not here; `NotFound` without an image for a platform; those of the applier and
/// the stores.
///
/// # Cancel safety
/// Dropping the call stops it. What was unpacked stays until its lease expires.
pub async fn unpack(
    host: &dyn Host,
    namespace: &Namespace,
    image: (&image::Name, &Descriptor),
    platforms: &Selection,
    snapshotter: Option<&str>,
    progress: &Tracker,
) -> Result<Vec<ChainId>> {
    let (name, target) = image;
    let lease = lease::Options {
        id: None,
        expiry: Some(lease::DEFAULT_EXPIRY),
        labels: Labels::new().with(LEASE_LABEL, name.as_str()),
    };
    let leased = Leased::acquire(host, namespace, lease).await?;
    let wanted = Wanted { unpack: Unpack::Yes, snapshotter };
    let unpacked = async {
        let (snapshotter_name, snapshots) = leased.snapshotter(snapshotter)?;
        snapshots.ready().await.context(|| format!("use snapshotter {snapshotter_name}"))?;
        let plan = plan(&leased, (name, target), platforms, &wanted, progress).await?;
        settle(&leased, &plan, &wanted, progress).await
    };
    let unpacked = unpacked.await;
    leased.release(Deletion::Background).await?;
    unpacked
}

/// What becomes of the layers.
pub(crate) struct Wanted<'a> {
    pub(crate) unpack: Unpack,
    pub(crate) snapshotter: Option<&'a str>,
}

/// Says of what is here what is wanted.
pub(crate) async fn plan(
    leased: &Leased,
    (name, target): (&image::Name, &Descriptor),
    platforms: &Selection,
    wanted: &Wanted<'_>,
    progress: &Tracker,
) -> Result<Plan> {
    let fetch = fetch(leased, progress);
    let plan =
        Plan::make(&fetch, name, target, platforms, Absent::LeaveOut).await.context(|| format!("image {name}"))?;
    if wanted.unpack == Unpack::Yes {
        plan.check_unpackable().context(|| format!("image {name}"))?;
    }
    Ok(plan)
}

/// Checks that all blobs are here, and unpacks.
pub(crate) async fn settle(
    leased: &Leased,
    plan: &Plan,
    wanted: &Wanted<'_>,
    progress: &Tracker,
) -> Result<Vec<ChainId>> {
    let fetch = fetch(leased, progress);
    let snapshotter = wanted.snapshotter.map(ToOwned::to_owned);
    let pull = Pull { unpack: wanted.unpack, snapshotter, ..Pull::default() };
    let unpacker = match wanted.unpack {
        Unpack::No => None,
        Unpack::Yes => {
            let (name, snapshotter) = leased.snapshotter(wanted.snapshotter)?;
            let places = Arc::new(Semaphore::new(pull.concurrent_unpacks.max(1)));
            Some(Unpacker::new(leased, name, snapshotter.clone(), fetch.by.clone(), places))
        }
    };
    if let Err(error) = run::run(&fetch, plan, unpacker.as_ref(), &pull).await {
        if let Some(unpacker) = &unpacker {
            for layer in plan.layers() {
                unpacker.forget(layer).await;
            }
        }
        for blob in plan.blobs.iter().filter(|blob| !blob.present) {
            fetch.discard(&blob.descriptor).await;
        }
        return Err(error.context(format!("image {}", plan.name)));
    }
    dropped::record(&*leased.content, plan).await?;
    match &unpacker {
        Some(unpacker) => keep_snapshots(&*leased.content, plan, &unpacker.name).await,
        None => Ok(Vec::new()),
    }
}

/// Returns what reads documents that are here, and has nowhere to get others from.
fn fetch(leased: &Leased, progress: &Tracker) -> Fetch {
    Fetch::new(leased, Arc::new(Nowhere), Labels::new(), "what works on an image that is here".to_owned(), progress)
}

/// Has nothing.
struct Nowhere;

#[async_trait]
impl Fetcher for Nowhere {
    async fn fetch(&self, descriptor: &Descriptor, _: ByteRange) -> Result<Body> {
        Err(Error::failed_precondition(format!(
            "{} {} is missing, which the image refers to",
            descriptor.media_type, descriptor.digest
        ))
        .hint("an archive has to have it; of an image that is here, `dist fetch NAME` brings it; `--platform` may name another one"))
    }
}
