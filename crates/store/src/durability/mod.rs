//! Proof of law 4: nothing recorded points at bytes that a power cut can lose.
//!
//! [`workloads`] are what is done to a store. [`power`] cuts the power after every operation of each and looks at what the
//! disk may have then; [`nth`] lets every operation of each fail. `docs/format/durability.md` says what is proved by that
//! and how to replay a failure.

mod behind;
mod nth;

mod power;
mod unsynced;
mod verify;
mod workloads;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass_core::Descriptor;
use windlass_core::image;
use windlass_core::lease;
use windlass_core::snapshot::{self, Snapshotter};

use crate::disk::Disk;
use crate::lock::{LockWait, RootLock};
use crate::store::{Options, Store};

/// What the snapshotter is called.
const SNAPSHOTTER: &str = "memory";

/// What a workload works on.
struct World {
    store: Store,
    facts: Facts,
}

/// What was acknowledged, with the moment when it was.
#[derive(Clone)]
struct Facts {
    all: Arc<Mutex<Vec<Acknowledged>>>,
    now: Arc<dyn Fn() -> usize + Send + Sync>,
}

/// From which moment on what is a fact about a thing; `None` while it changes.
type Acknowledged = (usize, Thing, Option<Fact>);

/// What a fact is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Blob(String),
    Image(image::Name),
    Lease(lease::Id),
    Snapshot(snapshot::Key),
}

/// What was acknowledged about a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fact {
    Blob(Descriptor),
    Target(Descriptor),
    There,
    Gone,
}

impl Facts {
    /// Begins without any; `now` tells moments.
    fn new(now: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self { all: Arc::default(), now: Arc::new(now) }
    }

    /// Returns the same facts, to be gone on with apart.
    fn again(&self) -> Self {
        Self { all: Arc::new(Mutex::new(self.all.lock().unwrap().clone())), now: self.now.clone() }
    }

    /// Notes that something was acknowledged.
    fn hold(&self, thing: Thing, fact: Fact) {
        self.all.lock().unwrap().push(((self.now)(), thing, Some(fact)));
    }

    /// Notes that something is about to change: nothing is promised until that is acknowledged.
    fn release(&self, thing: Thing) {
        self.all.lock().unwrap().push(((self.now)(), thing, None));
    }

    /// Returns what held when so many operations had happened.
    fn at(&self, moment: usize) -> BTreeMap<Thing, Fact> {
        let mut held = BTreeMap::new();
        for (since, thing, fact) in self.all.lock().unwrap().iter() {
            match fact {
                Some(fact) if *since <= moment => drop(held.insert(thing.clone(), fact.clone())),
                None if *since <= moment => drop(held.remove(thing)),
                _ => {}
            }
        }
        held
    }
}

/// Opens the store of a root on a disk.
async fn open(disk: &Disk, root: &Path, snapshotter: Arc<dyn Snapshotter>) -> windlass_core::Result<Store> {
    // What the last owner still has to write may take a moment.
    let lock = RootLock::acquire(root, LockWait::UpTo(Duration::from_secs(20))).await?;
    Store::open_on(disk.clone(), lock, BTreeMap::from([(SNAPSHOTTER.to_owned(), snapshotter)]), Options::default())
        .await
}

/// Waits until nobody has anything to write into a root any more.
async fn quiet(root: &Path) {
    drop(RootLock::acquire(root, LockWait::UpTo(Duration::from_secs(20))).await.unwrap());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Returns a number from the environment.
fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}
