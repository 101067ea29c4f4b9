//! Unpacking: layers onto snapshots, each while its own bytes arrive, all of them at once.
//!
//! A snapshotter that can rebase gets every layer prepared without a parent and put onto it at the commit; any other
//! gets them one on top of the other. A snapshot is committed only when its layer's blob is here with the digest that the
//! manifest lists, its diff id is the one that the config lists, and its parent is committed: until then nothing refers
//! to it.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use windlass_core::claim::{Claim, Claims};
use windlass_core::content::{Provider, ProviderExt, Store};
use windlass_core::diff::{Applied, Applier, Whiteouts};
use windlass_core::progress::{State, Task};
use windlass_core::room::{Keeps, Room, Size};
use windlass_core::snapshot::{self, Commit, Key, Mount, Snapshotter, TARGET_LABEL};
use windlass_core::{ChainId, Error, Kind, Labels, Leased, Namespace, Result, ResultExt, lease};

use crate::arrival::Arrival;
use crate::fetch::POLL;
use crate::missing;
use crate::passing::Passing;
use crate::plan::LayerPlan;
use crate::room::Amount;

/// Something that happens once and that others wait for. A failure is not announced: it ends the whole pull.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // The sender is alive as long as `self` is, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// What the unpacking of a pull needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Unpacker {
    pub(crate) content: Arc<dyn Store>,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    pub(crate) applier: Arc<dyn Applier>,
    pub(crate) lease: lease::Id,
    pub(crate) room: Arc<dyn Room>,
    /// What the snapshotter is called.
    pub(crate) name: String,
    /// How many layers are applied at once.
    pub(crate) places: Arc<Semaphore>,
    claims: Claims,
    namespace: Namespace,
    /// Who unpacks, for others who wait.
    by: Arc<str>,
}

/// Where the bytes of a layer come from.
pub(crate) enum Origin {
    /// From the content store, which they may still be on their way to.
    Arriving(Arrival),
    /// From the remote, and they are not kept.
    Passing(Box<Passing>),
}

impl Origin {
    async fn readable(&self) {
        if let Self::Arriving(arrival) = self {
            arrival.readable().await;
        }
    }

    fn round(&self) -> u64 {
        match self {
            Self::Arriving(arrival) => arrival.round(),
            Self::Passing(passing) => passing.round(),
        }
    }

    /// Waits until it is known whether what was read in a round is the blob.
    ///
    /// # Errors
    /// `DataLoss` when it is not, and never will be.
    async fn verdict(&self, round: u64) -> Result<bool> {
        match self {
            Self::Arriving(arrival) => Ok(arrival.verdict(round).await),
            Self::Passing(passing) => passing.verdict(round).await,
        }
    }
}

/// A layer that is unpacked while its blob arrives.
struct Coming<'a> {
    layer: &'a LayerPlan,
    origin: &'a Origin,
    parent: Option<&'a Gate>,
    task: &'a Task,
}

impl Coming<'_> {
    /// Waits until the blob is here with the right digest.
    ///
    /// # Errors
    /// `Aborted` when what was read in that round was not the blob.
    async fn verified(&self, round: u64) -> Result<()> {
        if self.origin.verdict(round).await? {
            return Ok(());
        }
        Err(Error::aborted(format!("the download of {} starts over", self.layer.descriptor.digest)))
    }

    async fn wait_for_parent(&self) {
        if let Some(parent) = self.parent {
            if let Some(below) = &self.layer.parent {
                self.task.set(State::Waiting { reason: format!("layer below ({})", below.0.short()) });
            }
            parent.passed().await;
        }
    }
}

/// Tells whether an error may come of bytes that were not verified yet.
fn is_of_bytes(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Aborted
            | Kind::DataLoss
            | Kind::FailedPrecondition
            | Kind::InvalidArgument
            | Kind::NotFound
            | Kind::OutOfRange
            | Kind::ResourceExhausted
            | Kind::Unknown
    )
}

/// How one layer is applied.
enum Onto<'a> {
    /// By itself, to be put onto its parent at the commit.
    Rebase,
    /// Directly onto its parent.
    Parent(Option<&'a ChainId>),
}

impl Unpacker {
    /// Makes what unpacks into a snapshotter under a lease; `by` is what others are told who wait for it.
    pub(crate) fn new(
        leased: &Leased,
        name: &str,
        snapshotter: Arc<dyn Snapshotter>,
        by: Arc<str>,
        places: Arc<Semaphore>,
    ) -> Self {
        Self {
            content: leased.content.clone(),
            snapshotter,
            applier: leased.applier.clone(),
            lease: leased.lease().clone(),
            room: leased.room.clone(),
            name: name.to_owned(),
            places,
            claims: leased.claims.clone(),
            namespace: leased.scope.namespace.clone(),
            by,
        }
    }

