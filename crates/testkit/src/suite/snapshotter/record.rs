//! The records of snapshots, what they take up, and what cleaning up spares.

use std::collections::BTreeSet;
use std::time::SystemTime;

use windlass_core::field::FieldMask;
use windlass_core::snapshot::{Commit, Snapshotter};
use windlass_core::{Kind, Labels};

use super::{commit_layer, key, name, prepare, view};
use crate::mounted::Mounted;
use crate::suite::{assert_kind, assert_recent, collect, mask, parse, sample};

pub async fn usage_counts_the_snapshot_alone(snapshotter: &dyn Snapshotter) {
    let mounted = prepare(snapshotter, "big", None).await;
    let empty = snapshotter.usage(&key("big")).await.unwrap();
    mounted.write("one", &sample(1, 3_000_000)).unwrap();
    mounted.write("two", &sample(2, 1_000_000)).unwrap();
    std::fs::hard_link(mounted.writable("one").unwrap(), mounted.writable("link").unwrap()).unwrap();
    let active = snapshotter.usage(&key("big")).await.unwrap();
    assert_eq!(active.inodes, empty.inodes + 2, "a hard link is no inode");
    assert!((4_000_000..4_600_000).contains(&(active.bytes - empty.bytes)), "{active:?} after {empty:?}");

    snapshotter.commit(&name("committed"), &key("big"), Commit::default()).await.unwrap();
    let committed = snapshotter.usage(&key("committed")).await.unwrap();
    assert!(committed.bytes >= 4_000_000);
    prepare(snapshotter, "small", Some("committed")).await;
    let small = snapshotter.usage(&key("small")).await.unwrap();
    // A snapshotter that copies takes up the parent's size again, but not twice.
    assert!(small.inodes <= committed.inodes, "{small:?} counts the parent's {committed:?}");
}

