//! The store of one root: opened once, cheap to clone, hands out the traits bound to a scope.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::runtime::Handle;
use windlass_core::gc::{Collected, Collector, Doomed, Node, Pin};
use windlass_core::snapshot::Snapshotter;
use windlass_core::{Durability, Namespace, Result, ResultExt, Scope, container, content, image, lease, namespace};

use crate::blocking::blocking;
use crate::containers::Containers;
use crate::content::{Behind, Content, Depot, Ingests};
use crate::db::Database;
use crate::disk::Disk;
use crate::elsewhere::{self, Elsewhere};
use crate::fault::Faults;
use crate::fsck::Condemned;
use crate::gc::{self, Collections, Observer, Policy, Runs, Schedule};
use crate::group::Group;
use crate::images::Images;
use crate::leases::Leases;
use crate::lock::RootLock;
use crate::namespaces::Namespaces;
use crate::precedence::Precedence;
use crate::sharing::Sharing;
use crate::snapshots::{Building, Snapshots};
use crate::turns::Turns;
use crate::unsynced;

/// What is in one root directory. Cheap to clone; the root stays locked until the last clone, and everything that was
/// handed out, is gone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// How a store is to be opened, as far as it can be chosen.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether namespaces may take over what others have.
    pub sharing: Sharing,
    /// Whether what is recorded survives a power cut.
    pub durability: Durability,
    /// Where the bytes of blobs are kept; in the root when nothing is said.
    pub content: Option<Elsewhere>,
    /// Whether somebody goes before those who bring content.
    pub precedence: Precedence,
}

/// What everything that a store hands out works on.
pub(crate) struct Shared {
    pub(crate) db: Database,
    pub(crate) depot: Depot,
    pub(crate) ingests: Ingests,
    pub(crate) snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    /// Snapshots behind the view that are being made and have no record yet.
    pub(crate) building: Building,
    /// Whoever moves the bytes of a digest or takes a snapshot's name has its turn.
    pub(crate) turns: Turns,
    /// One collection at a time.
    pub(crate) collections: Runs,
    /// Who hears what they remove.
    pub(crate) observer: OnceLock<Arc<dyn Observer>>,
    pub(crate) sharing: Sharing,
    /// Blobs whose bytes are known to be wrong.
    pub(crate) condemned: Condemned,
    pub(crate) faults: Faults,
    // Last: the root is given up when everything in it is closed.
    lock: RootLock,
}

impl Store {
    /// Opens the store in a locked root, which may be empty. The snapshotters by name, with directories of their own, are
    /// seen through the store's namespaces from here on.
    ///
    /// # Errors
    /// `FailedPrecondition` for a root of a newer format, naming it, and for one whose blobs are elsewhere than the options say;
    /// `DataLoss` for a damaged database.
    pub async fn open(lock: RootLock, snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>) -> Result<Self> {
        Self::open_with(lock, snapshotters, Options::default()).await
    }