    /// Tells whether a stack of layers is unpacked already.
    async fn has(&self, chain_id: &ChainId) -> Result<bool> {
        match self.snapshotter.stat(snapshot::Name::from(chain_id).as_key()).await {
            Ok(info) => Ok(info.state == snapshot::State::Committed),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells whether a stack of layers is unpacked already, here or, if that is to be found out, in another namespace:
    /// it is begun as unpacking would begin it.
    pub(crate) async fn has_or_takes_over(&self, layer: &LayerPlan, take_over: bool) -> Result<bool> {
        let here = self.has(&layer.chain_id).await?;
        if here || !take_over {
            return Ok(here);
        }
        match self.prepare(layer, None).await {
            Ok(None) => Ok(true),
            Ok(Some(_)) => {
                self.forget(layer).await;
                Ok(false)
            }
            Err(error) => {
                tracing::debug!(%error, layer = %layer.descriptor.digest, "whether it is here was not found out");
                Ok(false)
            }
        }
    }

    /// Unpacks one layer while its blob arrives, and commits it once the blob is here and its parent is committed.
    pub(crate) async fn layer(
        &self,
        layer: &LayerPlan,
        origin: &Origin,
        parent: Option<&Gate>,
        task: &Task,
    ) -> Result<()> {
        origin.readable().await;
        match self.once(&Coming { layer, origin, parent, task }).await {
            Ok(()) => {
                task.set(State::Done);
                Ok(())
            }
            Err(error) => {
                let error = self.blame(layer, error).await;
                task.set(State::Failed { reason: error.to_string() });
                Err(error.context(format!("unpack {}", layer.descriptor.ingest_ref())))
            }
        }
    }

    /// Finds out whether wrong bytes are the publisher's fault, or that of the disk they lay on.
    async fn blame(&self, layer: &LayerPlan, error: Error) -> Error {
        if !error.is(Kind::DataLoss) {
            return error;
        }
        match self.content.verify(&layer.descriptor).await {
            Err(damaged) if !damaged.is(Kind::NotFound) => damaged,
            _ => error,
        }
    }

    /// Says of a full disk what is free on it, before what was half-made is removed.
    async fn explained(&self, error: Error, layer: &LayerPlan) -> Error {
        let Amount { at_least, probably } = Amount::unpacked(&layer.descriptor);
        let needs = format!("the layer needs {} at least and probably {}", Size(at_least), Size(probably));
        missing::explain(error, &*self.room, Keeps::Snapshots(&self.name), &needs).await
    }

    /// Does it unless somebody else does, who is waited for, and again when what was read turns out not to be the blob.
    async fn once(&self, coming: &Coming<'_>) -> Result<()> {
        let Coming { layer, origin, task, .. } = coming;
        let _claim = self.claim(layer, task).await;
        let rebase = self.snapshotter.capabilities().rebase && layer.parent.is_some();
        loop {
            let round = origin.round();
            let result = if rebase { self.rebased(coming, round).await } else { self.stacked(coming, round).await };
            let Err(error) = result else { return Ok(()) };
            let error = self.explained(error, layer).await;
            self.forget(layer).await;
            // Whose fault it is, is known once the blob is here with the right digest, or never will be. And where there is
            // no room for the files, the blob may find some, now that they are gone.
            if !is_of_bytes(&error) {
                return Err(error);
            }
            task.set(State::Waiting { reason: "the rest of the blob".to_owned() });
            if origin.verdict(round).await? {
                return Err(error);
            }
            tracing::debug!(%error, layer = %layer.descriptor.digest, "the layer is unpacked again");
            origin.readable().await;
        }
    }

    /// Claims the unpacking of a stack of layers; waits while somebody else does the same.
    async fn claim(&self, layer: &LayerPlan, task: &Task) -> Claim {
        let work = format!("{} snapshot {} {}", self.namespace, self.name, layer.chain_id);
        loop {
            match self.claims.claim(&*work, &*self.by, task) {
                Ok(claim) => return claim,
                Err(claimed) => task.set(State::Waiting { reason: claimed.to_string() }),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn rebased(&self, coming: &Coming<'_>, round: u64) -> Result<()> {
        let Coming { layer, .. } = coming;
        // Whether the stack is here already is asked by preparing it: the answer then is held by the lease.
        match self.fill(coming, &Onto::Rebase).await? {
            Filled::Here => return Ok(()),
            Filled::Complete => coming.verified(round).await?,
            Filled::NeedsParent { path } => {
                tracing::debug!(layer = %layer.descriptor.digest, path, "the layer is applied again, onto its parent");
                self.forget(layer).await;
                return self.stacked(coming, round).await;
            }
        }
        coming.wait_for_parent().await;
        self.commit(layer, layer.parent.as_ref()).await
    }

    async fn stacked(&self, coming: &Coming<'_>, round: u64) -> Result<()> {
        let Coming { layer, .. } = coming;
        coming.wait_for_parent().await;
        match self.fill(coming, &Onto::Parent(layer.parent.as_ref())).await? {
            Filled::Here => Ok(()),
            Filled::Complete => {
                coming.verified(round).await?;
                self.commit(layer, None).await
            }
            Filled::NeedsParent { path } => {
                Err(Error::failed_precondition(format!("{path:?} refers to a file that no layer below has")))
            }
        }
    }

    /// Prepares a snapshot and applies the layer to it, as far as it has come and then as it comes.
    async fn fill(&self, coming: &Coming<'_>, onto: &Onto<'_>) -> Result<Filled> {
        let Coming { layer, origin, task, .. } = coming;
        task.set(State::Queued);
        let _download = match origin {
            Origin::Passing(passing) => Some(passing.places.acquire().await),
            Origin::Arriving(_) => None,
        };
        // Acquiring fails only when the semaphore is closed, and nobody closes it.
        let _place = self.places.acquire().await.map_err(|_| Error::canceled("the pull was stopped"))?;
        let (parent, whiteouts) = match onto {
            Onto::Rebase => (None, Whiteouts::Overlay),
            Onto::Parent(parent) => (*parent, Whiteouts::AsMounted),
        };
        let Some(mounts) = self.prepare(layer, parent).await? else {
            if let Origin::Passing(passing) = origin {
                passing.is_needless();
            }
            return Ok(Filled::Here);
        };
        task.set(State::Unpacking { offset: 0, total: layer.descriptor.size });
        let apply = async |content: &dyn Provider| {
            self.applier.apply(content, &layer.descriptor, &mounts, whiteouts, Some(task)).await
        };
        let applied = match origin {
            Origin::Arriving(arrival) => apply(&arrival.follow(self.content.clone())).await?,
            Origin::Passing(passing) => {
                let pass = passing.begin();
                let applied = apply(&pass).await?;
                if matches!(applied, Applied::Complete { .. }) {
                    pass.verified().await?;
                }
                passing.is_settled();
                applied
            }
        };
        match applied {
            Applied::NeedsParent { path } => Ok(Filled::NeedsParent { path }),
            Applied::Complete { diff_id, .. } if diff_id == layer.diff_id => Ok(Filled::Complete),
            Applied::Complete { diff_id, .. } => Err(Error::data_loss(format!(
                "layer {} unpacks to {diff_id}, the image config lists {}",
                layer.descriptor.digest, layer.diff_id
            ))
            .coded("digest-mismatch")
            .hint("config and layer do not belong together; the publisher has to push the image again")),
        }
    }

    /// Prepares the snapshot of a layer; `None` when the committed one appeared in the meantime.
    async fn prepare(&self, layer: &LayerPlan, parent: Option<&ChainId>) -> Result<Option<Vec<Mount>>> {
        let key = self.key(layer)?;
        let parent = parent.map(snapshot::Name::from);
        let labels = Labels::new().with(TARGET_LABEL, layer.chain_id.to_string());
        match self.snapshotter.prepare(&key, parent.as_ref(), labels).await {
            Ok(mounts) => Ok(Some(mounts)),
            Err(error) if error.is(Kind::AlreadyExists) && self.has(&layer.chain_id).await? => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn commit(&self, layer: &LayerPlan, parent: Option<&ChainId>) -> Result<()> {
        let name = snapshot::Name::from(&layer.chain_id);
        let commit = Commit { labels: Labels::new(), parent: parent.map(snapshot::Name::from) };
        match self.snapshotter.commit(&name, &self.key(layer)?, commit).await {
            // Somebody else unpacked the same stack at the same time: theirs is as good.
            Err(error) if error.is(Kind::AlreadyExists) && self.has(&layer.chain_id).await? => {
                self.forget(layer).await;
                Ok(())
            }
            committed => committed,
        }
    }

    /// Removes what a layer left behind, if anything.
    pub(crate) async fn forget(&self, layer: &LayerPlan) {
        let Ok(key) = self.key(layer) else { return };
        match self.snapshotter.remove(&key).await {
            Ok(()) => {}
            Err(error) if error.is(Kind::NotFound) => {}
            // It is held by the lease alone, so garbage collection will get to it.
            Err(error) => tracing::warn!(%error, %key, "an unfinished snapshot was not removed"),
        }
    }

    /// The key of the snapshot under construction: of this pull, so that no other one can be mistaken for it.
    fn key(&self, layer: &LayerPlan) -> Result<Key> {
        format!("{KEY_PREFIX}{} {}", self.lease, layer.chain_id).parse().context(|| "name a snapshot".to_owned())
    }
}

/// What the keys of snapshots under construction begin with.
pub(crate) const KEY_PREFIX: &str = "unpack-";

/// What came of filling a snapshot.
enum Filled {
    /// The snapshot holds the layer, and the diff id is right.
    Complete,
    /// The committed snapshot is here already.
    Here,
    /// The layer has to be applied onto its parent.
    NeedsParent { path: String },
}
