//! What a commit verifies, and what it leaves behind.

use std::time::SystemTime;

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, IngesterExt as _, Store};
use windlass_core::digest::Algorithm;
use windlass_core::{Descriptor, Digest, Kind, Labels, MediaType};

use super::{bring, expected, read};
use crate::suite::{assert_kind, assert_recent, collect, parse, sample};

pub async fn content_without_expectations_is_committed_under_its_sha256_digest(store: &dyn Store) {
    let info = bring(store, "free", &Bytes::from_static(b"anything")).await;
    assert_eq!(info.digest, Digest::sha256(b"anything"));
    assert_eq!(store.info(&info.digest).await.unwrap(), info);
    assert_kind(store.status(&parse("free")).await, Kind::NotFound, "status after the commit");
}

pub async fn every_algorithm_addresses_a_blob(store: &dyn Store) {
    let bytes = sample(20, 70_000);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let digest = algorithm.digest(&bytes);
        let ingest = parse(algorithm.as_str());
        let declared = Expected { digest: Some(digest.clone()), size: None };
        let mut writer = store.writer(&ingest, declared.clone()).await.unwrap();
        writer.write(bytes.slice(..50_000)).await.unwrap();
        drop(writer);
        let mut writer = store.writer(&ingest, declared).await.unwrap();
        writer.write(bytes.slice(50_000..)).await.unwrap();
        assert_eq!(writer.commit(Commit::default()).await.unwrap().digest, digest);
        assert_eq!(read(store, &digest).await, bytes);
    }
}

pub async fn an_algorithm_named_at_the_commit_hashes_a_resumed_ingest_too(store: &dyn Store) {
    let bytes = sample(23, 70_000);
    for algorithm in [Algorithm::Sha512, Algorithm::Sha384, Algorithm::Sha256] {
        let ingest = parse("late");
        for part in [0..30_000, 30_000..70_000] {
            let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
            writer.write(bytes.slice(part)).await.unwrap();
        }
        let writer = store.writer(&ingest, Expected::default()).await.unwrap();
        let declared = Expected { digest: Some(algorithm.digest(&bytes)), size: Some(70_000) };
        let info = writer.commit(Commit { expected: declared, labels: Labels::new() }).await.unwrap();
        assert_eq!(info.digest, algorithm.digest(&bytes));
        assert_eq!(read(store, &info.digest).await, bytes);
    }
}

/// Asserts that nothing is left of an ingest and that its content is not here.
async fn assert_discarded(store: &dyn Store, ingest: &str, contents: &[&[u8]]) {
    assert_kind(store.status(&parse(ingest)).await, Kind::NotFound, "status after the commit");
    for content in contents {
        assert_kind(store.info(&Digest::sha256(content)).await, Kind::NotFound, "info after the commit");
    }
    let mut writer = store.writer(&parse(ingest), Expected::default()).await.expect("the ref is free again");
    assert_eq!(writer.status().await.unwrap().offset, 0);
}

pub async fn a_wrong_digest_at_commit_discards_the_ingest(store: &dyn Store) {
    let mut writer = store.writer(&parse("wrong"), expected(b"right")).await.unwrap();
    writer.write(Bytes::from_static(b"wrong")).await.unwrap();
    assert_kind(writer.commit(Commit::default()).await, Kind::DataLoss, "commit");
    assert_discarded(store, "wrong", &[b"right", b"wrong"]).await;
}

pub async fn a_wrong_size_at_commit_discards_the_ingest(store: &dyn Store) {
    let mut writer = store.writer(&parse("short"), expected(b"0123456789")).await.unwrap();
    writer.write(Bytes::from_static(b"012345678")).await.unwrap();
    assert_kind(writer.commit(Commit::default()).await, Kind::FailedPrecondition, "commit");
    assert_discarded(store, "short", &[b"0123456789", b"012345678"]).await;
}

