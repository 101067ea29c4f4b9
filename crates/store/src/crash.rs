//! Crashes after each number of the durable orders: the world is stopped there, everything is dropped, and the store is
//! opened again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use windlass_core::content::{Commit, Expected, IngesterExt as _, ProviderExt as _};
use windlass_core::gc::{Collector as _, Deletion};
use windlass_core::snapshot::{self, Capabilities, Snapshotter};
use windlass_core::{Descriptor, Kind, Labels, Result, Scope, content};
use windlass_testkit::memory;

use crate::elsewhere::Elsewhere;
use crate::lock::{LockWait, RootLock};
use crate::store::{Options, Store};

const SNAPSHOTTER: &str = "memory";

/// A machine: its disk and what its snapshotter has on it. Processes on it come and go.
struct Machine {
    root: tempfile::TempDir,
    snapshotter: Arc<dyn Snapshotter>,
    /// The content store that has the bytes of its blobs, unless it has them itself.
    elsewhere: Option<Arc<dyn content::Store>>,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("snapshots");
        std::fs::create_dir(&directory).unwrap();
        let snapshotter = Arc::new(memory::Snapshotter::new(&directory, Capabilities { rebase: true }));
        Self { root, snapshotter, elsewhere: None }
    }

    /// Returns a machine that has its blobs, and one that keeps them elsewhere.
    fn both() -> [Self; 2] {
        [Self::new(), Self { elsewhere: Some(Arc::new(memory::Content::default())), ..Self::new() }]
    }

    /// Lets a process work on the machine, to its end.
    fn run<T>(&self, work: impl AsyncFnOnce(Store) -> T) -> T {
        runtime().block_on(async { work(self.open().await).await })
    }

    /// Lets a process work until it reaches a point, and kills it there.
    fn crash<T: Send + 'static>(
        &self,
        point: &'static str,
        work: impl FnOnce(Store) -> futures::future::BoxFuture<'static, T>,
    ) {
        let runtime = runtime();
        runtime.block_on(async {
            let store = self.open().await;
            let shared = store.shared().clone();
            shared.faults.arm(point);
            let work = tokio::spawn(work(store));
            let stopped = tokio::time::timeout(Duration::from_secs(30), shared.faults.stopped()).await;
            stopped.unwrap_or_else(|_| panic!("{point} was not reached"));
            assert!(!work.is_finished());
        });
        // Drops every task where it stands.
        runtime.shutdown_timeout(Duration::from_secs(30));
    }

    async fn open(&self) -> Store {
        let lock = RootLock::acquire(self.root.path(), LockWait::UpTo(Duration::from_secs(10))).await.unwrap();
        let snapshotters = BTreeMap::from([(SNAPSHOTTER.to_owned(), self.snapshotter.clone())]);
        let elsewhere = self.elsewhere.clone().map(|content| Elsewhere::new("other", "/run/other.sock", content));
        let options = Options { content: elsewhere, ..Options::default() };
        Store::open_with(lock, snapshotters, options).await.unwrap()
    }

    /// Returns the names of what is in a directory of the root.
    fn files(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.path().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Returns the names of the blobs that are there, wherever that is.
    fn blobs(&self) -> Vec<String> {
        let here = self.files("content/blobs/sha256");
        let Some(content) = &self.elsewhere else { return here };
        assert_eq!(here, [""; 0]);
        let list = content.list(&[]).map_ok(|info| info.digest.hex().to_owned()).try_collect();
        runtime().block_on(list).unwrap()
    }

    async fn behind(&self) -> usize {
        self.snapshotter.walk(&[]).try_collect::<Vec<_>>().await.unwrap().len()
    }
}

