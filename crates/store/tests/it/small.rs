//! Blobs that are small enough to be committed before anything of them is on the disk.

use std::path::Path;

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, IngestRef};
use windlass_core::{Descriptor, Digest, Kind};

use super::{bring, open, scope};

const BYTES: &[u8] = b"a small blob";

fn key() -> IngestRef {
    "small-1".parse().unwrap()
}

fn files(root: &Path, directory: &str) -> usize {
    std::fs::read_dir(root.join("content").join(directory)).unwrap().count()
}

#[tokio::test]
async fn one_in_progress_is_listed_and_locked_with_nothing_on_the_disk() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("n"));
    let expected = Expected { digest: Some(Digest::sha256(BYTES)), size: Some(12) };
    let mut writer = content.writer(&key(), expected).await.unwrap();
    writer.write(Bytes::from_static(&BYTES[..7])).await.unwrap();
    assert_eq!((files(root.path(), "ingest"), files(root.path(), "small")), (0, 0));

    let status = content.status(&key()).await.unwrap();
    assert_eq!((status.offset, status.total, status.expected), (7, Some(12), Some(Digest::sha256(BYTES))));
    assert_eq!(content.statuses(&[]).await.unwrap()[0].ingest, key());
    assert!(content.writer(&key(), Expected::default()).await.err().unwrap().is(Kind::Unavailable));
    assert!(store.namespaces().delete(&scope("n").namespace).await.unwrap_err().to_string().contains("1 ingest"));
    assert!(store.content(&scope("other")).status(&key()).await.unwrap_err().is(Kind::NotFound));

    writer.write(Bytes::from_static(&BYTES[7..])).await.unwrap();
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!((files(root.path(), "ingest"), files(root.path(), "small")), (0, 0));
    assert!(content.status(&key()).await.unwrap_err().is(Kind::NotFound));
    assert_eq!(content.info(&Digest::sha256(BYTES)).await.unwrap().size, 12);
}

#[tokio::test]
async fn one_that_is_dropped_is_an_ingest_like_any_other() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("n"));
    let expected = Expected { digest: Some(Digest::sha256(BYTES)), size: Some(12) };
    let mut writer = content.writer(&key(), expected.clone()).await.unwrap();
    writer.write(Bytes::from_static(&BYTES[..7])).await.unwrap();
    let started_at = writer.status().await.unwrap().started_at;
    drop(writer);
    assert_eq!(files(root.path(), "ingest"), 1);
    let status = content.status(&key()).await.unwrap();
    assert_eq!((status.offset, status.started_at), (7, started_at));
    let other = Expected { size: Some(13), ..Expected::default() };
    assert!(content.writer(&key(), other).await.err().unwrap().is(Kind::FailedPrecondition));

    let mut writer = content.writer(&key(), expected).await.unwrap();
    writer.write(Bytes::from_static(&BYTES[7..])).await.unwrap();
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(files(root.path(), "ingest"), 0);
}

#[tokio::test]
async fn one_that_is_cut_back_goes_on_from_there() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let mut writer = store.content(&scope("n")).writer(&key(), Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"a wrong blob")).await.unwrap();
    assert!(writer.truncate(13).await.unwrap_err().is(Kind::OutOfRange));
    writer.truncate(2).await.unwrap();
    writer.write(Bytes::from_static(&BYTES[2..])).await.unwrap();
    assert_eq!(writer.commit(Commit::default()).await.unwrap().digest, Digest::sha256(BYTES));
}

#[tokio::test]
async fn one_that_is_wrong_or_here_already_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("n"));
    for (expected, kind) in [
        (Expected { digest: Some(Digest::sha256(b"another")), size: None }, Kind::DataLoss),
        (Expected { digest: None, size: Some(11) }, Kind::FailedPrecondition),
        (Expected::default(), Kind::AlreadyExists),
    ] {
        if kind == Kind::AlreadyExists {
            bring(&*content, BYTES, windlass_core::Labels::new()).await;
        }
        let mut writer = content.writer(&key(), Expected::default()).await.unwrap();
        writer.write(Bytes::from_static(BYTES)).await.unwrap();
        let failed = writer.commit(Commit { expected, ..Commit::default() }).await.unwrap_err();
        assert_eq!(failed.kind(), kind, "{failed}");
        assert_eq!((files(root.path(), "ingest"), files(root.path(), "small")), (0, 0));
    }
}

#[tokio::test]
async fn what_a_crash_left_on_the_way_goes_when_the_store_is_opened() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()).await);
    std::fs::write(root.path().join("content/small/left"), BYTES).unwrap();
    let store = open(root.path()).await;
    assert_eq!(files(root.path(), "small"), 0);
    bring(&*store.content(&scope("n")), BYTES, windlass_core::Labels::new()).await;
}

#[tokio::test]
async fn one_that_cannot_be_written_on_the_way_takes_the_way_of_an_ingest() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    // In place of the directory, so that nothing can be made in it.
    std::fs::remove_dir(root.path().join("content/small")).unwrap();
    let descriptor: Descriptor = bring(&*store.content(&scope("n")), BYTES, windlass_core::Labels::new()).await;
    assert_eq!(store.content(&scope("n")).info(&descriptor.digest).await.unwrap().size, 12);
    assert_eq!(files(root.path(), "ingest"), 0);
}
