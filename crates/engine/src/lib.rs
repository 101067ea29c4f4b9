//! The Windlass engine: every part assembled in one process.
//!
//! [`Engine::open`] takes a root directory, and the engine is a [`Host`]: it hands out content, images, snapshots and
//! leases bound to a namespace. The workflows of [`transfer`] run on it as they do on a client of a daemon.
//!
//! ```no_run
//! # async fn example() -> windlass::core::Result<()> {
//! use windlass::Engine;
//!
//! let engine = Engine::open("/var/lib/windlass").await?;
//! let pulled = engine.pull("docker.io/library/redis:7").await?;
//! println!("{} is {}", pulled.name, pulled.target.digest);
//! # Ok(())
//! # }
//! ```

pub mod doctor;
pub mod events;
pub mod fsck;
mod mounter;
mod parts;
mod recover;
mod room;
pub mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use windlass_core::claim::Claims;
use windlass_core::gc::Collector;
use windlass_core::plugin::Outcome;
use windlass_core::progress::Tracker;
use windlass_core::snapshot::Snapshotter;
use windlass_core::{Durability, Host, Namespace, Reference, Result, ResultExt, Scope, Services};
use windlass_layer::Differ;
use windlass_layer::compare::Comparer;
use windlass_registry::{Options, Remote};
use windlass_store::{RootLock, Schedule, Store};
use windlass_transfer::{Pull, Pulled};

pub use windlass_core as core;
pub use windlass_layer as layer;
pub use windlass_registry as registry;
pub use windlass_snapshot::{activations, mount};
pub use windlass_store::{Collections, Elsewhere, Group, LockWait, Owner, Policy, Precedence, Sharing, Taken};
pub use windlass_transfer as transfer;

use events::Exchange;
use mounter::Unseen;
use parts::{Choice, Parts};
use room::RootRoom;

/// The snapshotter that stacks layers with overlayfs.
pub const OVERLAYFS: &str = "overlayfs";
/// The snapshotter that stacks layers as EROFS images.
pub const EROFS: &str = "erofs";
/// The snapshotter that copies.
pub const NATIVE: &str = "native";
/// Every snapshotter there is.
const SNAPSHOTTERS: [&str; 3] = [OVERLAYFS, EROFS, NATIVE];

/// Says how an engine is to be opened.
#[derive(Clone)]
pub struct Builder {
    root: PathBuf,
    lock_wait: LockWait,
    default_snapshotter: Option<String>,
    policy: Option<Policy>,
    sharing: Sharing,
    durability: Durability,
    content: Option<Elsewhere>,
    precedence: Precedence,
    layers: layer::Options,
    choice: Choice,
}

impl Builder {
    /// Says whether to wait while another process has the root; by default it is an error.
    pub fn lock_wait(mut self, wait: LockWait) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Names the snapshotter to use when none is asked for; overlayfs for root, native for anyone else.
    pub fn default_snapshotter(mut self, name: impl Into<String>) -> Self {
        self.default_snapshotter = Some(name.into());
        self
    }

    /// Collects garbage in the background for as long as the engine lives: for programs that run for long. Otherwise it
    /// is collected when somebody asks for it, and what expired while nobody had the root when it is opened.
    pub fn collect_by(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Says whether a namespace may take over content and snapshots of another one without bringing the bytes; by default
    /// it may. The label `containerd.io/namespace.shareable` of the one that has them goes before.
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Says whether what is recorded has to survive a power cut; by default it has.
    ///
    /// Without, a power cut, or a crash of the system, may lose what was done since, and leave images that are damaged. A
    /// crash of the process loses nothing. Whoever opens the root next in the same boot, with the default, makes all of it
    /// durable before anything else; in another boot he is warned, and [`fsck`] tells what is damaged.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Keeps the bytes of blobs in a content store of somebody else; records and ingests stay in the root, which says so from
    /// then on. A root that has blobs of its own is refused.
    pub fn content(mut self, elsewhere: Elsewhere) -> Self {
        self.content = Some(elsewhere);
        self
    }

    /// Takes what says whether others go before those who bring many small blobs: for programs that know of such others. By default
    /// nobody does.
    pub fn precedence(mut self, precedence: Precedence) -> Self {
        self.precedence = precedence;
        self
    }

    /// Says what may come out of a layer: how much, how many entries, and whether device nodes.
    pub fn layers(mut self, limits: layer::Options) -> Self {
        self.layers = limits;
        self
    }

    /// Leaves a snapshotter of ours out. What it keeps stays where it is, and is not seen.
    pub fn without_snapshotter(mut self, name: impl Into<String>) -> Self {
        self.choice.left_out.insert(name.into());
        self
    }

    /// Goes on without a snapshotter that cannot start: it is logged, the others work, and [`Engine::outcomes`] tells. Otherwise
    /// it is an error, because what it keeps would not be seen.
    pub fn tolerate_failures(mut self) -> Self {
        self.choice.tolerant = true;
        self
    }

    /// Takes a snapshotter of somebody else: it is seen by this name, through the engine's own records and namespaces, and
    /// what nothing refers to is collected from it. It is to be nobody else's.
    pub fn snapshotter(mut self, name: impl Into<String>, snapshotter: Arc<dyn Snapshotter>) -> Self {
        self.choice.foreign.insert(name.into(), snapshotter);
        self
    }

    /// Opens the engine.
    ///
    /// # Errors
    /// `Unavailable` when another process has the root, naming it; `PermissionDenied`; `FailedPrecondition` for a root of
    /// a newer format, and for one whose blobs are elsewhere than [`Builder::content`] says.
    pub async fn open(self) -> Result<Engine> {
        self.assemble().await.context(|| format!("open root {}", self.root.display()))
    }

    async fn assemble(&self) -> Result<Engine> {
        let lock = RootLock::acquire(&self.root, self.lock_wait).await?;
        let (sharing, durability, content) = (self.sharing, self.durability, self.content.clone());
        let options = windlass_store::Options { sharing, durability, content, precedence: self.precedence.clone() };
        let mut engine = Parts::open(lock, options, self.choice.clone()).await?.host();
        engine.applier = Arc::new(Differ::new(self.layers.clone()));
        if let Some(name) = &self.default_snapshotter {
            engine.default_snapshotter.clone_from(name);
        }
        engine.store.observe(Arc::new(events::Collected::new(engine.exchange.clone())));
        recover::interrupted_pulls(&engine).await?;
        let given_up = recover::ended_workflows(&engine).await?;
        recover::expired_leases(&engine, given_up).await?;
        // Only now: what is recovered has not expired under its hands.
        engine.schedule = self.policy.map(|policy| Arc::new(engine.store.collect_by(policy)));
        Ok(engine)
    }
}

/// Everything assembled in this process, on one root directory. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    store: Store,
    applier: Arc<Differ>,
    mounter: Arc<Unseen>,
    default_snapshotter: String,
    exchange: Exchange,
    claims: Claims,
    outcomes: Arc<BTreeMap<String, Outcome>>,
    /// Those that were asked for last. Who makes call after call asks for the same ones, and a short call would make them for a good
    /// part of its time.
    recent: Arc<Mutex<Option<Services>>>,
    // Works until it is dropped, with the last clone.
    schedule: Option<Arc<Schedule>>,
}

