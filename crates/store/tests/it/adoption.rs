//! What namespaces share: bytes of blobs and of snapshots, and nothing else.

use windlass_core::content::Expected;
use windlass_core::gc::Deletion;
use windlass_core::lease::{Resource, ResourceKind};
use windlass_core::snapshot::{Commit, Snapshotter, TARGET_LABEL};
use windlass_core::{Kind, Labels};

use super::{SNAPSHOTTER, blob_path, bring, leased, namespace, open, open_with, scope, snapshotter};

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