pub async fn walk_with_filters(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    commit_layer(snapshotter, "top", Some("base")).await;
    view(snapshotter, "base").await;
    let labels = Labels::new().with("org.example/team", "db");
    snapshotter.prepare(&key("active"), Some(&name("top")), labels).await.unwrap();
    let walked = async |texts: &[&str]| {
        let filters: Vec<_> = texts.iter().map(|text| parse(text)).collect();
        let infos = collect(snapshotter.walk(&filters)).await;
        let keys: BTreeSet<String> = infos.iter().map(|info| info.key.to_string()).collect();
        assert_eq!(keys.len(), infos.len(), "a snapshot is listed twice");
        keys
    };
    let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(walked(&[]).await, set(&["active", "base", "top", "view of base"]));
    assert_eq!(walked(&["kind==committed"]).await, set(&["base", "top"]));
    assert_eq!(walked(&["parent==base"]).await, set(&["top", "view of base"]));
    assert_eq!(walked(&["name==base", "kind==active"]).await, set(&["active", "base"]));
    assert_eq!(walked(&[r#"labels."org.example/team"==db"#]).await, set(&["active"]));
    assert!(walked(&["kind==view,parent==top"]).await.is_empty());
}

/// Commits a snapshot that has labels.
async fn labelled(snapshotter: &dyn Snapshotter, labels: Labels) {
    prepare(snapshotter, "active", None).await;
    snapshotter.commit(&name("labelled"), &key("active"), Commit { labels, parent: None }).await.unwrap();
}

pub async fn labels_of_a_snapshot_by_mask(snapshotter: &dyn Snapshotter) {
    labelled(snapshotter, Labels::new().with("a.x", "1").with("b", "2").with("c", "3")).await;
    let mut change = snapshotter.stat(&key("labelled")).await.unwrap();
    change.labels = Labels::new().with("a.x", "changed").with("b", "ignored");
    let updated = snapshotter.update(&change, &mask(["labels.a.x", "labels.c"])).await.unwrap();
    assert_eq!(updated.labels, Labels::new().with("a.x", "changed").with("b", "2"));
    assert_eq!(snapshotter.stat(&key("labelled")).await.unwrap(), updated);
    let updated = snapshotter.update(&change, &mask(["labels"])).await.unwrap();
    assert_eq!(updated.labels, change.labels);
}

pub async fn update_of_all_labels_of_a_snapshot(snapshotter: &dyn Snapshotter) {
    labelled(snapshotter, Labels::new().with("a", "1")).await;
    let before = snapshotter.stat(&key("labelled")).await.unwrap();
    let mut change = before.clone();
    change.labels = Labels::new().with("b", "2");
    change.parent = Some(name("ignored"));
    let updated = snapshotter.update(&change, &FieldMask::all()).await.unwrap();
    assert_eq!((&updated.labels, &updated.parent), (&change.labels, &None), "only labels can be changed");
    assert_eq!((updated.state, updated.created_at), (before.state, before.created_at));
    assert_eq!(snapshotter.stat(&key("labelled")).await.unwrap(), updated);
    change.key = key("absent");
    assert_kind(snapshotter.update(&change, &FieldMask::all()).await, Kind::NotFound, "update");
}

pub async fn update_of_an_unknown_field_of_a_snapshot_is_refused(snapshotter: &dyn Snapshotter) {
    labelled(snapshotter, Labels::new().with("a", "1")).await;
    let before = snapshotter.stat(&key("labelled")).await.unwrap();
    let mut change = before.clone();
    change.labels = Labels::new();
    for unknown in ["parent", "name", "label", "kind"] {
        assert_kind(snapshotter.update(&change, &mask(["labels", unknown])).await, Kind::InvalidArgument, unknown);
    }
    assert_eq!(snapshotter.stat(&key("labelled")).await.unwrap(), before);
}

pub async fn long_labels_of_a_snapshot_are_refused(snapshotter: &dyn Snapshotter) {
    let long = Labels::new().with("key", "v".repeat(Labels::MAX_LEN));
    let prepared = snapshotter.prepare(&key("k"), None, long.clone()).await;
    assert_kind(prepared, Kind::InvalidArgument, "prepare");
    labelled(snapshotter, Labels::new()).await;
    let mut change = snapshotter.stat(&key("labelled")).await.unwrap();
    change.labels = long;
    assert_kind(snapshotter.update(&change, &FieldMask::all()).await, Kind::InvalidArgument, "update");
}

pub async fn the_snapshotter_sets_the_times(snapshotter: &dyn Snapshotter) {
    let before = SystemTime::now();
    prepare(snapshotter, "active", None).await;
    let info = snapshotter.stat(&key("active")).await.unwrap();
    assert_recent(info.created_at, before);
    assert!(info.updated_at >= info.created_at);
}

pub async fn a_committed_snapshot_is_as_old_as_its_commit(snapshotter: &dyn Snapshotter) {
    prepare(snapshotter, "active", None).await;
    let before = SystemTime::now();
    snapshotter.commit(&name("base"), &key("active"), Commit::default()).await.unwrap();
    let info = snapshotter.stat(&key("base")).await.unwrap();
    assert_recent(info.created_at, before);
    assert_eq!(info.updated_at, info.created_at);
}

pub async fn cleanup_keeps_what_is_recorded(snapshotter: &dyn Snapshotter) {
    commit_layer(snapshotter, "base", None).await;
    let active = prepare(snapshotter, "active", Some("base")).await;
    active.write("mine", b"x").unwrap();
    let walked = collect(snapshotter.walk(&[])).await.len();
    for _ in 0..2 {
        snapshotter.cleanup().await.unwrap();
    }
    assert_eq!(collect(snapshotter.walk(&[])).await.len(), walked);
    let mounted = Mounted::of(&snapshotter.mounts(&key("active")).await.unwrap()).unwrap();
    assert_eq!((mounted.read("mine").unwrap(), mounted.read("base").unwrap()), (b"x".to_vec(), b"base".to_vec()));
}