pub async fn expectations_can_be_declared_at_commit(store: &dyn Store) {
    let wrong_size = Expected { digest: None, size: Some(9) };
    let wrong_digest = Expected { digest: Some(Digest::sha256(b"other")), size: None };
    for (declared, kind) in [(wrong_size, Kind::FailedPrecondition), (wrong_digest, Kind::DataLoss)] {
        let mut writer = store.writer(&parse("late"), Expected::default()).await.unwrap();
        writer.write(Bytes::from_static(b"12345678")).await.unwrap();
        let commit = Commit { expected: declared, labels: Labels::new() };
        assert_kind(writer.commit(commit).await, kind, "commit");
        assert_discarded(store, "late", &[b"12345678", b"other"]).await;
    }
    let mut writer = store.writer(&parse("late"), Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"12345678")).await.unwrap();
    let digest = Algorithm::Sha512.digest(b"12345678");
    let declared = Expected { digest: Some(digest.clone()), size: Some(8) };
    let info = writer.commit(Commit { expected: declared, labels: Labels::new() }).await.unwrap();
    assert_eq!(info.digest, digest, "the algorithm named at the commit is the one that counts");
}

pub async fn commit_of_a_blob_that_is_there_answers_already_exists(store: &dyn Store) {
    let bytes = sample(21, 2_000);
    let mut first = store.writer(&parse("first"), expected(&bytes)).await.unwrap();
    let mut second = store.writer(&parse("second"), expected(&bytes)).await.unwrap();
    first.write(bytes.clone()).await.unwrap();
    second.write(bytes.clone()).await.unwrap();
    first.commit(Commit::default()).await.unwrap();
    assert_kind(second.commit(Commit::default()).await, Kind::AlreadyExists, "the second commit");
    assert_kind(store.status(&parse("second")).await, Kind::NotFound, "status after the commit");
    assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
}

pub async fn a_blob_under_construction_is_invisible(store: &dyn Store) {
    let bytes = sample(22, 2_000);
    let descriptor = Descriptor::of(MediaType::OCTET_STREAM, &bytes);
    let mut writer = store.writer(&parse("invisible"), expected(&bytes)).await.unwrap();
    writer.write(bytes).await.unwrap();
    assert_kind(store.reader(&descriptor).await, Kind::NotFound, "reader");
    assert_kind(store.info(&descriptor.digest).await, Kind::NotFound, "info");
    assert!(collect(store.list(&[])).await.is_empty());
    writer.commit(Commit::default()).await.unwrap();
    store.reader(&descriptor).await.expect("a committed blob is visible");
}

pub async fn labels_given_at_commit_are_recorded(store: &dyn Store) {
    let labels = Labels::new().with("containerd.io/gc.root", "x").with("empty", "");
    let writer = store.writer(&parse("labelled"), Expected::default()).await.unwrap();
    let info = writer.commit(Commit { labels: labels.clone(), ..Commit::default() }).await.unwrap();
    assert_eq!(info.labels, labels);
    assert_eq!(store.info(&info.digest).await.unwrap().labels, labels);
}

pub async fn the_store_sets_the_times(store: &dyn Store) {
    let before = SystemTime::now();
    let info = bring(store, "times", &Bytes::from_static(b"times")).await;
    assert_recent(info.created_at, before);
    assert!(info.updated_at >= info.created_at);
}

pub async fn write_blob_succeeds_whether_or_not_it_is_there(store: &dyn Store) {
    let bytes = Bytes::from_static(b"{}");
    let descriptor = Descriptor::of(MediaType::OCI_CONFIG, &bytes);
    for _ in 0..2 {
        store.write_blob(&descriptor, bytes.clone(), Labels::new().with("a", "1")).await.unwrap();
    }
    assert_eq!(store.info(&descriptor.digest).await.unwrap().labels.get("a"), Some("1"));
}

pub async fn write_blob_starts_over_what_was_left(store: &dyn Store) {
    let bytes = Bytes::from_static(b"the whole of it");
    let descriptor = Descriptor::of(MediaType::OCI_CONFIG, &bytes);
    let mut writer = store.writer(&descriptor.ingest_ref(), (&descriptor).into()).await.unwrap();
    writer.write(Bytes::from_static(b"not")).await.unwrap();
    drop(writer);
    store.write_blob(&descriptor, bytes.clone(), Labels::new()).await.unwrap();
    assert_eq!(read(store, &descriptor.digest).await, bytes);
}
