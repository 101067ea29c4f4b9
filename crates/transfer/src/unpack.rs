//! Unpacking: layers onto snapshots, each as soon as its own bytes are here, all of them at once.
//!
//! A snapshotter that can rebase gets every layer prepared without a parent and put onto it at the commit; any other
//! gets them one on top of the other. A snapshot is committed only when the layer's diff id is the one that the config
//! lists and its parent is committed: until then nothing refers to it.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use windlass_core::content::{ProviderExt, Store};
use windlass_core::diff::{Applied, Applier, Whiteouts};
use windlass_core::progress::{State, Task};
use windlass_core::room::{Keeps, Room, Size};
use windlass_core::snapshot::{self, Commit, Key, Mount, Snapshotter, TARGET_LABEL};
use windlass_core::{ChainId, Error, Kind, Labels, Result, ResultExt, lease};

use crate::missing;
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
}

/// How one layer is applied.
enum Onto<'a> {
    /// By itself, to be put onto its parent at the commit.
    Rebase,
    /// Directly onto its parent.
    Parent(Option<&'a ChainId>),
}

impl Unpacker {
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

    /// Unpacks one layer once its blob is here, and commits it once its parent is committed.
    pub(crate) async fn layer(
        &self,
        layer: &LayerPlan,
        fetched: &Gate,
        parent: Option<&Gate>,
        task: &Task,
    ) -> Result<()> {
        // Whether the stack is here already is asked by preparing it: the answer then is held by the lease.
        fetched.passed().await;
        let rebase = self.snapshotter.capabilities().rebase && layer.parent.is_some();
        let result =
            if rebase { self.rebased(layer, parent, task).await } else { self.stacked(layer, parent, task).await };
        match result {
            Ok(()) => {
                task.set(State::Done);
                Ok(())
            }
            Err(error) => {
                let error = self.explained(error, layer).await;
                self.forget(layer).await;
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
        self.content.verify(&layer.descriptor).await.err().unwrap_or(error)
    }

    /// Says of a full disk what is free on it, before what was half-made is removed.
    async fn explained(&self, error: Error, layer: &LayerPlan) -> Error {
        let Amount { at_least, probably } = Amount::unpacked(&layer.descriptor);
        let needs = format!("the layer needs {} at least and probably {}", Size(at_least), Size(probably));
        missing::explain(error, &*self.room, Keeps::Snapshots(&self.name), &needs).await
    }

    async fn rebased(&self, layer: &LayerPlan, parent: Option<&Gate>, task: &Task) -> Result<()> {
        match self.fill(layer, &Onto::Rebase, task).await? {
            Filled::Here => return Ok(()),
            Filled::Complete => {}
            Filled::NeedsParent { path } => {
                tracing::debug!(layer = %layer.descriptor.digest, path, "the layer is applied again, onto its parent");
                self.forget(layer).await;
                return self.stacked(layer, parent, task).await;
            }
        }
        self.wait_for(parent, layer, task).await;
        self.commit(layer, layer.parent.as_ref()).await
    }

    async fn stacked(&self, layer: &LayerPlan, parent: Option<&Gate>, task: &Task) -> Result<()> {
        self.wait_for(parent, layer, task).await;
        match self.fill(layer, &Onto::Parent(layer.parent.as_ref()), task).await? {
            Filled::Here => Ok(()),
            Filled::Complete => self.commit(layer, None).await,
            Filled::NeedsParent { path } => {
                Err(Error::failed_precondition(format!("{path:?} refers to a file that no layer below has")))
            }
        }
    }

    async fn wait_for(&self, parent: Option<&Gate>, layer: &LayerPlan, task: &Task) {
        if let Some(parent) = parent {
            if let Some(below) = &layer.parent {
                task.set(State::Waiting { reason: format!("layer below ({})", below.0.short()) });
            }
            parent.passed().await;
        }
    }

    /// Prepares a snapshot and applies the layer to it.
    async fn fill(&self, layer: &LayerPlan, onto: &Onto<'_>, task: &Task) -> Result<Filled> {
        // Acquiring fails only when the semaphore is closed, and nobody closes it.
        let _place = self.places.acquire().await.map_err(|_| Error::canceled("the pull was stopped"))?;
        let (parent, whiteouts) = match onto {
            Onto::Rebase => (None, Whiteouts::Overlay),
            Onto::Parent(parent) => (*parent, Whiteouts::AsMounted),
        };
        let Some(mounts) = self.prepare(layer, parent).await? else { return Ok(Filled::Here) };
        task.set(State::Unpacking { offset: 0, total: layer.descriptor.size });
        let applied = self.applier.apply(&*self.content, &layer.descriptor, &mounts, whiteouts, Some(task)).await?;
        match applied {
            Applied::NeedsParent { path } => Ok(Filled::NeedsParent { path }),
            Applied::Complete { diff_id, .. } if diff_id == layer.diff_id => Ok(Filled::Complete),
            Applied::Complete { diff_id, .. } => Err(Error::data_loss(format!(
                "layer {} unpacks to {diff_id}, the image config lists {}",
                layer.descriptor.digest, layer.diff_id
            ))
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
