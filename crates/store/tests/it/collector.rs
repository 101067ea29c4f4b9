//! The collector at work beside others, by its schedule, and what it says about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use windlass_core::content::{IngesterExt as _, ProviderExt as _};
use windlass_core::gc::{self, Collector as _, Deletion, DoomedKind, Node, PinReason};
use windlass_core::image::{Image, StoreExt as _};
use windlass_core::lease;
use windlass_core::{Descriptor, Kind, Labels, Scope, content};
use windlass_store::{Policy, Store};

use super::{SNAPSHOTTER, blob_path, bring, leased, namespace, open, scope};

/// Brings a blob; while somebody else does, waits.
async fn fetch(content: &dyn content::Store, descriptor: &Descriptor, bytes: &Bytes, labels: Labels) {
    loop {
        match content.write_blob(descriptor, bytes.clone(), labels.clone()).await {
            Err(error) if error.is(Kind::Unavailable) => tokio::task::yield_now().await,
            brought => return brought.unwrap(),
        }
    }
}

/// Pulls an image of a manifest and some layers as a client would, looks at it, and removes it again.
async fn come_and_go(store: &Store, worker: usize, rounds: usize) {
    let name: windlass_core::image::Name = format!("image-{worker}").parse().unwrap();
    for round in 0..rounds {
        let scope = leased(store, "default").await;
        let content = store.content(&scope);
        // Layers are shared by all workers, so that one finds what another is about to lose.
        let layers: Vec<(Descriptor, Bytes)> = (0..4)
            .map(|layer| {
                let bytes = Bytes::from(format!("layer {}", (round + layer) % 6));
                (Descriptor::of("application/octet-stream", &bytes), bytes)
            })
            .collect();
        let mut labels = Labels::new();
        for (at, (layer, bytes)) in layers.iter().enumerate() {
            fetch(&*content, layer, bytes, Labels::new()).await;
            labels.set(gc::content_label(gc::ChildKind::Layer, at), layer.digest.to_string());
        }
        let manifest = Bytes::from(format!("manifest {}", round % 3));
        let target = Descriptor::of("application/octet-stream", &manifest);
        fetch(&*content, &target, &manifest, labels.clone()).await;
        let mut info = content.info(&target.digest).await.unwrap();
        info.labels.extend(&labels);
        content.update(&info, &windlass_core::field::FieldMask::all()).await.unwrap();
        store.images(&scope).put(&Image::new(name.clone(), target.clone())).await.unwrap();
        store.leases(&scope.namespace).delete(&scope.lease.unwrap(), Deletion::Background).await.unwrap();
        tokio::task::yield_now().await;
        let content = store.content(&Scope::default());
        for (descriptor, bytes) in layers {
            let read = content.read_all(&descriptor, 100).await;
            assert_eq!(read.unwrap_or_else(|error| panic!("round {round} of {worker}: {error}")), bytes);
        }
        if round % 2 == 0 {
            store.images(&Scope::default()).delete(&name, Deletion::Background).await.unwrap();
        }
    }
    if rounds.is_multiple_of(2) {
        store.images(&Scope::default()).delete(&name, Deletion::Background).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn images_that_come_and_go_beside_collections_are_always_whole() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let done = Arc::new(AtomicBool::new(false));
    let collector = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            let mut collected = 0;
            while !done.load(Ordering::Relaxed) {
                collected += store.collect().await.unwrap().contents;
            }
            collected
        }
    });
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move { come_and_go(&store, worker, 25).await })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert!(collector.await.unwrap() > 0, "something was collected beside them");
    store.collect().await.unwrap();
    let left = std::fs::read_dir(root.path().join("content/blobs/sha256")).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
}

/// Waits until something holds.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let held = tokio::time::timeout(Duration::from_secs(30), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    held.await.unwrap_or_else(|_| panic!("{what} in vain"));
}

#[tokio::test]
async fn an_expired_lease_goes_by_the_clock_with_nobody_asking() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let policy = Policy { startup_delay: Duration::ZERO, mutation_threshold: 0, ..Policy::default() };
    let schedule = store.collect_by(policy);
    let expiry = Some(Duration::from_millis(300));
    let leases = store.leases(&namespace("default"));
    let lease = leases.create(lease::Options { expiry, ..lease::Options::default() }).await.unwrap();
    let held = Scope { lease: Some(lease.id), ..scope("default") };
    let blob = bring(&*store.content(&held), b"held", Labels::new()).await;
    assert!(blob_path(root.path(), &blob).exists());
    eventually("the lease and its blob go", async || {
        leases.list(&[]).await.unwrap().is_empty() && !blob_path(root.path(), &blob).exists()
    })
    .await;
    drop(schedule);
}

#[tokio::test]
async fn a_deletion_is_followed_by_a_collection_in_the_background() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let blob = bring(&*store.content(&scope("default")), b"blob", Labels::new().with(gc::ROOT, "1")).await;
    let images = store.images(&scope("default"));
    let target = bring(&*store.content(&scope("default")), b"target", Labels::new()).await;
    images.create(&Image::new("i".parse().unwrap(), target.clone())).await.unwrap();
    let schedule = store.collect_by(Policy::default());
    images.delete(&"i".parse().unwrap(), Deletion::Background).await.unwrap();
    eventually("the target goes", async || !blob_path(root.path(), &target).exists()).await;
    assert!(blob_path(root.path(), &blob).exists());
    drop(schedule);
    // The root is free although the schedule ran: it keeps nothing open.
    drop((store, images));
    open(root.path()).await;
}