impl Engine {
    /// Opens the engine on a root directory, which is created when missing.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::builder(root).open().await
    }

    /// Says how to open an engine.
    pub fn builder(root: impl AsRef<Path>) -> Builder {
        Builder {
            root: root.as_ref().to_owned(),
            lock_wait: LockWait::Fail,
            default_snapshotter: None,
            policy: None,
            sharing: Sharing::default(),
            durability: Durability::default(),
            content: None,
            precedence: Precedence::default(),
            layers: layer::Options::default(),
            choice: Choice::default(),
        }
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        self.store.root()
    }

    /// Returns what became of each snapshotter when the engine was opened.
    pub fn outcomes(&self) -> &BTreeMap<String, Outcome> {
        &self.outcomes
    }

    /// Writes down in the lock of the root where this process answers, for those who find it in use; `None` when it does so
    /// no longer.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn announce(&self, address: Option<&Path>) -> Result<()> {
        self.store.announce(address)
    }

    /// Pulls an image into the default namespace, anonymously and with default options; [`transfer::pull()`] takes all of
    /// them.
    ///
    /// # Errors
    /// As [`transfer::pull()`].
    pub async fn pull(&self, reference: &str) -> Result<Pulled> {
        let reference: Reference = reference.parse()?;
        let remote = Remote::new(Options::default())?;
        transfer::pull(self, &Namespace::default(), &remote, &reference, &Pull::default(), &Tracker::new()).await
    }

    /// Carries out several mutations of a scope in one transaction: see [`Store::transact`].
    ///
    /// # Errors
    /// As [`Store::transact`].
    pub async fn transact<T: Send + 'static>(
        &self,
        scope: &Scope,
        members: impl Fn(&Group<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.store.transact(scope, members).await
    }

    /// Returns who collects garbage.
    pub fn collector(&self) -> &dyn Collector {
        &self.store
    }

    /// Returns what there is to say of the collections that are over.
    pub fn collections(&self) -> Collections {
        self.store.collections()
    }
}

#[async_trait]
impl Host for Engine {
    async fn services(&self, scope: &Scope) -> Result<Services> {
        // A clone is whole whatever panicked.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(services) = recent.as_ref().filter(|services| services.scope == *scope) {
            return Ok(services.clone());
        }
        Ok(recent.insert(self.make_services(scope)).clone())
    }
}

impl Engine {
    fn make_services(&self, scope: &Scope) -> Services {
        let quiet = Services {
            scope: scope.clone(),
            content: self.store.content(scope),
            images: self.store.images(scope),
            containers: self.store.containers(scope),
            leases: self.store.leases(&scope.namespace),
            namespaces: self.store.namespaces(),
            snapshotters: self.store.snapshotters(scope).into(),
            default_snapshotter: self.default_snapshotter.clone(),
            applier: self.applier.clone(),
            comparer: Arc::new(Comparer::new(self.store.content(scope), self.mounter.clone())),
            collector: Some(Arc::new(self.store.clone())),
            summaries: None,
            events: self.exchange.seen_from(&scope.namespace),
            room: Arc::new(RootRoom::new(self.store.root())),
            claims: self.claims.clone(),
        };
        events::emitting(quiet, &self.exchange)
    }
}
