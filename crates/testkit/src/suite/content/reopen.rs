//! What is still there after the store was closed and opened again on the same directory.

use std::path::Path;
use std::sync::Arc;

use windlass_core::content::{Commit, Expected, Store};
use windlass_core::field::FieldMask;
use windlass_core::{Digest, Kind, Labels};

use super::{bring, expected, read};
use crate::suite::{assert_kind, parse, sample};

pub async fn blobs_and_labels_survive_a_restart(make: &impl AsyncFn(&Path) -> Arc<dyn Store>, root: &Path) {
    let bytes = sample(40, 100_000);
    let store = make(root).await;
    let mut info = bring(&*store, "blob", &bytes).await;
    info.labels = Labels::new().with("a", "1");
    let info = store.update(&info, &FieldMask::all()).await.unwrap();
    drop(store);
    let store = make(root).await;
    assert_eq!(store.info(&info.digest).await.unwrap(), info);
    assert_eq!(read(&*store, &info.digest).await, bytes);
}

pub async fn a_deleted_blob_stays_deleted_after_a_restart(make: &impl AsyncFn(&Path) -> Arc<dyn Store>, root: &Path) {
    let store = make(root).await;
    let digest = bring(&*store, "blob", &sample(41, 100)).await.digest;
    store.delete(&digest).await.unwrap();
    drop(store);
    assert_kind(make(root).await.info(&digest).await, Kind::NotFound, "info");
}

pub async fn an_ingest_continues_after_a_restart(make: &impl AsyncFn(&Path) -> Arc<dyn Store>, root: &Path) {
    let bytes = sample(42, 400_000);
    let ingest = parse("resumed");
    let mut offset = 0;
    for step in [100_000, 1, 150_003] {
        let store = make(root).await;
        let mut writer = store.writer(&ingest, expected(&bytes)).await.unwrap();
        assert_eq!(writer.status().await.unwrap().offset, offset as u64);
        writer.write(bytes.slice(offset..offset + step)).await.unwrap();
        offset += step;
    }
    let store = make(root).await;
    assert_eq!(store.status(&ingest).await.unwrap().offset, offset as u64);
    let mut writer = store.writer(&ingest, expected(&bytes)).await.unwrap();
    writer.write(bytes.slice(offset..)).await.unwrap();
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(&*store, &Digest::sha256(&bytes)).await, bytes);
}

pub async fn what_was_declared_survives_a_restart(make: &impl AsyncFn(&Path) -> Arc<dyn Store>, root: &Path) {
    let ingest = parse("declared");
    drop(make(root).await.writer(&ingest, expected(b"content")).await.unwrap());
    let store = make(root).await;
    let status = store.status(&ingest).await.unwrap();
    assert_eq!((status.total, status.expected), (Some(7), Some(Digest::sha256(b"content"))));
    let otherwise = Expected { size: Some(8), ..expected(b"content") };
    assert_kind(store.writer(&ingest, otherwise).await, Kind::FailedPrecondition, "a writer");
}
