//! Garbage collection: what stays, what goes, and that a failure stops nothing.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::StreamExt as _;
use windlass_core::container::{Container, Runtime};
use windlass_core::content::Expected;
use windlass_core::gc::{self, Collector as _};
use windlass_core::image::Image;
use windlass_core::{Kind, Labels, Namespace, lease};

use super::{SNAPSHOTTER, blob_path, bring, leased, namespace, open, open_with, scope, snapshotter};

#[tokio::test]
async fn what_nothing_refers_to_goes_and_is_counted() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let scope = scope("default");
    let (content, images) = (store.content(&scope), store.images(&scope));
    let kept = bring(&*content, b"kept", Labels::new()).await;
    let stray = bring(&*content, b"stray", Labels::new()).await;
    images.create(&Image::new("i".parse().unwrap(), kept.clone())).await.unwrap();

    let collected = store.collect().await.unwrap();
    assert_eq!((collected.contents, collected.blobs.count, collected.blobs.bytes), (1, 1, 5));
    assert!(blob_path(root.path(), &kept).exists() && !blob_path(root.path(), &stray).exists());
    assert_eq!(store.collect().await.unwrap().bytes(), 0);
}

#[tokio::test]
async fn an_expired_lease_goes_with_what_it_held() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let leases = store.leases(&Namespace::default());
    let options = lease::Options { expiry: Some(Duration::from_millis(1)), ..lease::Options::default() };
    let expired = leases.create(options).await.unwrap();
    let label = Labels::new().with(gc::EXPIRE, "2020-01-01T00:00:00+01:00");
    let by_label = leases.create(lease::Options { labels: label, ..lease::Options::default() }).await.unwrap();
    let alive = leased(&store, "default").await;
    let held = bring(&*store.content(&alive), b"held", Labels::new()).await;
    let mut scope = alive.clone();
    scope.lease = Some(expired.id.clone());
    let gone = bring(&*store.content(&scope), b"gone", Labels::new()).await;
    tokio::time::sleep(Duration::from_millis(5)).await;

    assert_eq!(store.collect().await.unwrap().leases, 2);
    let left: Vec<lease::Id> = leases.list(&[]).await.unwrap().into_iter().map(|lease| lease.id).collect();
    assert_eq!(left, [alive.lease.clone().unwrap()], "{} and {} are gone", expired.id, by_label.id);
    let content = store.content(&alive);
    content.info(&held.digest).await.unwrap();
    assert_eq!(content.info(&gone.digest).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_flat_lease_holds_its_resources_and_not_what_they_refer_to() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let leases = store.leases(&Namespace::default());
    let labels = Labels::new().with(gc::FLAT, "2026-01-01T00:00:00Z");
    let flat = leases.create(lease::Options { labels, ..lease::Options::default() }).await.unwrap();
    let child = bring(&*store.content(&scope("default")), b"child", Labels::new()).await;
    let mut leased = scope("default");
    leased.lease = Some(flat.id);
    let refers = Labels::new().with(gc::REF_CONTENT, child.digest.to_string());
    let parent = bring(&*store.content(&leased), b"parent", refers).await;
    store.collect().await.unwrap();
    let content = store.content(&leased);
    content.info(&parent.digest).await.unwrap();
    assert_eq!(content.info(&child.digest).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_blob_is_held_until_its_label_says() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("default"));
    let until = |time: &str| Labels::new().with(gc::EXPIRE, time);
    let held = bring(&*content, b"held", until("2999-01-01T00:00:00Z")).await;
    let over = bring(&*content, b"over", until("2020-01-01T00:00:00Z")).await;
    store.collect().await.unwrap();
    content.info(&held.digest).await.unwrap();
    assert_eq!(content.info(&over.digest).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_container_keeps_its_snapshot_and_all_below() {
    let root = tempfile::tempdir().unwrap();
    let inner = snapshotter(root.path());
    let store = open_with(root.path(), inner.clone()).await;
    let view = store.snapshotters(&scope("default")).remove(SNAPSHOTTER).unwrap();
    let key = |text: &str| text.parse().unwrap();
    view.prepare(&key("a"), None, Labels::new()).await.unwrap();
    view.commit(&"base".parse().unwrap(), &key("a"), windlass_core::snapshot::Commit::default()).await.unwrap();
    view.prepare(&key("rootfs"), Some(&"base".parse().unwrap()), Labels::new()).await.unwrap();
    view.prepare(&key("stray"), Some(&"base".parse().unwrap()), Labels::new()).await.unwrap();
    let containers = store.containers(&scope("default"));
    containers.create(&container("c", Some("rootfs"))).await.unwrap();

    assert_eq!(store.collect().await.unwrap().snapshots.count, 1);
    view.stat(&key("rootfs")).await.unwrap();
    view.stat(&key("base")).await.unwrap();
    assert_eq!(view.stat(&key("stray")).await.unwrap_err().kind(), Kind::NotFound);
    containers.delete("c").await.unwrap();
    assert_eq!(store.collect().await.unwrap().snapshots.count, 2);
    assert_eq!(inner.walk(&[]).count().await, 0);
}

fn container(id: &str, snapshot: Option<&str>) -> Container {
    let now = SystemTime::now();
    Container {
        id: id.to_owned(),
        labels: Labels::new(),
        image: None,
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: None },
        spec: None,
        snapshotter: snapshot.map(|_| SNAPSHOTTER.to_owned()),
        snapshot_key: snapshot.map(|key| key.parse().unwrap()),
        sandbox_id: None,
        extensions: BTreeMap::default(),
        created_at: now,
        updated_at: now,
    }
}

#[tokio::test]
async fn an_abandoned_ingest_ages_out_unless_it_is_held_or_open() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let (free, held) = (store.content(&scope("default")), store.content(&leased(&store, "default").await));
    let mut open = Vec::new();
    for (content, key) in [(&free, "old"), (&free, "open"), (&held, "held"), (&free, "young")] {
        let mut writer = content.writer(&key.parse().unwrap(), Expected::default()).await.unwrap();
        writer.write(Bytes::from_static(b"begun")).await.unwrap();
        if key == "open" {
            open.push(writer);
        }
    }
    age_ingests(root.path(), "young");
    let collected = store.collect().await.unwrap();
    assert_eq!((collected.ingests.count, collected.ingests.bytes), (1, 5));
    let left: Vec<String> =
        free.statuses(&[]).await.unwrap().into_iter().map(|status| status.ingest.to_string()).collect();
    assert_eq!(left, ["held", "open", "young"]);
}

