//! What a plan says, done all at once: blobs are downloaded and layers unpacked while they come.
//!
//! There are places for downloads and places for unpacking. A download has its place until the blob is here; an unpacker
//! takes one only once its blob can be read, and has it until the layer is applied. So whoever has a place for unpacking
//! waits for nothing but a download that has a place too, and that waits for nothing but the network, the disk, another
//! pull that is writing the blob, and an unpacker that has a place and bytes to read: nobody waits in a circle, however
//! few places there are. A layer whose blob is not kept takes both places, that for a download first. What waits for the
//! layer below, for a blob to be verified, or for another pull to unpack a layer, has no place. A download that waits for
//! another pull to bring the blob keeps its place: whoever writes a blob has a place already, and waits for no other blob.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use windlass_core::{ChainId, Digest, Error, Result};

use crate::arrival::Arrival;
use crate::download::Download;
use crate::fetch::Fetch;
use crate::passing::Passing;
use crate::plan::{LayerPlan, Plan};
use crate::pull::{Content, Pull};
use crate::stop::stopped;
use crate::unpack::{Gate, Origin, Unpacker};

/// Fetches the blobs of a plan and unpacks its layers; the first failure ends everything.
pub(crate) async fn run(fetch: &Fetch, plan: &Plan, unpacker: Option<&Unpacker>, options: &Pull) -> Result<()> {
    let mut work: JoinSet<Result<()>> = JoinSet::new();
    let places = Arc::new(Semaphore::new(options.concurrent_downloads.max(1)));
    let arrivals = spawn_downloads(&mut work, fetch, plan, unpacker, options, &places);
    if let Some(unpacker) = unpacker {
        spawn_unpacks(&mut work, fetch, plan, unpacker, &arrivals, &places);
    }
    let mut result = Ok(());
    let mut stop = pin!(options.stop.wait());
    loop {
        let joined = tokio::select! {
            joined = work.join_next() => joined,
            () = &mut stop, if result.is_ok() => {
                result = Err(stopped());
                work.abort_all();
                continue;
            }
        };
        let Some(joined) = joined else { break };
        let finished = joined.unwrap_or_else(|error| {
            if error.is_cancelled() {
                Ok(())
            } else {
                Err(Error::internal("a task of the pull panicked").source(error))
            }
        });
        if result.is_ok() && finished.is_err() {
            result = finished;
            work.abort_all();
        }
    }
    result
}

/// Starts the download of every blob that is kept and returns how each can be followed.
fn spawn_downloads(
    work: &mut JoinSet<Result<()>>,
    fetch: &Fetch,
    plan: &Plan,
    unpacker: Option<&Unpacker>,
    options: &Pull,
    places: &Arc<Semaphore>,
) -> BTreeMap<Digest, Arrival> {
    let mut arrivals = BTreeMap::new();
    for blob in &plan.blobs {
        let unpacks = unpacker.is_some() && plan.is_layer(&blob.descriptor.digest);
        if unpacks && options.content == Content::Drop && !blob.present {
            continue;
        }
        let arrival = Arrival::new(options.lead);
        arrivals.insert(blob.descriptor.digest.clone(), arrival.clone());
        let task = fetch.progress.task(blob.descriptor.ingest_ref().as_str());
        let (fetch, descriptor, places) = (fetch.clone(), blob.descriptor.clone(), places.clone());
        if plan.has_read(&descriptor.digest) && blob.present {
            arrival.is_here();
            continue;
        }
        work.spawn(async move {
            let _place = places.acquire().await.map_err(|_| Error::canceled("the pull was stopped"))?;
            let (came, gained) = (Arc::default(), Arc::default());
            let (fetch, descriptor) = (&fetch, &descriptor);
            Download { fetch, descriptor, task: &task, arrival: &arrival, came, gained }.run().await?;
            if !unpacks {
                task.finish_unless_exists();
            }
            Ok(())
        });
    }
    arrivals
}

/// Starts the unpacking of every layer.
fn spawn_unpacks(
    work: &mut JoinSet<Result<()>>,
    fetch: &Fetch,
    plan: &Plan,
    unpacker: &Unpacker,
    arrivals: &BTreeMap<Digest, Arrival>,
    places: &Arc<Semaphore>,
) {
    let mut committed: BTreeMap<ChainId, Gate> = BTreeMap::new();
    for layer in plan.layers() {
        let done = Gate::new();
        let parent = layer.parent.as_ref().and_then(|parent| committed.get(parent).cloned());
        committed.insert(layer.chain_id.clone(), done.clone());
        let passing = || {
            let (fetch, descriptor, places) = (fetch.clone(), layer.descriptor.clone(), places.clone());
            Origin::Passing(Box::new(Passing::new(fetch, descriptor, places)))
        };
        let arriving = arrivals.get(&layer.descriptor.digest).map(|arrival| Origin::Arriving(arrival.clone()));
        let origin = arriving.unwrap_or_else(passing);
        let task = fetch.progress.task(layer.descriptor.ingest_ref().as_str()).unpacking();
        let (unpacker, layer): (Unpacker, LayerPlan) = (unpacker.clone(), layer.clone());
        work.spawn(async move {
            unpacker.layer(&layer, &origin, parent.as_ref(), &task).await?;
            done.open();
            Ok(())
        });
    }
}
