//! Crashes, played at every numbered step of the durable orders.

use std::collections::BTreeSet;
use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _};

use super::*;
use crate::native::Native;
use crate::overlay::Overlay;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// What there is, by name and state, and the numbers of the directories that are there.
async fn state<L: Layout>(snapshots: &Snapshots<L>) -> (BTreeSet<String>, BTreeSet<String>) {
    let infos: Vec<Info> = snapshots.walk(&[]).try_collect().await.unwrap();
    let records = infos.iter().map(|info| format!("{} {}", info.state, info.key)).collect();
    let directories = std::fs::read_dir(snapshots.0.directories.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    (records, directories)
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(ToString::to_string).collect()
}

/// Begins with a committed `base` in directory 1 and an active `work` on it in directory 2.
async fn begun(directory: &Path) -> Overlay {
    let snapshots = Overlay::open(directory).await.unwrap();
    snapshots.prepare(&key("base-work"), None, Labels::new()).await.unwrap();
    snapshots.commit(&name("base"), &key("base-work"), Commit::default()).await.unwrap();
    snapshots.prepare(&key("work"), Some(&name("base")), Labels::new()).await.unwrap();
    snapshots
}

#[tokio::test]
async fn the_steps_come_in_the_order_that_is_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = begun(directory.path()).await;
    let steps = &snapshots.0.steps;
    assert_eq!(steps.take(), ["make", "rename", "record", "adapt", "sync", "record", "make", "rename", "record"]);
    snapshots.remove(&key("work")).await.unwrap();
    assert_eq!(steps.take(), ["forget", "set aside", "delete"]);
}

#[tokio::test]
async fn a_crash_while_preparing_leaves_nothing_or_all_of_the_snapshot() {
    for (step, recorded) in [("make", false), ("rename", false), ("record", true)] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = begun(directory.path()).await;
        snapshots.0.steps.take();
        snapshots.0.steps.stop_after(step);
        snapshots.prepare(&key("new"), Some(&name("base")), Labels::new()).await.unwrap_err();
        drop(snapshots);

        let snapshots = Overlay::open(directory.path()).await.unwrap();
        let (records, directories) = state(&snapshots).await;
        assert_eq!(records.contains("active new"), recorded, "{step}");
        assert_eq!(directories.len(), 3, "{step}: opening deletes nothing");
        snapshots.cleanup().await.unwrap();
        let expected = if recorded { set(&["1", "2", "3"]) } else { set(&["1", "2"]) };
        assert_eq!(state(&snapshots).await.1, expected, "{step}");
        if !recorded {
            snapshots.prepare(&key("new"), Some(&name("base")), Labels::new()).await.unwrap();
        }
        assert_eq!(snapshots.mounts(&key("new")).await.unwrap().len(), 1, "{step}");
    }
}

#[tokio::test]
async fn a_crash_while_committing_leaves_the_active_or_the_committed_snapshot() {
    for (step, committed) in [("adapt", false), ("sync", false), ("record", true)] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = begun(directory.path()).await;
        snapshots.0.steps.take();
        snapshots.0.steps.stop_after(step);
        snapshots.commit(&name("done"), &key("work"), Commit::default()).await.unwrap_err();
        drop(snapshots);

        let snapshots = Overlay::open(directory.path()).await.unwrap();
        snapshots.cleanup().await.unwrap();
        let (records, directories) = state(&snapshots).await;
        let expected = if committed { "committed done" } else { "active work" };
        assert_eq!(records, set(&["committed base", expected]), "{step}");
        assert_eq!(directories, set(&["1", "2"]), "{step}");
        if !committed {
            snapshots.commit(&name("done"), &key("work"), Commit::default()).await.unwrap();
        }
        assert_eq!(snapshots.usage(&key("done")).await.unwrap().inodes, 1, "{step}");
    }
}

#[tokio::test]
async fn a_crash_while_removing_leaves_the_snapshot_or_garbage() {
    for (step, left) in [("forget", set(&["1", "2"])), ("set aside", set(&["1", "rm-2"])), ("delete", set(&["1"]))] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = begun(directory.path()).await;
        snapshots.0.steps.take();
        snapshots.0.steps.stop_after(step);
        // Once the record is gone the removal has happened, whatever becomes of the directory.
        assert_eq!(snapshots.remove(&key("work")).await.is_ok(), step == "set aside", "{step}");
        drop(snapshots);

        let snapshots = Overlay::open(directory.path()).await.unwrap();
        let (records, directories) = state(&snapshots).await;
        assert_eq!((records, directories), (set(&["committed base"]), left), "{step}");
        snapshots.cleanup().await.unwrap();
        assert_eq!(state(&snapshots).await.1, set(&["1"]), "{step}");
    }
}