#[tokio::test]
async fn a_plan_names_what_a_collection_then_removes() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("default"));
    let kept = bring(&*content, b"kept", Labels::new().with(gc::ROOT, "1")).await;
    let stray = bring(&*content, b"stray", Labels::new()).await;
    // Garbage here, and needed elsewhere: the record goes and the bytes stay.
    bring(&*content, b"elsewhere", Labels::new()).await;
    let shared = bring(&*store.content(&scope("other")), b"elsewhere", Labels::new()).await;
    store.images(&scope("other")).create(&Image::new("i".parse().unwrap(), shared)).await.unwrap();
    let unrecorded = Descriptor::of("application/octet-stream", b"unrecorded");
    std::fs::write(blob_path(root.path(), &unrecorded), b"unrecorded").unwrap();
    let view = store.snapshotters(&scope("default")).remove(SNAPSHOTTER).unwrap();
    view.prepare(&"active".parse().unwrap(), None, Labels::new()).await.unwrap();
    let options = lease::Options { expiry: Some(Duration::ZERO), ..lease::Options::default() };
    let lease = store.leases(&namespace("default")).create(options).await.unwrap();

    let plan = store.plan().await.unwrap();
    let named = |kind, id: &str| plan.iter().find(|doomed| doomed.kind == kind && doomed.id == id).cloned();
    assert_eq!(named(DoomedKind::Content, &kept.digest.to_string()), None);
    assert_eq!(named(DoomedKind::Content, &stray.digest.to_string()).unwrap().bytes, 5);
    let elsewhere = windlass_core::Digest::sha256(b"elsewhere");
    assert_eq!(named(DoomedKind::Content, &elsewhere.to_string()).unwrap().bytes, 0);
    let bytes = named(DoomedKind::Content, &unrecorded.digest.to_string()).unwrap();
    assert_eq!((bytes.namespace, bytes.bytes), (None, 10));
    assert!(named(DoomedKind::Snapshot, &format!("{SNAPSHOTTER}/active")).is_some());
    assert!(named(DoomedKind::Lease, lease.id.as_str()).is_some());
    assert_eq!(plan.len(), 5, "{plan:?}");
    assert_eq!(store.plan().await.unwrap(), plan, "planning changes nothing");

    let collected = store.collect().await.unwrap();
    assert_eq!((collected.leases, collected.contents, collected.blobs.count), (1, 2, 2));
    assert_eq!(collected.snapshots.count, 1);
    assert_eq!(collected.bytes(), plan.iter().map(|doomed| doomed.bytes).sum::<u64>());
    assert_eq!(store.plan().await.unwrap(), []);
}

#[tokio::test]
async fn why_something_stays_is_a_path_from_a_root() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let scope = scope("default");
    let content = store.content(&scope);
    let refers = |key: &str, to: &Descriptor| Labels::new().with(key, to.digest.to_string());
    let layer = bring(&*content, b"layer", Labels::new()).await;
    let manifest = bring(&*content, b"manifest", refers("containerd.io/gc.ref.content.l.0", &layer)).await;
    let signature = bring(&*content, b"signature", refers(gc::BREF_CONTENT, &manifest)).await;
    let stray = bring(&*content, b"stray", Labels::new()).await;
    let rooted = bring(&*content, b"rooted", Labels::new().with(gc::ROOT, "1")).await;
    let until = bring(&*content, b"until", Labels::new().with(gc::EXPIRE, "2999-01-01T00:00:00Z")).await;
    store.images(&scope).create(&Image::new("redis".parse().unwrap(), manifest.clone())).await.unwrap();
    let leased = leased(&store, "default").await;
    let held = bring(&*store.content(&leased), b"held", Labels::new()).await;

    let why = async |of: &Descriptor| {
        store.why(&scope.namespace, &Node::Content(of.digest.clone())).await.unwrap().map(|pin| (pin.reason, pin.path))
    };
    let node = |of: &Descriptor| Node::Content(of.digest.clone());
    let image = Node::Image("redis".into());
    assert_eq!(why(&layer).await.unwrap(), (PinReason::Record, vec![image.clone(), node(&manifest), node(&layer)]));
    assert_eq!(why(&signature).await.unwrap(), (PinReason::Record, vec![image, node(&manifest), node(&signature)]));
    assert_eq!(why(&stray).await, None);
    assert_eq!(why(&rooted).await.unwrap(), (PinReason::RootLabel, vec![node(&rooted)]));
    assert!(matches!(why(&until).await.unwrap().0, PinReason::Until(_)));
    let lease = PinReason::Lease(leased.lease.unwrap());
    assert_eq!(why(&held).await.unwrap(), (lease.clone(), vec![node(&held)]));
    let tied = bring(&*content, b"tied", refers(gc::BREF_CONTENT, &held)).await;
    assert_eq!(why(&tied).await.unwrap(), (lease, vec![node(&held), node(&tied)]));
    let absent = Node::Content(windlass_core::Digest::sha256(b"absent"));
    assert_eq!(store.why(&scope.namespace, &absent).await.unwrap_err().kind(), Kind::NotFound);
}