    /// Opens the store with options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(
        lock: RootLock,
        snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
        options: Options,
    ) -> Result<Self> {
        for name in snapshotters.keys() {
            windlass_core::identifier::validate("snapshotter", name)?;
        }
        let shared = blocking(move || Shared::open(&Disk::real(), lock, snapshotters, &options)).await?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        self.shared.lock.root()
    }

    /// Writes down in the lock of the root where its owner answers: see [`RootLock::announce`].
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn announce(&self, address: Option<&Path>) -> Result<()> {
        self.shared.lock.announce(address)
    }

    /// Opens the store on a disk of the caller's choice.
    #[cfg(test)]
    pub(crate) async fn open_on(
        disk: Disk,
        lock: RootLock,
        snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
        options: Options,
    ) -> Result<Self> {
        let shared = blocking(move || Shared::open(&disk, lock, snapshotters, &options)).await?;
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns content, as seen from a scope.
    pub fn content(&self, scope: &Scope) -> Arc<dyn content::Store> {
        Arc::new(Content { shared: self.shared.clone(), scope: scope.clone() })
    }

    /// Returns the images of a scope's namespace.
    pub fn images(&self, scope: &Scope) -> Arc<dyn image::Store> {
        Arc::new(Images { shared: self.shared.clone(), scope: scope.clone() })
    }

    /// Returns the containers of a scope's namespace.
    pub fn containers(&self, scope: &Scope) -> Arc<dyn container::Store> {
        Arc::new(Containers { shared: self.shared.clone(), scope: scope.clone() })
    }

    /// Returns the leases of a namespace.
    pub fn leases(&self, namespace: &Namespace) -> Arc<dyn lease::Manager> {
        Arc::new(Leases { shared: self.shared.clone(), namespace: namespace.clone() })
    }

    /// Returns the namespaces.
    pub fn namespaces(&self) -> Arc<dyn namespace::Store> {
        Arc::new(Namespaces { shared: self.shared.clone() })
    }

    /// Returns the snapshotters, as seen from a scope.
    pub fn snapshotters(&self, scope: &Scope) -> BTreeMap<String, Arc<dyn Snapshotter>> {
        let view = |name: &String, inner: &Arc<dyn Snapshotter>| -> Arc<dyn Snapshotter> {
            Arc::new(Snapshots::new(self.shared.clone(), scope.clone(), name.clone(), inner.clone()))
        };
        self.shared.snapshotters.iter().map(|(name, inner)| (name.clone(), view(name, inner))).collect()
    }

    /// Carries out several mutations of a scope in one transaction: they are recorded together and durable when this
    /// returns, or none of them is.
    ///
    /// The members run on the thread of the database, perhaps more than once, of which the last time counts: they must not
    /// have effects of their own, nor take long, because every other writer waits.
    ///
    /// ```no_run
    /// # async fn example(store: &windlass_store::Store, image: windlass_core::image::Image) -> windlass_core::Result<()> {
    /// let scope = windlass_core::Scope::default();
    /// let old = "redis:6".parse()?;
    /// store
    ///     .transact(&scope, move |group| {
    ///         group.put_image(&image)?;
    ///         group.delete_image(&old)
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the members return, and those of the commit; `Aborted` when the error of a member that had written something
    /// was put aside. When bytes of a deleted blob cannot be removed, the group is recorded nevertheless.
    ///
    /// # Cancel safety
    /// A call that is dropped has happened, will happen, or fails unseen.
    pub async fn transact<T: Send + 'static>(
        &self,
        scope: &Scope,
        members: impl Fn(&Group<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.shared.transact(scope, None, members).await
    }

    /// Tells whether a lease has expired that no collection has taken away yet.
    pub fn has_expired_leases(&self) -> Result<bool> {
        gc::has_expired_leases(&self.shared)
    }

    /// Returns what there is to say of the collections that are over.
    pub fn collections(&self) -> Collections {
        self.shared.collections.until_now()
    }

    /// Has somebody hear what collections remove. The first one does; a later one is not heard of.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared.observer.get_or_init(|| observer);
    }

    /// Collects in the background from now on, by a policy, until the result is dropped.
    pub fn collect_by(&self, policy: Policy) -> Schedule {
        Schedule::start(&self.shared, policy)
    }
}

#[async_trait]
impl Collector for Store {
    async fn collect(&self) -> Result<Collected> {
        gc::collect(&self.shared).await
    }

    async fn plan(&self) -> Result<Vec<Doomed>> {
        gc::plan(&self.shared).await
    }

    async fn why(&self, namespace: &Namespace, object: &Node) -> Result<Option<Pin>> {
        gc::why(&self.shared, namespace, object).await
    }
}

impl Shared {
    fn open(
        disk: &Disk,
        lock: RootLock,
        snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
        options: &Options,
    ) -> Result<Self> {
        let root = lock.root();
        let open = || {
            let trust = unsynced::prepare(disk, root, options.durability)?;
            let disk = &disk.with(options.durability);
            elsewhere::require(disk, root, options.content.as_ref())?;
            // The database first: it is what refuses a root of a newer format.
            let db = Database::open(disk, root, trust)?;
            let (blobs, small, ingests) = crate::content::open(disk, root, options.precedence.clone())?;
            let depot = match &options.content {
                None => Depot::Here { blobs, small },
                Some(chosen) => {
                    elsewhere::settle(disk, root, &blobs, chosen)?;
                    Depot::Elsewhere(Behind::new(chosen.clone(), Handle::current()))
                }
            };
            Ok((db, depot, ingests))
        };
        let (db, depot, ingests) = open().context(|| format!("open the store in {}", root.display()))?;
        Ok(Self {
            db,
            depot,
            ingests,
            snapshotters,
            building: Building::default(),
            turns: Turns::default(),
            collections: Runs::default(),
            observer: OnceLock::new(),
            sharing: options.sharing,
            condemned: Condemned::default(),
            faults: Faults::default(),
            lock,
        })
    }
}
