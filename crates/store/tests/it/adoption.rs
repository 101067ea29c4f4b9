//! What namespaces share: bytes of blobs and of snapshots, and nothing else.

use std::path::Path;

use windlass_core::content::{self, Expected};
use windlass_core::gc::Deletion;
use windlass_core::lease::{Resource, ResourceKind};
use windlass_core::namespace::SHAREABLE_LABEL;
use windlass_core::snapshot::{Commit, Snapshotter, TARGET_LABEL};
use windlass_core::{Descriptor, Kind, Labels};
use windlass_store::Store;

use super::{
    SNAPSHOTTER, blob_path, bring, ingest, leased, namespace, open, open_isolated, open_with, scope, snapshotter,
};

#[tokio::test]
async fn a_blob_of_another_namespace_is_adopted_by_digest_and_size_and_held_by_the_lease() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let descriptor = bring(&*store.content(&scope("one")), b"shared", Labels::new().with("l", "1")).await;
    let two = leased(&store, "two").await;
    let content = store.content(&two);

    let error = content.writer(&"r".parse().unwrap(), Expected::from(&descriptor)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    let info = content.info(&descriptor.digest).await.unwrap();
    assert_eq!((info.size, info.labels), (6, Labels::new()));
    let held = store.leases(&two.namespace).resources(two.lease.as_ref().unwrap()).await.unwrap();
    assert_eq!(held, [Resource { kind: ResourceKind::Content, id: descriptor.digest.to_string() }]);
}

#[tokio::test]
async fn the_digest_alone_or_with_another_size_is_not_enough_to_adopt() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let descriptor = bring(&*store.content(&scope("one")), b"shared", Labels::new()).await;
    let content = store.content(&scope("two"));
    for (key, size) in [("unknown", None), ("wrong", Some(7))] {
        let expected = Expected { digest: Some(descriptor.digest.clone()), size };
        drop(content.writer(&key.parse().unwrap(), expected).await.expect("the bytes have to be brought"));
        assert_eq!(content.info(&descriptor.digest).await.unwrap_err().kind(), Kind::NotFound);
    }
}

#[tokio::test]
async fn bytes_go_with_the_last_record_of_them() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let (one, two) = (store.content(&scope("one")), store.content(&scope("two")));
    let descriptor = bring(&*one, b"shared", Labels::new()).await;
    bring(&*two, b"shared", Labels::new()).await;
    let path = blob_path(root.path(), &descriptor);
    one.delete(&descriptor.digest).await.unwrap();
    assert!(path.exists());
    two.delete(&descriptor.digest).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn content_that_exists_is_held_by_the_lease_of_whoever_asks_for_it_again() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let (first, second) = (leased(&store, "default").await, leased(&store, "default").await);
    let descriptor = bring(&*store.content(&first), b"wanted", Labels::new()).await;
    bring(&*store.content(&second), b"wanted", Labels::new()).await;
    let leases = store.leases(&namespace("default"));
    leases.delete(first.lease.as_ref().unwrap(), Deletion::Synchronous).await.unwrap();
    store.content(&second).info(&descriptor.digest).await.expect("the second lease holds it");
}

async fn commit_layer(snapshotter: &dyn Snapshotter, name: &str, parent: Option<&str>) {
    let (active, parent) = (format!("active {name}").parse().unwrap(), parent.map(|parent| parent.parse().unwrap()));
    snapshotter.prepare(&active, parent.as_ref(), Labels::new()).await.unwrap();
    snapshotter.commit(&name.parse().unwrap(), &active, Commit::default()).await.unwrap();
}

