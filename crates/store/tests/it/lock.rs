//! The root: who owns it, and which roots are opened at all.

use std::time::Duration;

use windlass_core::Kind;
use windlass_store::{LockWait, RootLock};

use super::{open, snapshotter};

#[tokio::test]
async fn a_second_owner_learns_pid_and_command_of_the_first() {
    let root = tempfile::tempdir().unwrap();
    let _first = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap();
    for wait in [LockWait::Fail, LockWait::UpTo(Duration::from_millis(100))] {
        let error = RootLock::acquire(root.path(), wait).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        let program = std::env::args().next().unwrap();
        let program = std::path::Path::new(&program).file_name().unwrap().to_str().unwrap().to_owned();
        for part in [&format!("process {}", std::process::id()), &program, root.path().to_str().unwrap()] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        assert!(error.hint_text().is_some());
    }
}

#[tokio::test]
async fn a_waiter_gets_the_root_when_the_owner_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let first = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap();
    let path = root.path().to_owned();
    let second = tokio::spawn(async move { RootLock::acquire(&path, LockWait::Forever).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished());
    drop(first);
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_root_stays_locked_while_anything_handed_out_is_in_use() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let images = store.images(&super::scope("default"));
    drop(store);
    assert!(RootLock::acquire(root.path(), LockWait::Fail).await.is_err());
    drop(images);
    RootLock::acquire(root.path(), LockWait::UpTo(Duration::from_secs(5))).await.unwrap();
}

#[tokio::test]
async fn a_lock_file_without_a_readable_owner_is_still_a_lock() {
    let root = tempfile::tempdir().unwrap();
    let _first = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap();
    std::fs::write(root.path().join("lock"), "not json").unwrap();
    let error = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[tokio::test]
async fn a_database_that_was_never_finished_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("meta.redb.new"), "half a file").unwrap();
    open(root.path()).await;
    assert!(root.path().join("meta.redb").exists() && !root.path().join("meta.redb.new").exists());
}

#[tokio::test]
async fn a_root_of_a_newer_format_is_refused_by_its_version() {
    let root = tempfile::tempdir().unwrap();
    open(root.path()).await;
    let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let database = redb::Database::open(root.path().join("meta.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert("format", b"\x0199".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let lock = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap();
    let snapshotters = [("memory".to_owned(), snapshotter(root.path()))].into();
    let error = windlass_store::Store::open(lock, snapshotters).await.err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("format 99"), "{error}");
}

#[tokio::test]
async fn a_damaged_database_is_data_loss_and_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("meta.redb"), vec![7; 8192]).unwrap();
    let lock = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap();
    let error = windlass_store::Store::open(lock, [].into()).await.err().unwrap();
    assert!(error.to_string().contains("meta.redb"), "{error}");
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    assert_eq!(std::fs::read(root.path().join("meta.redb")).unwrap(), vec![7; 8192]);
}
