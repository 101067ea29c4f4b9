//! What a process that died leaves behind, made by hand, and what the next one makes of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, IngestRef, ProviderExt as _};
use windlass_core::gc::Collector as _;
use windlass_core::{Descriptor, Kind, Labels, content};
use windlass_store::{LockWait, RootLock};

use super::{blob_path, bring, ingest, open, scope};

const REF: &str = "layer-1";

fn key() -> IngestRef {
    REF.parse().unwrap()
}

/// Bytes over several chunks and checkpoints.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

/// Writes the first part of a blob, drops the writer, and returns when nothing of it is under way any more.
async fn begin(root: &Path, part: &[u8], expected: Expected) {
    let store = open(root).await;
    let mut writer = store.content(&scope("default")).writer(&key(), expected).await.unwrap();
    writer.write(Bytes::copy_from_slice(part)).await.unwrap();
    drop((writer, store));
    // Whoever still writes holds the root.
    drop(RootLock::acquire(root, LockWait::UpTo(Duration::from_secs(10))).await.unwrap());
}

/// Returns the directory of the only ingest.
fn ingest_directory(root: &Path) -> PathBuf {
    let mut all = std::fs::read_dir(root.join("content/ingest")).unwrap();
    let only = all.next().unwrap().unwrap().path();
    assert!(all.next().is_none());
    only
}

/// Continues the ingest where it stands and commits it.
async fn finish(root: &Path, whole: &[u8], expected: Expected) -> windlass_core::Result<content::Info> {
    let store = open(root).await;
    let mut writer = store.content(&scope("default")).writer(&key(), expected).await?;
    let offset = usize::try_from(writer.status().await?.offset).unwrap();
    writer.write(Bytes::copy_from_slice(&whole[offset..])).await?;
    writer.commit(Commit::default()).await
}

#[tokio::test]
async fn a_writer_dropped_midway_is_continued_by_another_process() {
    let root = tempfile::tempdir().unwrap();
    let whole = bytes(20 << 20);
    let expected = Expected::from(&Descriptor::of("a/b", &whole));
    begin(root.path(), &whole[..18 << 20], expected.clone()).await;
    let store = open(root.path()).await;
    let status = store.content(&scope("default")).status(&key()).await.unwrap();
    assert_eq!((status.offset, status.total, &status.expected), (18 << 20, expected.size, &expected.digest));
    drop(store);
    let info = finish(root.path(), &whole, expected.clone()).await.unwrap();
    assert_eq!(Some(info.digest), expected.digest);
    assert!(std::fs::read_dir(root.path().join("content/ingest")).unwrap().next().is_none());
}

#[tokio::test]
async fn the_hash_is_continued_and_not_made_again() {
    let root = tempfile::tempdir().unwrap();
    let whole = bytes(3 << 20);
    let expected = Expected::from(&Descriptor::of("a/b", &whole));
    begin(root.path(), &whole[..2 << 20], expected.clone()).await;
    // Bytes that were hashed already are not looked at again, so that a change of them goes unnoticed here. Reading the
    // blob back is what finds it.
    let data = ingest_directory(root.path()).join("data");
    let mut damaged = std::fs::read(&data).unwrap();
    damaged[0] ^= 1;
    std::fs::write(&data, damaged).unwrap();
    finish(root.path(), &whole, expected).await.expect("the saved hash covers the first bytes");
}

#[tokio::test]
async fn without_a_usable_state_the_data_is_hashed_again() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("missing", |state| std::fs::remove_file(state).unwrap()),
        ("empty", |state| std::fs::write(state, "").unwrap()),
        ("torn", |state| std::fs::write(state, &std::fs::read(state).unwrap()[..100]).unwrap()),
        ("flipped", |state| {
            let mut bytes = std::fs::read(state).unwrap();
            let last = bytes.len() - 20;
            bytes[last] ^= 2;
            std::fs::write(state, bytes).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let root = tempfile::tempdir().unwrap();
        let whole = bytes(3 << 20);
        let expected = Expected::from(&Descriptor::of("a/b", &whole));
        begin(root.path(), &whole[..2 << 20], expected.clone()).await;
        damage(&ingest_directory(root.path()).join("state"));
        let info = finish(root.path(), &whole, expected.clone()).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(Some(info.digest), expected.digest, "{what}");
    }
}

#[tokio::test]
async fn data_that_is_shorter_than_its_state_says_is_hashed_again() {
    let root = tempfile::tempdir().unwrap();
    let whole = bytes(3 << 20);
    let expected = Expected::from(&Descriptor::of("a/b", &whole));
    begin(root.path(), &whole[..2 << 20], expected.clone()).await;
    // A power cut may lose the end of a file that was never synced.
    let data = std::fs::File::options().write(true).open(ingest_directory(root.path()).join("data")).unwrap();
    data.set_len(1 << 20).unwrap();
    finish(root.path(), &whole, expected).await.unwrap();
}

