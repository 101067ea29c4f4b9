//! What happens between the mark of a collection and its removals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use windlass_core::content::{Expected, IngesterExt as _};
use windlass_core::field::FieldMask;
use windlass_core::gc::{BREF_CONTENT, Collector as _, EXPIRE, REF_CONTENT, ROOT};
use windlass_core::image::Image;
use windlass_core::lease::{self, Resource, ResourceKind};
use windlass_core::snapshot::{self, Capabilities, Snapshotter};
use windlass_core::{Descriptor, Kind, Labels, Scope};
use windlass_testkit::memory;

use super::Collected;
use crate::lock::{LockWait, RootLock};
use crate::store::Store;

const SNAPSHOTTER: &str = "memory";

struct Fixture {
    _root: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let lock = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap();
        let directory = root.path().join("snapshots");
        std::fs::create_dir(&directory).unwrap();
        let snapshotter: Arc<dyn Snapshotter> =
            Arc::new(memory::Snapshotter::new(&directory, Capabilities { rebase: true }));
        let store = Store::open(lock, BTreeMap::from([(SNAPSHOTTER.to_owned(), snapshotter)])).await.unwrap();
        Self { _root: root, store }
    }

    /// Does something after a collection has marked and before it removes.
    async fn collect_while(&self, work: impl AsyncFnOnce()) -> Collected {
        let faults = &self.store.shared().faults;
        faults.arm("collect: marked");
        let collecting = tokio::spawn({
            let store = self.store.clone();
            async move { store.collect().await }
        });
        tokio::time::timeout(Duration::from_secs(30), faults.stopped()).await.unwrap();
        work().await;
        faults.resume();
        collecting.await.unwrap().unwrap()
    }

    /// Brings a blob that nothing refers to.
    async fn stray(&self, bytes: &'static str, labels: Labels) -> Descriptor {
        let descriptor = descriptor(bytes);
        let content = self.store.content(&Scope::default());
        content.write_blob(&descriptor, Bytes::from_static(bytes.as_bytes()), labels).await.unwrap();
        descriptor
    }

    async fn leased(&self) -> Scope {
        let lease = self.store.leases(&Scope::default().namespace).create(lease::Options::default()).await.unwrap();
        Scope { lease: Some(lease.id), ..Scope::default() }
    }

    async fn has(&self, descriptor: &Descriptor) -> bool {
        self.store.content(&Scope::default()).info(&descriptor.digest).await.is_ok()
    }
}

fn descriptor(bytes: &str) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes.as_bytes())
}

fn refers_to(descriptor: &Descriptor) -> Labels {
    Labels::new().with(REF_CONTENT, descriptor.digest.to_string())
}

#[tokio::test]
async fn an_image_that_is_created_meanwhile_keeps_its_tree() {
    let fixture = Fixture::new().await;
    let child = fixture.stray("child", Labels::new()).await;
    let parent = fixture.stray("parent", refers_to(&child)).await;
    let stray = fixture.stray("stray", Labels::new()).await;
    let tied = Labels::new().with(BREF_CONTENT, parent.digest.to_string());
    let tied = fixture.stray("tied", tied).await;
    fixture
        .collect_while(async || {
            let image = Image::new("i".parse().unwrap(), parent.clone());
            fixture.store.images(&Scope::default()).create(&image).await.unwrap();
        })
        .await;
    assert!(fixture.has(&parent).await && fixture.has(&child).await && fixture.has(&tied).await);
    assert!(!fixture.has(&stray).await);
}

