//! Snapshots, unpacked again from their blobs. One that was not kept is fetched for that, and given up again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_core::fsck::{Finding, Kept, Problem};
use windlass_core::gc::Deletion;
use windlass_core::progress::Tracker;
use windlass_core::remote::Resolver;
use windlass_core::snapshot::{Name, Snapshotter};
use windlass_core::{ChainId, Error, Kind, Leased, Namespace, Result, lease};
use windlass_store::fsck::Placed;
use windlass_transfer::plan::LayerPlan;
use windlass_transfer::repair::{Inventory, unpack as unpack_again};

use super::blobs::{self, inventories};
use super::{Failed, note_failure};
use crate::Engine;
use crate::parts::Parts;

/// Unpacks again every committed snapshot that is damaged or lost and whose layer is known.
pub(super) async fn unpack(
    parts: &Parts,
    host: &Engine,
    findings: &[Finding],
    resolver: &dyn Resolver,
    progress: &Tracker,
    failed: &mut Failed,
) -> Result<()> {
    let mut lost: BTreeMap<(&str, &str), Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        if let Some(inner) = inner(&finding.problem) {
            lost.entry(inner).or_default().push(finding);
        }
    }
    let missing = findings.iter().any(|finding| matches!(finding.problem, Problem::SnapshotMissing { .. }));
    if lost.is_empty() && !missing {
        return Ok(());
    }
    let inventories = inventories(host).await?;
    let again = Again { host, inventories: &inventories, resolver, progress };
    for snapshotter in crate::SNAPSHOTTERS {
        let placed = parts.store.placed(snapshotter)?;
        let mut jobs: Vec<(usize, Job<'_>)> = Vec::new();
        for ((of, inner), findings) in &lost {
            if *of != snapshotter {
                continue;
            }
            match job(&inventories, &placed, inner) {
                Ok((depth, namespace, layer)) => jobs.push((depth, Job { namespace, layer, findings })),
                Err(error) => refuse(failed, findings, &error),
            }
        }
        // From the bottom up: a layer is put onto its parent.
        jobs.sort_by_key(|(depth, _)| *depth);
        let mut bad: BTreeSet<ChainId> = BTreeSet::new();
        for (_, job) in jobs {
            let restorer = parts.restorer(snapshotter, names(&placed, &job.namespace)?)?;
            // Without a way to be put onto its parent afterwards, a layer begins as a copy of it, with its damage.
            let below = job.layer.parent.as_ref().filter(|parent| bad.contains(parent));
            let done = match below.filter(|_| !restorer.capabilities().rebase) {
                Some(parent) => Err(Error::failed_precondition(format!("{parent}, below it, could not be repaired"))),
                None => again.one(&job.namespace, snapshotter, restorer, &job.layer).await,
            };
            if let Err(error) = done {
                refuse(failed, job.findings, &error);
                bad.insert(job.layer.chain_id);
            }
        }
    }
    for finding in findings {
        if let Problem::SnapshotMissing { namespace, snapshotter, key } = &finding.problem {
            note_failure(failed, finding, again.stack(namespace, snapshotter, key).await);
        }
    }
    Ok(())
}

/// One layer to be unpacked again.
struct Job<'a> {
    namespace: Namespace,
    layer: LayerPlan,
    findings: &'a [&'a Finding],
}

/// Returns snapshotter and name there of a committed snapshot that is to be unpacked again.
fn inner(problem: &Problem) -> Option<(&str, &str)> {
    match problem {
        Problem::SnapshotLost { state: Kept::Committed, snapshotter, inner, .. }
        | Problem::DirectoryMissing { state: Kept::Committed, snapshotter, inner, .. }
        | Problem::TreeChanged { snapshotter, inner, .. }
        | Problem::InnerParentMissing { snapshotter, parent: inner, .. } => Some((snapshotter, inner)),
        _ => None,
    }
}

fn refuse(failed: &mut Failed, findings: &[&Finding], error: &Error) {
    for finding in findings {
        let again = Error::new(error.kind(), error.to_string());
        let again = match error.hint_text() {
            Some(hint) => again.hint(hint),
            None => again,
        };
        note_failure(failed, finding, Err(again));
    }
}