#[tokio::test]
async fn a_snapshot_without_its_directory_is_named_and_can_be_removed() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = begun(directory.path()).await;
    std::fs::remove_dir_all(snapshots.0.directories.of(2)).unwrap();
    for error in [
        snapshots.mounts(&key("work")).await.unwrap_err(),
        snapshots.usage(&key("work")).await.unwrap_err(),
        snapshots.commit(&name("done"), &key("work"), Commit::default()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), windlass_core::Kind::DataLoss);
        assert!(error.to_string().contains("work") && error.hint_text().is_some(), "{error:?}");
    }
    snapshots.remove(&key("work")).await.unwrap();
    std::fs::remove_dir_all(snapshots.0.directories.of(1)).unwrap();
    let error = snapshots.prepare(&key("other"), Some(&name("base")), Labels::new()).await.unwrap_err();
    assert!(error.is(windlass_core::Kind::DataLoss) && error.to_string().contains("base"), "{error:?}");
    assert_eq!(state(&snapshots).await, (set(&["committed base"]), set(&[])));
}

#[tokio::test]
async fn a_cleanup_leaves_alone_what_is_being_prepared_and_what_is_not_ours() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = begun(directory.path()).await;
    let root = snapshots.0.directories.root().to_owned();
    for stray in ["99/fs/sub", "new-7/fs", "rm-8/fs", "lost+found"] {
        std::fs::create_dir_all(root.join(stray)).unwrap();
    }
    let draft = snapshots.0.directories.draft(&snapshots.0.steps).unwrap();
    snapshots.cleanup().await.unwrap();
    let kept = format!("new-{}", draft.id());
    assert_eq!(state(&snapshots).await.1, set(&["1", "2", "lost+found", kept.as_str()]));
    drop(draft);
    assert_eq!(state(&snapshots).await.1, set(&["1", "2", "lost+found"]));
}

#[tokio::test]
async fn a_cleanup_keeps_away_from_a_removal_though_another_one_of_the_same_snapshot_came_too_late() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = begun(directory.path()).await;
    let directories = &snapshots.0.directories;
    let (removes, too_late) = (directories.reserve(2), directories.reserve(2));
    snapshots.0.records.remove(&key("work")).unwrap();
    directories.set_aside(2).unwrap();
    drop(too_late);
    snapshots.cleanup().await.unwrap();
    assert_eq!(state(&snapshots).await.1, set(&["1", "rm-2"]));
    drop(removes);
    snapshots.cleanup().await.unwrap();
    assert_eq!(state(&snapshots).await.1, set(&["1"]));
}

#[tokio::test]
async fn numbers_are_not_used_twice_even_after_everything_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = begun(directory.path()).await;
    snapshots.remove(&key("work")).await.unwrap();
    snapshots.remove(&key("base")).await.unwrap();
    drop(snapshots);
    let snapshots = Overlay::open(directory.path()).await.unwrap();
    snapshots.prepare(&key("new"), None, Labels::new()).await.unwrap();
    assert_eq!(state(&snapshots).await.1, set(&["3"]));
}

#[tokio::test]
async fn a_listing_of_several_pages_is_complete_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Native::open(directory.path()).await.unwrap();
    let prepared = (0..600).map(|number| {
        let snapshots = snapshots.clone();
        async move { snapshots.view(&key(&format!("view-{number:04}")), None, Labels::new()).await.map(drop) }
    });
    futures::stream::iter(prepared).buffer_unordered(32).try_collect::<()>().await.unwrap();
    let infos: Vec<Info> = snapshots.walk(&[]).try_collect().await.unwrap();
    let keys: Vec<&str> = infos.iter().map(|info| info.key.as_str()).collect();
    assert_eq!(keys.len(), 600);
    assert!(keys.is_sorted());
    let filters = Filter::parse_all(["name==view-0300", "name~=00$"]).unwrap();
    assert_eq!(snapshots.walk(&filters).count().await, 6);
}