#[tokio::test]
async fn whatever_a_lease_gets_hold_of_meanwhile_stays_with_its_tree() {
    let fixture = Fixture::new().await;
    let mut trees = Vec::new();
    for (child, parent) in [("c1", "p1"), ("c2", "p2"), ("c3", "p3")] {
        let child = fixture.stray(child, Labels::new()).await;
        trees.push((fixture.stray(parent, refers_to(&child)).await, child));
    }
    let scope = fixture.leased().await;
    fixture
        .collect_while(async || {
            // Added by hand, found by a writer, referred to by something new.
            let leases = fixture.store.leases(&scope.namespace);
            let resource = Resource { kind: ResourceKind::Content, id: trees[0].0.digest.to_string() };
            leases.add_resource(scope.lease.as_ref().unwrap(), &resource).await.unwrap();
            let content = fixture.store.content(&scope);
            let found = content.writer(&"again".parse().unwrap(), Expected::from(&trees[1].0)).await;
            assert!(found.err().unwrap().is(Kind::AlreadyExists));
            let new = descriptor("new");
            content.write_blob(&new, Bytes::from_static(b"new"), refers_to(&trees[2].0)).await.unwrap();
        })
        .await;
    for (parent, child) in &trees {
        assert!(fixture.has(parent).await && fixture.has(child).await, "{parent:?}");
    }
    fixture.store.leases(&scope.namespace).delete(&scope.lease.unwrap(), super::Deletion::Synchronous).await.unwrap();
    for (parent, child) in &trees {
        assert!(!fixture.has(parent).await && !fixture.has(child).await, "{parent:?}");
    }
}

#[tokio::test]
async fn a_label_that_is_set_meanwhile_counts() {
    let fixture = Fixture::new().await;
    let (rooted, later) = (fixture.stray("rooted", Labels::new()).await, fixture.stray("later", Labels::new()).await);
    fixture
        .collect_while(async || {
            let content = fixture.store.content(&Scope::default());
            for (descriptor, key) in [(&rooted, ROOT), (&later, EXPIRE)] {
                let mut info = content.info(&descriptor.digest).await.unwrap();
                info.labels.set(key, "2999-01-01T00:00:00Z");
                content.update(&info, &FieldMask::all()).await.unwrap();
            }
        })
        .await;
    assert!(fixture.has(&rooted).await && fixture.has(&later).await);
}

#[tokio::test]
async fn a_snapshot_that_is_taken_over_meanwhile_stands_on_all_its_parents() {
    let fixture = Fixture::new().await;
    let view = |scope: &Scope| fixture.store.snapshotters(scope).remove(SNAPSHOTTER).unwrap();
    let own = view(&Scope::default());
    let mut below: Option<snapshot::Name> = None;
    for name in ["a", "b", "c"] {
        let key = "unpack".parse().unwrap();
        own.prepare(&key, below.as_ref(), Labels::new()).await.unwrap();
        own.commit(&name.parse().unwrap(), &key, snapshot::Commit::default()).await.unwrap();
        below = Some(name.parse().unwrap());
    }
    let scope = fixture.leased().await;
    let collected = fixture
        .collect_while(async || {
            let target = Labels::new().with(snapshot::TARGET_LABEL, "b");
            let found = view(&scope).prepare(&"k".parse().unwrap(), None, target).await;
            assert!(found.unwrap_err().is(Kind::AlreadyExists));
        })
        .await;
    assert_eq!(collected.snapshots.count, 1, "the one above");
    view(&scope).view(&"v".parse().unwrap(), Some(&"b".parse().unwrap()), Labels::new()).await.unwrap();
}

#[tokio::test]
async fn a_lease_of_an_expired_one_s_id_is_another_lease() {
    let fixture = Fixture::new().await;
    let leases = fixture.store.leases(&Scope::default().namespace);
    let options =
        |expiry| lease::Options { id: Some("same".parse().unwrap()), expiry: Some(expiry), labels: Labels::new() };
    let old = leases.create(options(Duration::ZERO)).await.unwrap();
    let collected = fixture
        .collect_while(async || {
            leases.delete(&old.id, super::Deletion::Background).await.unwrap();
            leases.create(options(Duration::from_hours(1))).await.unwrap();
        })
        .await;
    assert_eq!(collected.leases, 0);
    assert_eq!(leases.list(&[]).await.unwrap().len(), 1);
}