/// Has a case with both machines.
fn everywhere<T: Copy>(case: T) -> impl Iterator<Item = (Machine, T)> {
    Machine::both().into_iter().map(move |machine| (machine, case))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn scope() -> Scope {
    Scope::default()
}

fn snapshots(store: &Store) -> Arc<dyn Snapshotter> {
    store.snapshotters(&scope()).remove(SNAPSHOTTER).unwrap()
}

/// What is committed without an ingest on the disk, and what is not.
const SMALL: &[u8] = b"bytes that matter";
static LARGE: [u8; 3 << 20] = [b'.'; 3 << 20];

fn descriptor_of(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/vnd.oci.image.layer.v1.tar", bytes)
}

fn descriptor() -> Descriptor {
    descriptor_of(SMALL)
}

async fn commit_blob(store: Store) -> Result<()> {
    commit_bytes(store, SMALL).await
}

async fn commit_bytes(store: Store, bytes: &'static [u8]) -> Result<()> {
    let descriptor = descriptor_of(bytes);
    let mut writer = store.content(&scope()).writer(&descriptor.ingest_ref(), Expected::from(&descriptor)).await?;
    writer.write(Bytes::from_static(bytes)).await?;
    writer.commit(Commit::default()).await.map(|_| ())
}

#[test]
fn a_blob_commit_that_dies_after_any_number_is_finished_by_the_next_one() {
    for (bytes, point, recorded) in [
        (SMALL, "commit: renamed", false),
        (SMALL, "commit: recorded", true),
        (&LARGE, "commit: synced", false),
        (&LARGE, "commit: renamed", false),
        (&LARGE, "commit: recorded", true),
    ] {
        for machine in Machine::both() {
            let descriptor = descriptor_of(bytes);
            machine.crash(point, |store| Box::pin(commit_bytes(store, bytes)));
            machine.run(async |store| {
                let content = store.content(&scope());
                assert_eq!(content.info(&descriptor.digest).await.is_ok(), recorded, "{point}");
                content.write_blob(&descriptor, Bytes::from_static(bytes), Labels::new()).await.unwrap();
                assert!(content.read_all(&descriptor, 4 << 20).await.unwrap() == bytes, "{point}");
            });
            assert_eq!(machine.blobs(), [descriptor.digest.hex()], "{point}");
            assert_eq!(machine.files("content/ingest"), [""; 0], "{point}");
        }
    }
}

#[test]
fn a_blob_commit_that_dies_and_is_not_repeated_leaves_nothing_behind_a_collection() {
    for (machine, point) in ["commit: renamed", "commit: recorded"].into_iter().flat_map(everywhere) {
        machine.crash(point, |store| Box::pin(commit_blob(store)));
        machine.run(async |store| assert_eq!(store.collect().await.unwrap().blobs.count, 1, "{point}"));
        assert_eq!(machine.blobs(), [""; 0], "{point}");
    }
}

#[test]
fn a_deletion_that_dies_after_the_record_leaves_bytes_to_the_collection() {
    for machine in Machine::both() {
        machine.run(commit_blob).unwrap();
        machine.crash("delete: record removed", |store| {
            Box::pin(async move { store.content(&scope()).delete(&descriptor().digest).await })
        });
        machine.run(async |store| {
            assert!(store.content(&scope()).info(&descriptor().digest).await.unwrap_err().is(Kind::NotFound));
            assert_eq!(store.collect().await.unwrap().blobs.count, 1);
        });
    }
}

#[test]
fn a_collection_that_dies_after_any_number_is_finished_by_the_next_one() {
    for (machine, (point, contents, blobs, snapshots_left)) in [
        ("collect: marked", 1, 1, 1),
        ("collect: records removed", 0, 1, 1),
        ("collect: blobs removed", 0, 0, 1),
        ("collect: snapshots removed", 0, 0, 0),
    ]
    .into_iter()
    .flat_map(everywhere)
    {
        machine.run(async |store| {
            commit_blob(store.clone()).await.unwrap();
            commit_layer(&*snapshots(&store), "layer").await.unwrap();
        });
        machine.crash(point, |store| Box::pin(async move { store.collect().await }));
        machine.run(async |store| {
            let collected = store.collect().await.unwrap();
            let found = (collected.contents, collected.blobs.count, collected.snapshots.count);
            assert_eq!(found, (contents, blobs, snapshots_left), "{point}");
            assert_eq!(machine.behind().await, 0, "{point}");
        });
        assert_eq!(machine.blobs(), [""; 0], "{point}");
    }
}

async fn commit_layer(snapshotter: &dyn Snapshotter, name: &str) -> Result<()> {
    let key = "unpack".parse()?;
    snapshotter.prepare(&key, None, Labels::new()).await?;
    snapshotter.commit(&name.parse()?, &key, snapshot::Commit::default()).await
}

/// Does what a new owner of the root does: removes unfinished snapshots, then works.
async fn unpack_again(machine: &Machine, point: &str) {
    let store = machine.open().await;
    let view = snapshots(&store);
    assert!(view.stat(&"layer".parse().unwrap()).await.unwrap_err().is(Kind::NotFound), "{point}");
    match view.remove(&"unpack".parse().unwrap()).await {
        Err(error) if !error.is(Kind::NotFound) => panic!("{point}: {error}"),
        _ => {}
    }
    commit_layer(&*view, "layer").await.unwrap();
    // Keeps the layer, so that only what was left by the crash is garbage.
    let lease = store.leases(&scope().namespace).create(windlass_core::lease::Options::default()).await.unwrap();
    let kind = windlass_core::lease::ResourceKind::Snapshot(SNAPSHOTTER.to_owned());
    let resource = windlass_core::lease::Resource { kind, id: "layer".to_owned() };
    store.leases(&scope().namespace).add_resource(&lease.id, &resource).await.unwrap();
    store.collect().await.unwrap();
    assert_eq!(machine.behind().await, 1, "{point}");
    view.view(&"look".parse().unwrap(), Some(&"layer".parse().unwrap()), Labels::new()).await.unwrap();
    store.leases(&scope().namespace).delete(&lease.id, Deletion::Synchronous).await.unwrap();
    assert_eq!(machine.behind().await, 0, "{point}");
}

#[test]
fn a_snapshot_whose_preparation_or_commit_dies_is_invisible_and_can_be_made_again() {
    for point in ["prepare: made", "commit snapshot: committed behind"] {
        let machine = Machine::new();
        machine.crash(point, |store| Box::pin(async move { commit_layer(&*snapshots(&store), "layer").await }));
        runtime().block_on(unpack_again(&machine, point));
    }
}

#[test]
fn a_removal_that_dies_after_the_record_leaves_the_snapshot_to_the_collection() {
    let machine = Machine::new();
    machine.run(async |store| commit_layer(&*snapshots(&store), "layer").await.unwrap());
    machine.crash("remove: record removed", |store| {
        Box::pin(async move { snapshots(&store).remove(&"layer".parse().unwrap()).await })
    });
    machine.run(async |store| assert_eq!(store.collect().await.unwrap().snapshots.count, 1));
}

#[test]
fn a_snapshot_whose_maker_stopped_waiting_is_removed_once_it_is_made() {
    let machine = Machine::new();
    machine.run(async |store| {
        let (view, key) = (snapshots(&store), "given up".parse().unwrap());
        let faults = &store.shared().faults;
        faults.arm("prepare: made");
        tokio::select! {
            _ = view.prepare(&key, None, Labels::new()) => panic!("it is stopped"),
            () = faults.stopped() => {}
        }
        let mut removed = std::pin::pin!(view.remove(&key));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut removed).await;
        assert!(early.is_err(), "it waits for what was begun: {early:?}");
        faults.resume();
        removed.await.unwrap();
        assert_eq!(view.walk(&[]).try_collect::<Vec<_>>().await.unwrap(), []);
        assert_eq!(machine.behind().await, 0);
    });
}

#[test]
fn work_of_a_caller_that_stopped_waiting_is_finished() {
    let machine = Machine::new();
    machine.run(async |store| {
        let content = store.content(&scope());
        let expected = Expected::from(&descriptor());
        let mut writer = content.writer(&descriptor().ingest_ref(), expected).await.unwrap();
        writer.write(Bytes::from_static(SMALL)).await.unwrap();
        let commit = tokio::time::timeout(Duration::from_nanos(1), writer.commit(Commit::default())).await;
        drop(commit);
        // Whoever opens the ref next sees the ingest as it was or its blob, and nothing in between.
        tokio::time::timeout(Duration::from_secs(30), async {
            while content.info(&descriptor().digest).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                commit_blob(store.clone()).await.ok();
            }
        })
        .await
        .unwrap();
        assert_eq!(content.read_all(&descriptor(), 100).await.unwrap(), SMALL);
    });
}