#[tokio::test]
async fn a_committed_snapshot_is_adopted_with_all_it_stands_on_and_goes_with_its_last_record() {
    let root = tempfile::tempdir().unwrap();
    let inner = snapshotter(root.path());
    let store = open_with(root.path(), inner.clone()).await;
    let view = |name: &str| store.snapshotters(&scope(name)).remove(SNAPSHOTTER).unwrap();
    let (one, two) = (view("one"), view("two"));
    for (name, parent) in [("a", None), ("b", Some("a")), ("c", Some("b"))] {
        commit_layer(&*one, name, parent).await;
    }

    let labels = Labels::new().with(TARGET_LABEL, "c");
    let parent = "b".parse().unwrap();
    let error = two.prepare(&"k".parse().unwrap(), None, labels.clone()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    let error = two.prepare(&"k".parse().unwrap(), Some(&parent), labels).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    let parent_of = async |name: &str| two.stat(&name.parse().unwrap()).await.unwrap().parent.map(|p| p.to_string());
    assert_eq!(parent_of("c").await.as_deref(), Some("b"));
    assert_eq!(parent_of("b").await.as_deref(), Some("a"));
    assert_eq!(parent_of("a").await, None);

    let count = async || {
        use futures::StreamExt as _;
        inner.walk(&[]).count().await
    };
    assert_eq!(count().await, 3);
    for name in ["c", "b", "a"] {
        one.remove(&name.parse().unwrap()).await.unwrap();
    }
    assert_eq!(count().await, 3, "the second namespace still has them");
    two.view(&"v".parse().unwrap(), Some(&"c".parse().unwrap()), Labels::new()).await.expect("and they work");
    for name in ["v", "c", "b", "a"] {
        two.remove(&name.parse().unwrap()).await.unwrap();
    }
    assert_eq!(count().await, 0);
}

/// Returns the files that have bytes of blobs.
fn blobs_on_disk(root: &Path) -> usize {
    std::fs::read_dir(root.join("content/blobs/sha256")).unwrap().count()
}

/// Tells whether a namespace gets a blob by naming digest and size.
async fn takes_over(store: &Store, name: &str, descriptor: &Descriptor) -> bool {
    let content = store.content(&scope(name));
    let ingest = "probe".parse().unwrap();
    match content.writer(&ingest, Expected::from(descriptor)).await {
        Ok(writer) => {
            drop(writer);
            content.abort(&ingest).await.unwrap();
            assert_eq!(content.info(&descriptor.digest).await.unwrap_err().kind(), Kind::NotFound);
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), Kind::AlreadyExists);
            content.info(&descriptor.digest).await.unwrap();
            true
        }
    }
}

#[tokio::test]
async fn an_isolated_namespace_brings_the_bytes_and_they_are_stored_once() {
    let root = tempfile::tempdir().unwrap();
    let store = open_isolated(root.path(), snapshotter(root.path())).await;
    let descriptor = bring(&*store.content(&scope("one")), b"secret", Labels::new()).await;
    assert!(!takes_over(&store, "two", &descriptor).await);
    let two = store.content(&scope("two"));
    let mut writer = two.writer(&"r".parse().unwrap(), Expected::from(&descriptor)).await.unwrap();
    writer.write(bytes::Bytes::from_static(b"guesses")).await.expect_err("more than the size");
    writer.write(bytes::Bytes::from_static(b"guess!")).await.unwrap();
    let guessed = writer.commit(content::Commit::default()).await.unwrap_err();
    assert_eq!(guessed.kind(), Kind::DataLoss, "a digest is no claim on the bytes");
    assert_eq!(two.info(&descriptor.digest).await.unwrap_err().kind(), Kind::NotFound);

    let brought = ingest(&*two, "r", b"secret", Expected::from(&descriptor)).await;
    assert_eq!(brought.digest, descriptor.digest);
    assert_eq!(blobs_on_disk(root.path()), 1);
    store.content(&scope("one")).delete(&descriptor.digest).await.unwrap();
    assert!(two.reader(&descriptor).await.is_ok(), "each record stands by itself");
    assert_eq!(blobs_on_disk(root.path()), 1);
}

#[tokio::test]
async fn the_label_of_the_namespace_that_has_the_bytes_goes_before_the_policy() {
    for isolated in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let store =
            if isolated { open_isolated(root.path(), snapshotter(root.path())).await } else { open(root.path()).await };
        let namespaces = store.namespaces();
        for (value, others_may) in [("true", true), ("false", false), ("", !isolated), ("maybe", !isolated)] {
            let (has, wants) = (format!("has-{value}x"), format!("wants-{value}x"));
            let bytes = value.as_bytes().to_vec().leak();
            let descriptor = bring(&*store.content(&scope(&has)), bytes, Labels::new()).await;
            namespaces.set_label(&namespace(&has), SHAREABLE_LABEL, value).await.unwrap();
            assert_eq!(takes_over(&store, &wants, &descriptor).await, others_may, "{value:?}, isolated: {isolated}");
        }
    }
}

