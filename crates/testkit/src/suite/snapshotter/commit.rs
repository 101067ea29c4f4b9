//! Commit, the parents it can set, and removal.

use windlass_core::snapshot::{Commit, Snapshotter, State};
use windlass_core::{Kind, Labels};

use super::{commit_layer, key, name, prepare, view};
use crate::mounted::Mounted;
use crate::suite::{assert_kind, collect};

fn onto(parent: &str) -> Commit {
    Commit { labels: Labels::new(), parent: Some(name(parent)) }
}

pub async fn a_committed_snapshot_has_its_name_parent_and_labels(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    let labels = Labels::new().with("prepared", "1").with("both", "old");
    snapshotter.prepare(&key("active"), Some(&name("base")), labels).await.unwrap();
    let labels = Labels::new().with("committed", "2").with("both", "new");
    snapshotter.commit(&name("top"), &key("active"), Commit { labels, parent: None }).await.unwrap();
    let info = snapshotter.stat(&key("top")).await.unwrap();
    assert_eq!((info.state, info.key, info.parent), (State::Committed, key("top"), Some(name("base"))));
    let labels = Labels::new().with("prepared", "1").with("committed", "2").with("both", "new");
    assert_eq!(info.labels, labels);
}

pub async fn commit_frees_the_key(snapshotter: &dyn Snapshotter) {
    prepare(snapshotter, "active", None).await.write("file", b"first").unwrap();
    snapshotter.commit(&name("first"), &key("active"), Commit::default()).await.unwrap();
    assert_kind(snapshotter.stat(&key("active")).await, Kind::NotFound, "stat");
    assert_eq!(prepare(snapshotter, "active", None).await.find("file"), None, "the next one begins empty");
    assert_eq!(view(snapshotter, "first").await.read("file").unwrap(), b"first");
}

pub async fn a_taken_name_leaves_the_active_snapshot(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "taken", None).await;
    prepare(snapshotter, "active", None).await.write("file", b"kept").unwrap();
    let commit = snapshotter.commit(&name("taken"), &key("active"), Commit::default()).await;
    assert_kind(commit, Kind::AlreadyExists, "commit");
    assert_eq!(snapshotter.stat(&key("active")).await.unwrap().state, State::Active);
    let mounted = Mounted::of(&snapshotter.mounts(&key("active")).await.unwrap()).unwrap();
    assert_eq!(mounted.read("file").unwrap(), b"kept");
    assert_eq!(view(snapshotter, "taken").await.find("file"), None);
}

pub async fn only_an_active_snapshot_is_committed(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    view(snapshotter, "base").await;
    for text in ["base", "view of base"] {
        let commit = snapshotter.commit(&name("new"), &key(text), Commit::default()).await;
        assert_kind(commit, Kind::FailedPrecondition, text);
    }
    assert!(snapshotter.commit(&name("new"), &key("absent"), Commit::default()).await.is_err());
    assert_kind(snapshotter.stat(&key("new")).await, Kind::NotFound, "stat");
}

pub async fn a_committed_snapshot_can_be_committed_upon(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "a", None).await;
    commit_layer(snapshotter, "b", Some("a")).await;
    commit_layer(snapshotter, "c", Some("b")).await;
    let seen = view(snapshotter, "c").await;
    for text in ["a", "b", "c"] {
        assert_eq!(seen.read(text).unwrap(), text.as_bytes());
    }
}

pub async fn rebase_at_commit(snapshotter: &dyn Snapshotter) {
    if !snapshotter.capabilities().rebase {
        return;
    }
    prepare(snapshotter, "active", None).await.write("top", b"top").unwrap();
    commit_layer(snapshotter, "base", None).await;
    snapshotter.commit(&name("top"), &key("active"), onto("base")).await.unwrap();
    assert_eq!(snapshotter.stat(&key("top")).await.unwrap().parent, Some(name("base")));
    let seen = view(snapshotter, "top").await;
    assert_eq!((seen.read("base").unwrap(), seen.read("top").unwrap()), (b"base".to_vec(), b"top".to_vec()));
    assert_kind(snapshotter.remove(&key("base")).await, Kind::FailedPrecondition, "remove of the new parent");
}

