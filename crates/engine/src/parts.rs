//! The parts that have files of their own below a root, and the one place that lists every snapshotter of ours.
//!
//! Where it is wanted, a snapshotter that cannot start is no reason for the others not to: what became of each is known, and the
//! engine works with those that did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use windlass_core::claim::Claims;
use windlass_core::plugin::Outcome;
use windlass_core::snapshot::{Name, Snapshotter};
use windlass_core::{Durability, Error, Result};
use windlass_layer::Differ;
use windlass_snapshot::erofs::Erofs;
use windlass_snapshot::native::Native;
use windlass_snapshot::overlay::Overlay;
use windlass_store::{Options, RootLock, Store};

use crate::events::Exchange;
use crate::mounter::Unseen;
use crate::{EROFS, Engine, NATIVE, OVERLAYFS, SNAPSHOTTERS};

/// Which snapshotters there are to be beside or instead of all of ours.
#[derive(Clone, Default)]
pub(crate) struct Choice {
    /// Those of ours that are left out.
    pub(crate) left_out: BTreeSet<String>,
    /// Those of somebody else, by name. One with a name of ours takes its place.
    pub(crate) foreign: BTreeMap<String, Arc<dyn Snapshotter>>,
    /// Whether the others work when one of ours cannot start.
    pub(crate) tolerant: bool,
}

/// The parts that have files of their own below a root.
pub(crate) struct Parts {
    pub(crate) store: Store,
    own: BTreeMap<&'static str, Own>,
    outcomes: BTreeMap<String, Outcome>,
}

/// A snapshotter of ours.
enum Own {
    Overlay(Overlay),
    Erofs(Erofs),
    Native(Native),
}

impl Own {
    async fn open(name: &str, directory: &Path) -> Result<Self> {
        match name {
            OVERLAYFS => Overlay::open(directory).await.map(Self::Overlay),
            EROFS => Erofs::open(directory).await.map(Self::Erofs),
            NATIVE => Native::open(directory).await.map(Self::Native),
            other => Err(Error::not_found(format!("snapshotter {other} is not here"))),
        }
    }

    fn shared(&self) -> Arc<dyn Snapshotter> {
        match self {
            Self::Overlay(overlay) => Arc::new(overlay.clone()),
            Self::Erofs(erofs) => Arc::new(erofs.clone()),
            Self::Native(native) => Arc::new(native.clone()),
        }
    }

    fn without_syncs(&self) {
        match self {
            Self::Overlay(overlay) => overlay.without_syncs(),
            Self::Erofs(erofs) => erofs.without_syncs(),
            Self::Native(native) => native.without_syncs(),
        }
    }
}

impl Parts {
    /// Opens every part. Snapshotters that cannot be opened are noted, if that is wanted.
    ///
    /// # Errors
    /// Those of opening the store, and otherwise a snapshotter.
    pub(crate) async fn open(lock: RootLock, options: Options, choice: Choice) -> Result<Self> {
        let directory = lock.root().join("snapshots");
        let Choice { left_out, foreign, tolerant } = choice;
        let (mut own, mut outcomes) = (BTreeMap::new(), BTreeMap::new());
        for name in SNAPSHOTTERS {
            if left_out.contains(name) || foreign.contains_key(name) {
                outcomes.insert(name.to_owned(), Outcome::Skipped { reason: "it is left out".to_owned() });
                continue;
            }
            match Own::open(name, &directory.join(name)).await {
                Ok(snapshotter) => {
                    if options.durability == Durability::Unsynced {
                        snapshotter.without_syncs();
                    }
                    outcomes.insert(name.to_owned(), Outcome::Ready);
                    own.insert(name, snapshotter);
                }
                Err(error) if !tolerant => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the snapshotter {name} could not be started; the others work");
                    outcomes.insert(name.to_owned(), Outcome::failed(&error));
                }
            }
        }
        outcomes.extend(foreign.keys().map(|name| (name.clone(), Outcome::Ready)));
        let mut snapshotters = foreign;
        snapshotters.extend(own.iter().map(|(name, own)| ((*name).to_owned(), own.shared())));
        Ok(Self { store: Store::open_with(lock, snapshotters, options).await?, own, outcomes })
    }

    /// Puts an engine together.
    pub(crate) fn host(&self) -> Engine {
        let usual = if rustix::process::geteuid().is_root() { OVERLAYFS } else { NATIVE };
        Engine {
            schedule: None,
            store: self.store.clone(),
            applier: Arc::new(Differ::new(windlass_layer::Options::default())),
            mounter: Arc::new(Unseen::new(self.store.root())),
            default_snapshotter: usual.to_owned(),
            exchange: Exchange::default(),
            claims: Claims::default(),
            outcomes: Arc::new(self.outcomes.clone()),
            recent: Arc::default(),
        }
    }

    /// Returns a snapshotter that restores damaged snapshots: `names` are those behind, by those that are asked for.
    pub(crate) fn restorer(&self, snapshotter: &str, names: BTreeMap<Name, Name>) -> Result<Arc<dyn Snapshotter>> {
        match self.own.get(snapshotter) {
            Some(Own::Overlay(overlay)) => Ok(Arc::new(overlay.restorer(names))),
            Some(Own::Erofs(erofs)) => Ok(Arc::new(erofs.restorer(names))),
            Some(Own::Native(native)) => Ok(Arc::new(native.restorer(names))),
            None => Err(Error::not_found(format!("snapshotter {snapshotter} is not here"))),
        }
    }
}