#[tokio::test]
async fn one_namespace_that_shares_is_enough_and_the_label_of_the_one_that_asks_does_not_count() {
    let root = tempfile::tempdir().unwrap();
    let store = open_isolated(root.path(), snapshotter(root.path())).await;
    let namespaces = store.namespaces();
    let descriptor = bring(&*store.content(&scope("one")), b"bytes", Labels::new()).await;
    namespaces.create(&namespace("asks"), Labels::new().with(SHAREABLE_LABEL, "true")).await.unwrap();
    assert!(!takes_over(&store, "asks", &descriptor).await);
    bring(&*store.content(&scope("two")), b"bytes", Labels::new()).await;
    assert!(!takes_over(&store, "three", &descriptor).await);
    namespaces.set_label(&namespace("two"), SHAREABLE_LABEL, "true").await.unwrap();
    assert!(takes_over(&store, "three", &descriptor).await);
}

#[tokio::test]
async fn an_isolated_namespace_does_not_get_a_snapshot_by_its_chain_id_and_makes_its_own() {
    use futures::StreamExt as _;
    let root = tempfile::tempdir().unwrap();
    let inner = snapshotter(root.path());
    let store = open_isolated(root.path(), inner.clone()).await;
    let view = |name: &str| store.snapshotters(&scope(name)).remove(SNAPSHOTTER).unwrap();
    let (one, two) = (view("one"), view("two"));
    commit_layer(&*one, "a", None).await;

    let key = "k".parse().unwrap();
    let labels = Labels::new().with(TARGET_LABEL, "a");
    two.prepare(&key, None, labels.clone()).await.expect("it is not here");
    assert_eq!(two.stat(&"a".parse().unwrap()).await.unwrap_err().kind(), Kind::NotFound);
    two.commit(&"a".parse().unwrap(), &key, Commit::default()).await.unwrap();
    assert_eq!(inner.walk(&[]).count().await, 2, "each has its own");

    store.namespaces().set_label(&namespace("one"), SHAREABLE_LABEL, "true").await.unwrap();
    let error = view("three").prepare(&key, None, labels).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists, "a namespace that shares does so with snapshots too");
    one.remove(&"a".parse().unwrap()).await.unwrap();
    assert_eq!(inner.walk(&[]).count().await, 2, "the third has what it took over");
}

#[tokio::test]
async fn bytes_that_nobody_has_a_record_of_are_taken_over_only_where_everybody_shares() {
    let bytes = b"left by a crash";
    let descriptor = Descriptor::of("application/octet-stream", bytes);
    for (isolated, label, others_may) in
        [(false, "", true), (false, "true", true), (false, "false", false), (true, "", false), (true, "true", false)]
    {
        let root = tempfile::tempdir().unwrap();
        let store =
            if isolated { open_isolated(root.path(), snapshotter(root.path())).await } else { open(root.path()).await };
        store.namespaces().create(&namespace("one"), Labels::new()).await.unwrap();
        store.namespaces().set_label(&namespace("one"), SHAREABLE_LABEL, label).await.unwrap();
        std::fs::write(blob_path(root.path(), &descriptor), bytes).unwrap();
        assert_eq!(takes_over(&store, "two", &descriptor).await, others_may, "{label:?}, isolated: {isolated}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_isolated_namespaces_that_bring_the_same_bytes_at_once_store_them_once() {
    let root = tempfile::tempdir().unwrap();
    let store = open_isolated(root.path(), snapshotter(root.path())).await;
    let bytes = vec![7; 300_000];
    let mut bringing = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (content, bytes) = (store.content(&scope(&format!("n{number}"))), bytes.clone());
        let expected = Expected { digest: Some(windlass_core::Digest::sha256(&bytes)), size: Some(300_000) };
        bringing.spawn(async move { ingest(&*content, "r", &bytes, expected).await });
    }
    let infos = bringing.join_all().await;
    assert_eq!(blobs_on_disk(root.path()), 1);
    for number in 0..8 {
        let content = store.content(&scope(&format!("n{number}")));
        content.info(&infos[0].digest).await.unwrap();
        assert!(content.statuses(&[]).await.unwrap().is_empty());
        content.delete(&infos[0].digest).await.unwrap();
    }
    assert_eq!(blobs_on_disk(root.path()), 0, "and with the last record they go");
}
