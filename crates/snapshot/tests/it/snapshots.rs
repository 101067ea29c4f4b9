//! What is the same for all snapshotters: the life of a snapshot.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt as _;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::snapshot::{Commit, Info, Snapshotter, State, TARGET_LABEL};
use windlass_core::{Kind, Labels};
use windlass_snapshot::native::Native;
use windlass_snapshot::overlay::Overlay;

use crate::{key, layer, name, within};

/// Runs a test on both snapshotters, each in a directory of its own.
async fn on_both(test: impl AsyncFn(Arc<dyn Snapshotter>)) {
    let directory = tempfile::tempdir().unwrap();
    test(Arc::new(Overlay::open(&directory.path().join("overlayfs")).await.unwrap())).await;
    test(Arc::new(Native::open(&directory.path().join("native")).await.unwrap())).await;
}

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_stack_of_three_shows_what_each_layer_added_changed_and_removed() {
    on_both(async |snapshots| {
        layer(&*snapshots, "one", None, |root| {
            fs::create_dir(root.join("dir")).unwrap();
            fs::write(root.join("dir/a"), "1").unwrap();
            fs::write(root.join("dir/b"), "1").unwrap();
        })
        .await;
        layer(&*snapshots, "two", Some("one"), |root| {
            fs::remove_file(root.join("dir/a")).unwrap();
            fs::write(root.join("dir/b"), "2").unwrap();
        })
        .await;
        layer(&*snapshots, "three", Some("two"), |root| fs::write(root.join("dir/c"), "3").unwrap()).await;
        let mounts = snapshots.view(&key("view"), Some(&name("three")), Labels::new()).await.unwrap();
        within(&mounts, |root| {
            assert_eq!(names(&root.join("dir")), ["b", "c"]);
            assert_eq!(fs::read_to_string(root.join("dir/b")).unwrap(), "2");
            let error = fs::write(root.join("new"), "").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        });
        let mounts = snapshots.view(&key("first"), Some(&name("one")), Labels::new()).await.unwrap();
        within(&mounts, |root| {
            assert_eq!(names(&root.join("dir")), ["a", "b"]);
            assert_eq!(fs::read_to_string(root.join("dir/b")).unwrap(), "1");
            fs::write(root.join("new"), "").unwrap_err();
        });
    })
    .await;
}

#[tokio::test]
async fn siblings_do_not_see_each_other() {
    on_both(async |snapshots| {
        layer(&*snapshots, "base", None, |root| fs::write(root.join("shared"), "base").unwrap()).await;
        for sibling in ["a", "b"] {
            let mounts = snapshots.prepare(&key(sibling), Some(&name("base")), Labels::new()).await.unwrap();
            within(&mounts, |root| {
                fs::write(root.join(sibling), sibling).unwrap();
                fs::write(root.join("shared"), sibling).unwrap();
            });
        }
        for sibling in ["a", "b"] {
            within(&snapshots.mounts(&key(sibling)).await.unwrap(), |root| {
                assert_eq!(names(root), [sibling, "shared"]);
                assert_eq!(fs::read_to_string(root.join("shared")).unwrap(), sibling);
            });
        }
    })
    .await;
}

