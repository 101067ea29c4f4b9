//! How snapshots begin: prepare, view and mounts.

use futures::future::join_all;
use windlass_core::snapshot::{Commit, Key, Snapshotter, State, TARGET_LABEL};
use windlass_core::{Kind, Labels};

use super::{commit_layer, key, name, prepare, view};
use crate::mounted::Mounted;
use crate::suite::{assert_kind, collect};

pub async fn a_snapshotter_that_is_ready_says_so_and_makes_nothing(snapshotter: &dyn Snapshotter) {
    for _ in 0..2 {
        snapshotter.ready().await.unwrap();
    }
    assert!(collect(snapshotter.walk(&[])).await.is_empty());
    commit_layer(snapshotter, "base", None).await;
}

pub async fn a_prepared_snapshot_is_active_and_writable(snapshotter: &dyn Snapshotter) {
    let labels = Labels::new().with("a", "1");
    let mounts = snapshotter.prepare(&key("k"), None, labels.clone()).await.unwrap();
    Mounted::of(&mounts).unwrap().write("dir/file", b"x").unwrap();
    let info = snapshotter.stat(&key("k")).await.unwrap();
    assert_eq!((info.state, info.key.as_str(), info.parent), (State::Active, "k", None));
    assert_eq!(info.labels.get("a"), Some("1"));
}

pub async fn mounts_are_the_same_every_time(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    commit_layer(snapshotter, "middle", Some("base")).await;
    let parent = name("middle");
    let prepared = snapshotter.prepare(&key("active"), Some(&parent), Labels::new()).await.unwrap();
    assert_eq!(snapshotter.mounts(&key("active")).await.unwrap(), prepared);
    let viewed = snapshotter.view(&key("view"), Some(&parent), Labels::new()).await.unwrap();
    assert_eq!(snapshotter.mounts(&key("view")).await.unwrap(), viewed);
}

pub async fn a_view_is_read_only(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    commit_layer(snapshotter, "top", Some("base")).await;
    for parent in ["base", "top"] {
        let mounted = view(snapshotter, parent).await;
        assert_eq!(mounted.writable, None, "{parent}: {mounted:?}");
        assert_eq!(mounted.read("base").unwrap(), b"base");
    }
    let info = snapshotter.stat(&key("view of top")).await.unwrap();
    assert_eq!((info.state, info.parent), (State::View, Some(name("top"))));
}

pub async fn a_taken_key_is_refused(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    prepare(snapshotter, "taken", None).await.write("kept", b"x").unwrap();
    let (taken, base) = (key("taken"), name("base"));
    assert_kind(snapshotter.prepare(&taken, None, Labels::new()).await, Kind::AlreadyExists, "prepare");
    assert_kind(snapshotter.prepare(&taken, Some(&base), Labels::new()).await, Kind::AlreadyExists, "prepare");
    assert_kind(snapshotter.view(&taken, Some(&base), Labels::new()).await, Kind::AlreadyExists, "view");
    let mounted = Mounted::of(&snapshotter.mounts(&taken).await.unwrap()).unwrap();
    assert_eq!(mounted.read("kept").unwrap(), b"x");
}

