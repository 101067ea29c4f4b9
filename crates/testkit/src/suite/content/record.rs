//! The records of committed blobs.

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, IngesterExt as _, Store};
use windlass_core::field::FieldMask;
use windlass_core::{Descriptor, Digest, Kind, Labels, MediaType};

use super::{bring, read};
use crate::suite::{assert_kind, collect, filters, mask, parse, sample};

/// Brings a small blob that has labels.
async fn labelled(store: &dyn Store, content: &'static [u8], labels: Labels) -> Digest {
    let descriptor = Descriptor::of(MediaType::OCTET_STREAM, content);
    store.write_blob(&descriptor, Bytes::from_static(content), labels).await.unwrap();
    descriptor.digest
}

pub async fn list_by_filter(store: &dyn Store) {
    let one = labelled(store, b"one", Labels::new().with("kind", "layer")).await;
    let two = labelled(store, b"two", Labels::new().with("kind", "config").with("a.b/c", "x")).await;
    let three = labelled(store, b"three", Labels::new()).await;
    let listed = async |texts: &[&str]| {
        let filters: Vec<_> = texts.iter().map(|text| parse(text)).collect();
        let mut digests: Vec<_> = collect(store.list(&filters)).await.into_iter().map(|info| info.digest).collect();
        digests.sort();
        digests
    };
    let sorted = |digests: &[&Digest]| {
        let mut digests: Vec<Digest> = digests.iter().copied().cloned().collect();
        digests.sort();
        digests
    };
    assert_eq!(listed(&[]).await, sorted(&[&one, &two, &three]));
    assert_eq!(listed(&["labels.kind"]).await, sorted(&[&one, &two]));
    assert_eq!(listed(&["labels.kind==layer"]).await, sorted(&[&one]));
    assert_eq!(listed(&[r#"labels."a.b/c"~=^x$,labels.kind==config"#]).await, sorted(&[&two]));
    assert_eq!(listed(&["labels.kind==layer", &format!("digest=={three}")]).await, sorted(&[&one, &three]));
    assert_eq!(listed(&["size==5"]).await, sorted(&[&three]));
    assert_eq!(listed(&["size!=3"]).await, sorted(&[&three]));
    assert_eq!(listed(&["labels.kind!=layer"]).await, sorted(&[&two, &three]));
    assert_eq!(listed(&[&format!("digest~=^{one}$,size==3")]).await, sorted(&[&one]));
    assert!(collect(store.list(&filters(["size==1000000", "no.such.field"]))).await.is_empty());
}

pub async fn update_replaces_all_labels_with_an_empty_mask(store: &dyn Store) {
    let digest = labelled(store, b"blob", Labels::new().with("a", "1").with("b", "2")).await;
    let before = store.info(&digest).await.unwrap();
    let mut change = before.clone();
    change.labels = Labels::new().with("c", "3");
    change.size = 0;
    let updated = store.update(&change, &FieldMask::all()).await.unwrap();
    assert_eq!(updated.labels, change.labels);
    assert_eq!((updated.size, updated.created_at), (before.size, before.created_at), "only labels can be changed");
    assert!(updated.updated_at >= before.updated_at);
    assert_eq!(store.info(&digest).await.unwrap(), updated);
}

pub async fn labels_by_mask(store: &dyn Store) {
    let digest = labelled(store, b"blob", Labels::new().with("a.x", "1").with("b", "2").with("c", "3")).await;
    let mut change = store.info(&digest).await.unwrap();
    change.labels = Labels::new().with("a.x", "changed").with("b", "ignored").with("d", "ignored");
    let updated = store.update(&change, &mask(["labels.a.x", "labels.c"])).await.unwrap();
    assert_eq!(updated.labels, Labels::new().with("a.x", "changed").with("b", "2"), "a label without value goes");
    let updated = store.update(&change, &mask(["labels"])).await.unwrap();
    assert_eq!(updated.labels, change.labels);
}

pub async fn update_with_an_unknown_field_is_refused(store: &dyn Store) {
    let digest = labelled(store, b"blob", Labels::new().with("a", "1")).await;
    let before = store.info(&digest).await.unwrap();
    let mut change = before.clone();
    change.labels = Labels::new().with("a", "2");
    for unknown in ["size", "digest", "label", "created_at.x"] {
        let result = store.update(&change, &mask(["labels.a", unknown])).await;
        assert_kind(result, Kind::InvalidArgument, unknown);
    }
    assert_eq!(store.info(&digest).await.unwrap(), before, "a refused update changes nothing");
}

pub async fn update_of_an_absent_blob_is_not_found(store: &dyn Store) {
    let digest = labelled(store, b"blob", Labels::new()).await;
    let info = store.info(&digest).await.unwrap();
    store.delete(&digest).await.unwrap();
    assert_kind(store.update(&info, &FieldMask::all()).await, Kind::NotFound, "update");
}

pub async fn labels_over_the_limit_are_refused(store: &dyn Store) {
    let fits = Labels::new().with("key", "v".repeat(Labels::MAX_LEN - 3));
    let digest = labelled(store, b"blob", fits).await;
    let mut change = store.info(&digest).await.unwrap();
    change.labels = Labels::new().with("key", "v".repeat(Labels::MAX_LEN - 2));
    let too_long = change.labels.clone();
    assert_kind(store.update(&change, &FieldMask::all()).await, Kind::InvalidArgument, "update");
    assert_kind(store.update(&change, &mask(["labels.key"])).await, Kind::InvalidArgument, "update by mask");

    let writer = store.writer(&parse("late"), Expected::default()).await.unwrap();
    let commit = Commit { labels: too_long, ..Commit::default() };
    assert_kind(writer.commit(commit).await, Kind::InvalidArgument, "commit");
}

pub async fn labels_refused_at_the_commit_cost_no_bytes(store: &dyn Store) {
    let ingest = parse("late");
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"bytes")).await.unwrap();
    for labels in [Labels::new().with("key", "v".repeat(Labels::MAX_LEN - 2)), Labels::new().with("", "no key")] {
        let commit = Commit { labels, ..Commit::default() };
        assert_kind(writer.commit(commit).await, Kind::InvalidArgument, "commit");
        writer = store.writer(&ingest, Expected::default()).await.unwrap();
        assert_eq!(writer.status().await.unwrap().offset, 5);
    }
    writer.commit(Commit::default()).await.unwrap();
}

pub async fn delete_removes_the_record(store: &dyn Store) {
    let kept = bring(store, "kept", &sample(30, 100)).await.digest;
    let gone = bring(store, "gone", &sample(31, 100)).await.digest;
    store.delete(&gone).await.unwrap();
    assert_kind(store.info(&gone).await, Kind::NotFound, "info");
    let descriptor = Descriptor::new(MediaType::OCTET_STREAM, gone, 100);
    assert_kind(store.reader(&descriptor).await, Kind::NotFound, "reader");
    let left: Vec<Digest> = collect(store.list(&[])).await.into_iter().map(|info| info.digest).collect();
    assert_eq!(left, std::slice::from_ref(&kept));
    assert_eq!(read(store, &kept).await, sample(30, 100));
}

pub async fn delete_of_an_absent_blob_is_not_found(store: &dyn Store) {
    assert_kind(store.delete(&Digest::sha256(b"absent")).await, Kind::NotFound, "delete");
}

pub async fn a_deleted_blob_can_be_brought_again(store: &dyn Store) {
    for _ in 0..3 {
        let digest = labelled(store, b"again", Labels::new()).await;
        assert_eq!(read(store, &digest).await, &b"again"[..]);
        store.delete(&digest).await.unwrap();
    }
}