/// Sets the times of all ingests but one back by two days.
fn age_ingests(root: &std::path::Path, but: &str) {
    let then = SystemTime::now() - Duration::from_hours(48);
    for directory in std::fs::read_dir(root.join("content/ingest")).unwrap() {
        let directory = directory.unwrap().path();
        if std::fs::read_to_string(directory.join("ref")).unwrap().contains(but) {
            continue;
        }
        for path in [directory.join("data"), directory] {
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        }
    }
}

#[tokio::test]
async fn a_blob_that_cannot_be_removed_does_not_stop_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let stray = bring(&*store.content(&scope("default")), b"stray", Labels::new()).await;
    // A directory in the place of a blob is an object that cannot be removed as one.
    let odd = windlass_core::Digest::sha256(b"odd");
    std::fs::create_dir(root.path().join("content/blobs/sha256").join(odd.hex())).unwrap();
    let error = store.collect().await.unwrap_err();
    assert!(error.to_string().contains(&odd.to_string()), "{error}");
    assert!(!blob_path(root.path(), &stray).exists(), "the other one went");
}

#[tokio::test]
async fn a_namespace_that_is_not_empty_says_what_is_in_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let (scope, full) = (scope("full"), namespace("full"));
    let descriptor = bring(&*store.content(&scope), b"x", Labels::new()).await;
    bring(&*store.content(&scope), b"y", Labels::new()).await;
    store.images(&scope).create(&Image::new("i".parse().unwrap(), descriptor)).await.unwrap();
    store.containers(&scope).create(&container("c", None)).await.unwrap();
    drop(store.content(&scope).writer(&"r".parse().unwrap(), Expected::default()).await.unwrap());
    let error = store.namespaces().delete(&full).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("1 image, 1 container, 2 blobs, 1 ingest"), "{error}");
}