pub async fn of_many_prepares_at_once_exactly_one_wins(snapshotter: &dyn Snapshotter) {
    let contested = key("contested");
    let results = join_all((0..16).map(|_| snapshotter.prepare(&contested, None, Labels::new()))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for refused in results.into_iter().filter(Result::is_err) {
        assert_kind(refused, Kind::AlreadyExists, "a prepare that came late");
    }
    assert_eq!(collect(snapshotter.walk(&[])).await.len(), 1);
}

pub async fn keys_and_names_live_in_one_space(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    assert_kind(snapshotter.prepare(&key("base"), None, Labels::new()).await, Kind::AlreadyExists, "prepare");
    prepare(snapshotter, "active", None).await;
    prepare(snapshotter, "other", None).await;
    let commit = snapshotter.commit(&name("active"), &key("other"), Commit::default()).await;
    assert_kind(commit, Kind::AlreadyExists, "commit");
}

pub async fn any_key_is_only_a_name(snapshotter: &dyn Snapshotter) {
    let longest = "x".repeat(Key::MAX_LEN);
    let odd = ["../../etc", "/absolute", ".", "..", "a:b,c", r"back\slash", "ä ö", "sha256:abc", &longest];
    for text in odd {
        prepare(snapshotter, text, None).await.write("name", text.as_bytes()).unwrap();
    }
    for text in odd {
        let mounted = Mounted::of(&snapshotter.mounts(&key(text)).await.unwrap()).unwrap();
        assert_eq!(mounted.read("name").unwrap(), text.as_bytes());
    }
}

pub async fn an_absent_parent_is_not_found(snapshotter: &dyn Snapshotter) {
    let absent = name("absent");
    assert_kind(snapshotter.prepare(&key("k"), Some(&absent), Labels::new()).await, Kind::NotFound, "prepare");
    assert_kind(snapshotter.view(&key("k"), Some(&absent), Labels::new()).await, Kind::NotFound, "view");
    assert!(collect(snapshotter.walk(&[])).await.is_empty(), "a refused call leaves nothing");
}

pub async fn a_parent_must_be_committed(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    prepare(snapshotter, "active", None).await;
    view(snapshotter, "base").await;
    for parent in ["active", "view of base"] {
        let parent = name(parent);
        let prepared = snapshotter.prepare(&key("k"), Some(&parent), Labels::new()).await;
        assert_kind(prepared, Kind::FailedPrecondition, "prepare");
        let viewed = snapshotter.view(&key("k"), Some(&parent), Labels::new()).await;
        assert_kind(viewed, Kind::FailedPrecondition, "view");
    }
    assert_kind(snapshotter.stat(&key("k")).await, Kind::NotFound, "stat");
}

pub async fn target_label_answers_already_exists(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "target", None).await;
    let labels = Labels::new().with(TARGET_LABEL, "target");
    assert_kind(snapshotter.prepare(&key("k"), None, labels).await, Kind::AlreadyExists, "prepare");
    assert_kind(snapshotter.stat(&key("k")).await, Kind::NotFound, "stat");
}

pub async fn a_target_that_is_not_here_is_prepared(snapshotter: &dyn Snapshotter) {
    prepare(snapshotter, "target", None).await;
    for (text, target) in [("one", "absent"), ("two", "target")] {
        let labels = Labels::new().with(TARGET_LABEL, target);
        snapshotter.prepare(&key(text), None, labels).await.expect("only a committed target is here");
    }
}

pub async fn mounts_of_a_committed_snapshot_are_refused(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    assert_kind(snapshotter.mounts(&key("base")).await, Kind::FailedPrecondition, "mounts");
}

pub async fn an_absent_snapshot_is_not_found(snapshotter: &dyn Snapshotter) {
    let absent = key("absent");
    assert_kind(snapshotter.stat(&absent).await, Kind::NotFound, "stat");
    assert_kind(snapshotter.mounts(&absent).await, Kind::NotFound, "mounts");
    assert_kind(snapshotter.usage(&absent).await, Kind::NotFound, "usage");
    assert_kind(snapshotter.remove(&absent).await, Kind::NotFound, "remove");
}

pub async fn files_show_through_the_whole_stack(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "a", None).await;
    commit_layer(snapshotter, "b", Some("a")).await;
    let top = prepare(snapshotter, "top", Some("b")).await;
    assert_eq!((top.read("a").unwrap(), top.read("b").unwrap()), (b"a".to_vec(), b"b".to_vec()));
    let seen = view(snapshotter, "b").await;
    assert_eq!((seen.read("a").unwrap(), seen.read("b").unwrap()), (b"a".to_vec(), b"b".to_vec()));
    assert_eq!(view(snapshotter, "a").await.find("b"), None);
}

pub async fn writes_stay_in_their_own_snapshot(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    let one = prepare(snapshotter, "one", Some("base")).await;
    let two = prepare(snapshotter, "two", Some("base")).await;
    one.write("mine", b"1").unwrap();
    // As copy-up does it: a changed file is a new one in the upper directory.
    one.write("new", b"changed").unwrap();
    std::fs::rename(one.writable("new").unwrap(), one.writable("base").unwrap()).unwrap();
    assert_eq!(one.read("base").unwrap(), b"changed");
    assert_eq!((two.find("mine"), two.read("base").unwrap()), (None, b"base".to_vec()));
    assert_eq!(view(snapshotter, "base").await.read("base").unwrap(), b"base");
}

pub async fn a_stack_of_forty_snapshots(snapshotter: &dyn Snapshotter) {
    let mut parent = None;
    for layer in 0..40 {
        let text = format!("layer-{layer}");
        commit_layer(snapshotter, &text, parent.as_deref()).await;
        parent = Some(text);
    }
    let top = prepare(snapshotter, "top", parent.as_deref()).await;
    for layer in 0..40 {
        let text = format!("layer-{layer}");
        assert_eq!(top.read(&text).unwrap(), text.as_bytes());
    }
}