/// Finds the layer that a snapshot was made of, how deep in its stack it is, and a namespace that has both.
fn job(
    inventories: &BTreeMap<Namespace, Inventory>,
    placed: &[Placed],
    inner: &str,
) -> Result<(usize, Namespace, LayerPlan)> {
    for record in placed.iter().filter(|record| record.inner.as_str() == inner) {
        let (Some(inventory), Ok(chain)) = (inventories.get(&record.namespace), record.key.as_str().parse::<ChainId>())
        else {
            continue;
        };
        let Some(stack) = inventory.stack(&chain) else { continue };
        if let Some(layer) = stack.last() {
            return Ok((stack.len(), record.namespace.clone(), layer.clone()));
        }
    }
    Err(Error::not_found(format!("no image says which layer {inner} was made of"))
        .hint("remove it with `dist snapshots rm`, those on it first"))
}

/// Returns the names in the snapshotter by those in a namespace.
fn names(placed: &[Placed], namespace: &Namespace) -> Result<BTreeMap<Name, Name>> {
    let of = placed.iter().filter(|record| record.namespace == *namespace);
    of.map(|record| Ok((record.key.as_str().parse()?, record.inner.as_str().parse()?))).collect()
}

/// What layers are unpacked again with.
struct Again<'a> {
    host: &'a Engine,
    inventories: &'a BTreeMap<Namespace, Inventory>,
    resolver: &'a dyn Resolver,
    progress: &'a Tracker,
}

impl Again<'_> {
    async fn one(
        &self,
        namespace: &Namespace,
        name: &str,
        restorer: Arc<dyn Snapshotter>,
        layer: &LayerPlan,
    ) -> Result<()> {
        let leased = self.lease(namespace).await?;
        let unpacked = self.layer(&leased, name, restorer, layer).await;
        leased.release(Deletion::Background).await?;
        unpacked
    }

    /// Unpacks what is not here of a stack, through the namespace's own view.
    async fn stack(&self, namespace: &Namespace, snapshotter: &str, key: &str) -> Result<()> {
        let chain: ChainId = key.parse()?;
        let layers = self.inventories.get(namespace).and_then(|inventory| inventory.stack(&chain));
        let layers = layers.ok_or_else(|| Error::not_found(format!("no image says which layers {key} was made of")))?;
        let leased = self.lease(namespace).await?;
        let mut unpacked = Ok(());
        let mut seen = BTreeSet::new();
        for layer in layers.iter().filter(|layer| seen.insert(layer.chain_id.clone())) {
            let (name, view) = leased.snapshotter(Some(snapshotter))?;
            // What is unpacked needs no blob.
            if view.stat(&layer.chain_id.to_string().parse()?).await.is_ok() {
                continue;
            }
            unpacked = self.layer(&leased, name, view.clone(), layer).await;
            if unpacked.is_err() {
                break;
            }
        }
        leased.release(Deletion::Background).await?;
        unpacked
    }

    async fn layer(&self, leased: &Leased, name: &str, into: Arc<dyn Snapshotter>, layer: &LayerPlan) -> Result<()> {
        let digest = &layer.descriptor.digest;
        let is_here = match leased.content.info(digest).await {
            Err(error) if error.is(Kind::NotFound) => false,
            info => info.map(|_| true)?,
        };
        if is_here {
            return unpack_again(leased, name, into, layer, self.progress).await;
        }
        blobs::bring(self.host, self.inventories, leased, &layer.descriptor, self.resolver, self.progress).await?;
        let unpacked = unpack_again(leased, name, into, layer, self.progress).await;
        leased.content.delete(digest).await?;
        unpacked
    }

    async fn lease(&self, namespace: &Namespace) -> Result<Leased> {
        let options = lease::Options { expiry: Some(lease::DEFAULT_EXPIRY), ..lease::Options::default() };
        Leased::acquire(self.host, namespace, options).await
    }
}