#[tokio::test]
async fn the_life_of_a_snapshot_has_only_the_turns_that_are_written_down() {
    on_both(async |snapshots| {
        let fails = |error: windlass_core::Error, kind: Kind, part: &str| {
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(error.to_string().contains(part), "{error}");
        };
        let none = Labels::new;
        layer(&*snapshots, "base", None, |_| {}).await;
        snapshots.prepare(&key("work"), Some(&name("base")), none()).await.unwrap();
        snapshots.view(&key("view"), Some(&name("base")), none()).await.unwrap();

        fails(snapshots.stat(&key("absent")).await.unwrap_err(), Kind::NotFound, "absent");
        fails(snapshots.prepare(&key("work"), None, none()).await.unwrap_err(), Kind::AlreadyExists, "work");
        fails(snapshots.view(&key("base"), None, none()).await.unwrap_err(), Kind::AlreadyExists, "base");
        fails(snapshots.prepare(&key("x"), Some(&name("absent")), none()).await.unwrap_err(), Kind::NotFound, "absent");
        fails(
            snapshots.prepare(&key("x"), Some(&name("work")), none()).await.unwrap_err(),
            Kind::FailedPrecondition,
            "work",
        );
        fails(snapshots.mounts(&key("base")).await.unwrap_err(), Kind::FailedPrecondition, "committed");
        let commit = async |to: &str, from: &str| snapshots.commit(&name(to), &key(from), Commit::default()).await;
        fails(commit("base", "work").await.unwrap_err(), Kind::AlreadyExists, "base");
        fails(commit("done", "view").await.unwrap_err(), Kind::FailedPrecondition, "view");
        fails(commit("done", "base").await.unwrap_err(), Kind::FailedPrecondition, "base");
        fails(commit("done", "absent").await.unwrap_err(), Kind::NotFound, "absent");
        fails(snapshots.remove(&key("base")).await.unwrap_err(), Kind::FailedPrecondition, "children");
        fails(snapshots.remove(&key("absent")).await.unwrap_err(), Kind::NotFound, "absent");

        assert_eq!(
            snapshots.stat(&key("work")).await.unwrap().state,
            State::Active,
            "a refused commit changes nothing"
        );
        commit("done", "work").await.unwrap();
        fails(snapshots.stat(&key("work")).await.unwrap_err(), Kind::NotFound, "work");
        assert_eq!(snapshots.stat(&key("done")).await.unwrap().parent, Some(name("base")));
        for last in ["view", "done", "base"] {
            snapshots.remove(&key(last)).await.unwrap();
        }
        assert!(snapshots.walk(&[]).try_collect::<Vec<_>>().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_target_label_says_that_the_work_is_done_already() {
    on_both(async |snapshots| {
        let labels = || Labels::new().with(TARGET_LABEL, "base");
        snapshots.prepare(&key("one"), None, labels()).await.unwrap();
        snapshots.prepare(&key("two"), None, labels()).await.unwrap();
        snapshots.commit(&name("base"), &key("one"), Commit::default()).await.unwrap();
        let error = snapshots.prepare(&key("three"), None, labels()).await.unwrap_err();
        assert!(error.is(Kind::AlreadyExists) && error.to_string().contains("base"), "{error:?}");
        let error = snapshots.commit(&name("base"), &key("two"), Commit::default()).await.unwrap_err();
        assert!(error.is(Kind::AlreadyExists));
        snapshots.remove(&key("two")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn labels_are_kept_changed_and_found() {
    on_both(async |snapshots| {
        snapshots.prepare(&key("work"), None, Labels::new().with("a", "1").with("b", "1")).await.unwrap();
        let commit = Commit { labels: Labels::new().with("b", "2").with("c", "2"), parent: None };
        snapshots.commit(&name("done"), &key("work"), commit).await.unwrap();
        let before = snapshots.stat(&key("done")).await.unwrap();
        assert_eq!(before.labels, Labels::new().with("a", "1").with("b", "2").with("c", "2"));

        let change = Info { labels: Labels::new().with("a", "3"), ..before.clone() };
        let mask = FieldMask::parse(["labels.a", "labels.c"]).unwrap();
        let after = snapshots.update(&change, &mask).await.unwrap();
        assert_eq!(after.labels, Labels::new().with("a", "3").with("b", "2"));
        assert_eq!(after.created_at, before.created_at);
        assert!(after.updated_at > before.updated_at);
        let error = snapshots.update(&change, &FieldMask::parse(["parent"]).unwrap()).await.unwrap_err();
        assert!(error.is(Kind::InvalidArgument) && error.to_string().contains("parent"), "{error:?}");
        let long = Labels::new().with("a", "x".repeat(5000));
        assert!(snapshots.prepare(&key("long"), None, long).await.unwrap_err().is(Kind::InvalidArgument));

        let filters = Filter::parse_all(["kind==active", "labels.a==3"]).unwrap();
        let found: Vec<Info> = snapshots.walk(&filters).try_collect().await.unwrap();
        assert_eq!(found, [after]);
    })
    .await;
}

#[tokio::test]
async fn what_is_open_twice_is_refused_and_what_is_reopened_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Overlay::open(directory.path()).await.unwrap();
    layer(&snapshots, "base", None, |root| fs::write(root.join("file"), "1").unwrap()).await;
    layer(&snapshots, "top", Some("base"), |root| fs::write(root.join("other"), "1").unwrap()).await;
    let mounts = snapshots.prepare(&key("work"), Some(&name("top")), Labels::new()).await.unwrap();
    let before: Vec<Info> = snapshots.walk(&[]).try_collect().await.unwrap();
    let usage = snapshots.usage(&key("top")).await.unwrap();
    let error = Overlay::open(directory.path()).await.err().unwrap();
    assert!(error.is(Kind::Unavailable), "{error:?}");
    drop(snapshots);

    let snapshots = Overlay::open(directory.path()).await.unwrap();
    let after: Vec<Info> = snapshots.walk(&[]).try_collect().await.unwrap();
    assert_eq!(before, after);
    assert_eq!(snapshots.usage(&key("top")).await.unwrap(), usage);
    assert_eq!(snapshots.mounts(&key("work")).await.unwrap(), mounts);
}

#[tokio::test]
async fn half_a_database_that_a_crash_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let half = directory.path().join("records.redb.new");
    fs::write(&half, vec![0; 1 << 20]).unwrap();
    for _ in 0..2 {
        let snapshots = Overlay::open(directory.path()).await.unwrap();
        if snapshots.stat(&key("work")).await.is_err() {
            snapshots.prepare(&key("work"), None, Labels::new()).await.unwrap();
        }
        assert_eq!(snapshots.stat(&key("work")).await.unwrap().key, key("work"));
    }
    assert!(!half.exists());
}

#[tokio::test]
async fn a_damaged_database_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Native::open(directory.path()).await.unwrap();
    layer(&snapshots, "base", None, |_| {}).await;
    drop(snapshots);
    let file = directory.path().join("records.redb");
    fs::write(&file, b"this is no database").unwrap();
    let error = Native::open(directory.path()).await.err().unwrap();
    assert!(error.is(Kind::DataLoss) && error.to_string().contains("records.redb"), "{error:?}");
    assert_eq!(fs::read(&file).unwrap(), b"this is no database", "and it is not overwritten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_all_succeed_and_one_of_equals_wins() {
    on_both(async |snapshots| {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..48 {
            let snapshots = snapshots.clone();
            tasks.spawn(async move {
                let work = key(&format!("work-{number}"));
                snapshots.prepare(&work, None, Labels::new()).await.unwrap();
                // Three want each name.
                snapshots.commit(&name(&format!("layer-{}", number / 3)), &work, Commit::default()).await
            });
        }
        let results = tasks.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 16);
        assert!(results.iter().all(|result| result.as_ref().err().is_none_or(|error| error.is(Kind::AlreadyExists))));
        let committed = Filter::parse_all(["kind==committed"]).unwrap();
        assert_eq!(snapshots.walk(&committed).try_collect::<Vec<_>>().await.unwrap().len(), 16);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..16 {
            let snapshots = snapshots.clone();
            tasks.spawn(async move { snapshots.remove(&key(&format!("layer-{number}"))).await });
        }
        assert!(tasks.join_all().await.iter().all(Result::is_ok));
        snapshots.cleanup().await.unwrap();
        assert_eq!(snapshots.walk(&[]).try_collect::<Vec<_>>().await.unwrap().len(), 32);
    })
    .await;
}