pub async fn layers_rebased_in_any_order_stack_as_named(snapshotter: &dyn Snapshotter) {
    if !snapshotter.capabilities().rebase {
        return;
    }
    let layers = ["first", "second", "third"];
    for text in layers.iter().rev() {
        let mounted = prepare(snapshotter, &format!("active {text}"), None).await;
        mounted.write(text, text.as_bytes()).unwrap();
        mounted.write("who was last", text.as_bytes()).unwrap();
    }
    let mut parent = None;
    for text in layers {
        let commit = Commit { labels: Labels::new(), parent: parent.map(name) };
        snapshotter.commit(&name(text), &key(&format!("active {text}")), commit).await.unwrap();
        parent = Some(text);
    }
    let top = prepare(snapshotter, "top", Some("third")).await;
    for text in layers {
        assert_eq!(top.read(text).unwrap(), text.as_bytes());
    }
    assert_eq!(top.read("who was last").unwrap(), b"third");
}

pub async fn a_parent_that_cannot_be_set_is_refused(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    commit_layer(snapshotter, "other", None).await;
    prepare(snapshotter, "free", None).await.write("file", b"kept").unwrap();
    prepare(snapshotter, "bound", Some("base")).await;
    let commit = snapshotter.commit(&name("new"), &key("bound"), onto("other")).await;
    assert_kind(commit, Kind::FailedPrecondition, "a second parent");
    let commit = snapshotter.commit(&name("new"), &key("free"), onto("bound")).await;
    assert_kind(commit, Kind::FailedPrecondition, "an active parent");
    assert!(snapshotter.commit(&name("new"), &key("free"), onto("absent")).await.is_err());
    if !snapshotter.capabilities().rebase {
        let commit = snapshotter.commit(&name("new"), &key("free"), onto("base")).await;
        assert_kind(commit, Kind::FailedPrecondition, "a parent at the commit");
    }
    assert_kind(snapshotter.stat(&key("new")).await, Kind::NotFound, "stat");
    let mounted = Mounted::of(&snapshotter.mounts(&key("free")).await.unwrap()).unwrap();
    assert_eq!(mounted.read("file").unwrap(), b"kept", "the active snapshot stays");
}

pub async fn a_snapshot_with_children_is_not_removed(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    commit_layer(snapshotter, "top", Some("base")).await;
    prepare(snapshotter, "active", Some("top")).await;
    view(snapshotter, "base").await;
    let remove = async |text: &str| snapshotter.remove(&key(text)).await;
    assert_kind(remove("base").await, Kind::FailedPrecondition, "a snapshot with two children");
    assert_kind(remove("top").await, Kind::FailedPrecondition, "a snapshot with an active child");
    remove("active").await.unwrap();
    remove("top").await.unwrap();
    assert_kind(remove("base").await, Kind::FailedPrecondition, "a snapshot with a view");
    remove("view of base").await.unwrap();
    remove("base").await.unwrap();
    assert!(collect(snapshotter.walk(&[])).await.is_empty());
}

pub async fn every_state_can_be_removed(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    let active = prepare(snapshotter, "active", None).await;
    active.write("dir/file", b"x").unwrap();
    view(snapshotter, "base").await;
    for text in ["view of base", "active", "base"] {
        snapshotter.remove(&key(text)).await.unwrap();
        assert_kind(snapshotter.stat(&key(text)).await, Kind::NotFound, "stat");
    }
    snapshotter.cleanup().await.unwrap();
    assert!(!active.layers[0].exists(), "the directory of a removed snapshot is gone");
}

pub async fn removal_of_a_key_frees_it(snapshotter: &dyn Snapshotter) {
    for round in 0..3 {
        let mounted = prepare(snapshotter, "again", None).await;
        assert_eq!(mounted.find("file"), None, "round {round} begins empty");
        mounted.write("file", b"x").unwrap();
        snapshotter.remove(&key("again")).await.unwrap();
    }
}