#[tokio::test]
async fn a_truncated_ingest_does_not_continue_an_older_hash() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("default"));
    let mut writer = content.writer(&key(), Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"hello wrong")).await.unwrap();
    drop(writer);
    let mut writer = content.writer(&key(), Expected::default()).await.unwrap();
    writer.truncate(6).await.unwrap();
    drop(writer);
    let mut writer = content.writer(&key(), Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"world!")).await.unwrap();
    let info = writer.commit(Commit::default()).await.unwrap();
    assert_eq!(info.digest, windlass_core::Digest::sha256(b"hello world!"));
}

#[tokio::test]
async fn an_ingest_directory_without_its_files_is_a_new_ingest() {
    for left in [&["ref", "state", "data"][..], &["ref"], &["data", "state"]] {
        let root = tempfile::tempdir().unwrap();
        begin(root.path(), b"half", Expected::default()).await;
        let directory = ingest_directory(root.path());
        for name in left {
            std::fs::remove_file(directory.join(name)).unwrap();
        }
        std::fs::write(directory.join("state.new"), "stale").unwrap();
        finish(root.path(), b"half and half", Expected::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_blob_without_a_record_is_collected() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let descriptor = Descriptor::of("a/b", b"no record");
    std::fs::write(blob_path(root.path(), &descriptor), b"no record").unwrap();
    let collected = store.collect().await.unwrap();
    assert_eq!((collected.blobs.count, collected.blobs.bytes, collected.contents), (1, 9, 0));
    assert!(!blob_path(root.path(), &descriptor).exists());
}

#[tokio::test]
async fn a_blob_without_a_record_is_adopted_by_who_wants_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let descriptor = Descriptor::of("a/b", b"no record");
    std::fs::write(blob_path(root.path(), &descriptor), b"no record").unwrap();
    let content = store.content(&scope("default"));
    let error = content.writer(&key(), Expected::from(&descriptor)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    assert_eq!(content.info(&descriptor.digest).await.unwrap().size, 9);
}

#[tokio::test]
async fn an_ingest_that_outlived_its_commit_goes_when_its_content_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    begin(root.path(), b"content", Expected::default()).await;
    let store = open(root.path()).await;
    let content = store.content(&scope("default"));
    let info = ingest(&*content, "another", b"content", Expected::default()).await;
    let expected = Expected { digest: Some(info.digest), size: Some(info.size) };
    assert_eq!(content.writer(&key(), expected).await.err().unwrap().kind(), Kind::AlreadyExists);
    assert!(content.statuses(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_recorded_blob_whose_bytes_are_gone_is_data_loss_and_can_be_brought_again() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("default"));
    let descriptor = bring(&*content, b"precious", Labels::new().with("kept", "1")).await;
    let path = blob_path(root.path(), &descriptor);
    for damage in ["gone", "short"] {
        std::fs::remove_file(&path).unwrap();
        if damage == "short" {
            std::fs::write(&path, b"prec").unwrap();
        }
        let error = content.reader(&descriptor).await.err().unwrap();
        assert_eq!(error.kind(), Kind::DataLoss, "{error}");
        assert!(error.hint_text().is_some());
        bring(&*content, b"precious", Labels::new()).await;
        assert_eq!(content.reader(&descriptor).await.unwrap().size(), 8);
        assert_eq!(content.info(&descriptor.digest).await.unwrap().labels.get("kept"), Some("1"));
    }
}

#[tokio::test]
async fn a_second_writer_learns_age_and_offset_of_the_first() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("default"));
    let mut writer = content.writer(&key(), Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"12345")).await.unwrap();
    let error = content.writer(&key(), Expected::default()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    for part in [REF, "since 0 s", "byte 5"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn committed_blobs_are_read_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let descriptor = bring(&*store.content(&scope("default")), b"x", Labels::new()).await;
    let mode = std::fs::metadata(blob_path(root.path(), &descriptor)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncation_that_nobody_waits_for_is_over_before_the_next_writer_begins() {
    for round in 0..20 {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path()).await;
        let content = store.content(&scope("default"));
        let bytes = Bytes::from(vec![round; 3 << 20]);
        let descriptor = Descriptor::of("application/octet-stream", &bytes);
        let key = "k".parse().unwrap();
        let mut writer = content.writer(&key, Expected::from(&descriptor)).await.unwrap();
        writer.write(bytes.slice(..2 << 20)).await.unwrap();
        let mut truncation = Box::pin(async move { writer.truncate(0).await });
        let _ = futures::poll!(&mut truncation);
        drop(truncation);
        let mut writer = content.writer(&key, Expected::from(&descriptor)).await.unwrap();
        let offset = usize::try_from(writer.status().await.unwrap().offset).unwrap();
        writer.write(bytes.slice(offset..)).await.unwrap();
        writer.commit(Commit::default()).await.unwrap();
        assert_eq!(content.read_all(&descriptor, 4 << 20).await.unwrap(), bytes, "round {round}");
    }
}
