//! Reading, and the life of an ingest up to its commit.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::join_all;
use windlass_core::content::{Commit, Expected, IngestRef, ProviderExt as _, Store};
use windlass_core::digest::Algorithm;
use windlass_core::{Descriptor, Digest, Kind, MediaType};

use super::{bring, expected, read};
use crate::suite::{assert_kind, assert_recent, filters, parse, sample};

pub async fn a_blob_is_read_as_it_was_written(store: &dyn Store) {
    let bytes = sample(1, 100_000);
    let info = bring(store, "blob", &bytes).await;
    assert_eq!((info.digest.clone(), info.size), (Digest::sha256(&bytes), 100_000));
    assert_eq!(read(store, &info.digest).await, bytes);
}

pub async fn an_empty_blob_is_a_blob(store: &dyn Store) {
    let writer = store.writer(&parse("empty"), expected(b"")).await.unwrap();
    let info = writer.commit(Commit::default()).await.unwrap();
    assert_eq!(info.size, 0);
    let reader = store.reader(&Descriptor::of(MediaType::OCTET_STREAM, b"")).await.unwrap();
    assert_eq!(reader.size(), 0);
    assert!(reader.read_at(0, 10).await.unwrap().is_empty());
}

pub async fn a_blob_of_several_megabytes_arrives_in_odd_pieces(store: &dyn Store) {
    let bytes = sample(2, 5_000_011);
    let mut writer = store.writer(&parse("large"), expected(&bytes)).await.unwrap();
    let (mut at, mut length) = (0, 0);
    while at < bytes.len() {
        let end = (at + length).min(bytes.len());
        writer.write(bytes.slice(at..end)).await.unwrap();
        (at, length) = (end, length * 2 + 1);
        if length > 1_500_000 {
            length = 0;
        }
    }
    let info = writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &info.digest).await, bytes);
}

pub async fn read_at_any_offset(store: &dyn Store) {
    let bytes = sample(3, 10_000);
    let info = bring(store, "blob", &bytes).await;
    let descriptor = Descriptor::new(MediaType::OCTET_STREAM, info.digest, info.size);
    let reader = store.reader(&descriptor).await.unwrap();
    assert_eq!(reader.size(), 10_000);
    for (offset, length, expected) in [
        (0, 10_000, 0..10_000),
        (0, 0, 0..0),
        (1, 1, 1..2),
        (4_095, 4_097, 4_095..8_192),
        (9_999, 1, 9_999..10_000),
        (9_990, 1_000_000, 9_990..10_000),
        (10_000, 10, 0..0),
        (u64::MAX / 2, 10, 0..0),
    ] {
        let part = reader.read_at(offset, length).await.unwrap();
        assert_eq!(part, bytes.slice(expected), "{length} bytes at {offset}");
    }
    let parts = join_all((0..10).map(|part| reader.read_at(part * 1_000, 1_000))).await;
    let whole: Vec<u8> = parts.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(whole, bytes, "many readers at once");
}

pub async fn an_absent_blob_is_not_found(store: &dyn Store) {
    let descriptor = Descriptor::of(MediaType::OCTET_STREAM, b"absent");
    assert_kind(store.reader(&descriptor).await, Kind::NotFound, "reader");
    assert_kind(store.info(&descriptor.digest).await, Kind::NotFound, "info");
}

pub async fn read_all_refuses_more_than_its_limit(store: &dyn Store) {
    let info = bring(store, "blob", &sample(4, 1_000)).await;
    let descriptor = Descriptor::new(MediaType::OCTET_STREAM, info.digest, info.size);
    assert_eq!(store.read_all(&descriptor, 1_000).await.unwrap().len(), 1_000);
    assert_kind(store.read_all(&descriptor, 999).await, Kind::ResourceExhausted, "read_all");
}

pub async fn a_reader_outlives_the_deletion_of_its_blob(store: &dyn Store) {
    let bytes = sample(4, 10_000);
    let info = bring(store, "blob", &bytes).await;
    let descriptor = Descriptor::new(MediaType::OCTET_STREAM, info.digest, info.size);
    let reader = store.reader(&descriptor).await.unwrap();
    store.delete(&descriptor.digest).await.unwrap();
    assert_eq!(reader.read_at(1, 20_000).await.unwrap(), bytes.slice(1..));
}

pub async fn a_second_writer_on_a_ref_is_refused(store: &dyn Store) {
    let ingest = parse("ref");
    let mut first = store.writer(&ingest, Expected::default()).await.unwrap();
    first.write(sample(5, 1_234)).await.unwrap();
    let refused = store.writer(&ingest, Expected::default()).await.err().expect("the ref is locked");
    assert_eq!(refused.kind(), Kind::Unavailable);
    let said = refused.to_string();
    assert!(said.contains("ref") && said.contains("since 0 s") && said.contains("at byte 1234"), "{said}");
    drop(first);
    store.writer(&ingest, Expected::default()).await.expect("a dropped writer unlocks the ref");
}

pub async fn of_many_openers_at_once_exactly_one_wins(store: &dyn Store) {
    let ingest = parse("ref");
    let opened = join_all((0..16).map(|_| store.writer(&ingest, Expected::default()))).await;
    assert_eq!(opened.iter().filter(|result| result.is_ok()).count(), 1);
    for refused in opened.into_iter().filter(Result::is_err) {
        assert_kind(refused, Kind::Unavailable, "an opener that came late");
    }
}

pub async fn writers_on_different_refs_do_not_meet(store: &dyn Store) {
    let (one, two) = (sample(5, 3_000), sample(6, 3_000));
    let mut first = store.writer(&parse("one"), expected(&one)).await.unwrap();
    let mut second = store.writer(&parse("two"), expected(&two)).await.unwrap();
    for at in (0..3_000).step_by(500) {
        first.write(one.slice(at..at + 500)).await.unwrap();
        second.write(two.slice(at..at + 500)).await.unwrap();
    }
    first.commit(Commit::default()).await.unwrap();
    second.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &Digest::sha256(&one)).await, one);
    assert_eq!(read(store, &Digest::sha256(&two)).await, two);
}

pub async fn a_dropped_writer_leaves_a_resumable_ingest(store: &dyn Store) {
    let bytes = sample(7, 300_000);
    let ingest = parse("resumed");
    let mut writer = store.writer(&ingest, expected(&bytes)).await.unwrap();
    writer.write(bytes.slice(..123_457)).await.unwrap();
    drop(writer);
    assert_eq!(store.status(&ingest).await.unwrap().offset, 123_457);

    let mut writer = store.writer(&ingest, expected(&bytes)).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 123_457);
    writer.write(bytes.slice(123_457..)).await.unwrap();
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
}

pub async fn a_closed_ingest_says_when_it_was_written_last(store: &dyn Store) {
    let ingest = parse("dated");
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    writer.write(sample(8, 1000)).await.unwrap();
    writer.status().await.unwrap();
    let written_by = SystemTime::now();
    // Longer than the clock of a filesystem takes for a step.
    tokio::time::sleep(Duration::from_millis(30)).await;
    drop(writer);
    assert!(store.status(&ingest).await.unwrap().updated_at <= written_by);
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    assert!(writer.status().await.unwrap().updated_at <= written_by);
    drop(writer);
    assert!(store.status(&ingest).await.unwrap().updated_at <= written_by);
}

pub async fn a_writer_that_was_never_written_to_can_be_opened_again(store: &dyn Store) {
    let ingest = parse("untouched");
    drop(store.writer(&ingest, Expected::default()).await.unwrap());
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 0);
}

pub async fn any_ref_is_only_a_name(store: &dyn Store) {
    let longest = "x".repeat(IngestRef::MAX_LEN);
    let odd = ["../../etc/passwd", "/absolute", ".", "..", "a/b/c", "ä ö", "layer-sha256:abc", "A", "a", &longest];
    for (seed, name) in (100..).zip(odd) {
        let bytes = sample(seed, 100);
        let mut writer = store.writer(&parse(name), Expected::default()).await.unwrap();
        writer.write(bytes).await.unwrap();
        drop(writer);
        assert_eq!(store.status(&parse(name)).await.unwrap().ingest.as_str(), name);
    }
    assert_eq!(store.statuses(&[]).await.unwrap().len(), odd.len());
    for (seed, name) in (100..).zip(odd) {
        let writer = store.writer(&parse(name), Expected::default()).await.unwrap();
        let info = writer.commit(Commit::default()).await.unwrap();
        assert_eq!(info.digest, Digest::sha256(&sample(seed, 100)), "{name:?}");
    }
}

pub async fn content_that_is_here_is_not_written_again(store: &dyn Store) {
    let bytes = sample(8, 1_000);
    bring(store, "first", &bytes).await;
    let digest_alone = Expected { digest: Some(Digest::sha256(&bytes)), size: None };
    for declared in [expected(&bytes), digest_alone] {
        assert_kind(store.writer(&parse("second"), declared).await, Kind::AlreadyExists, "a writer");
    }
    assert!(store.statuses(&[]).await.unwrap().is_empty(), "a refused writer leaves no ingest");
}

pub async fn an_ingest_declared_otherwise_is_refused(store: &dyn Store) {
    let ingest = parse("declared");
    let mut writer = store.writer(&ingest, expected(b"what it is")).await.unwrap();
    writer.write(Bytes::from_static(b"what")).await.unwrap();
    drop(writer);
    let otherwise = [
        Expected { digest: Some(Digest::sha256(b"another")), size: Some(10) },
        Expected { size: Some(11), ..expected(b"what it is") },
    ];
    for declared in otherwise {
        assert_kind(store.writer(&ingest, declared).await, Kind::FailedPrecondition, "a writer");
    }
    let mut writer = store.writer(&ingest, expected(b"what it is")).await.expect("the ingest is still there");
    assert_eq!(writer.status().await.unwrap().offset, 4);
}

pub async fn an_ingest_that_is_longer_than_what_is_declared_is_refused(store: &dyn Store) {
    let ingest = parse("long");
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"0123456789")).await.unwrap();
    drop(writer);
    let declared = Expected { digest: None, size: Some(9) };
    assert_kind(store.writer(&ingest, declared).await, Kind::FailedPrecondition, "a writer");
    let status = store.status(&ingest).await.unwrap();
    assert_eq!((status.offset, status.total), (10, None), "a refused opener changes nothing");
}

pub async fn what_is_declared_later_counts(store: &dyn Store) {
    let ingest = parse("later");
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"01234")).await.unwrap();
    drop(writer);
    let mut writer = store.writer(&ingest, expected(b"0123456789")).await.unwrap();
    let status = writer.status().await.unwrap();
    assert_eq!((status.offset, status.total), (5, Some(10)));
    assert_eq!(status.expected, Some(Digest::sha256(b"0123456789")));
    assert_kind(writer.write(Bytes::from_static(b"56789x")).await, Kind::OutOfRange, "a write beyond the size");
    drop(writer);
    // And stays declared for an opener who says nothing.
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    assert_eq!(writer.status().await.unwrap().total, Some(10));
    writer.write(Bytes::from_static(b"wrong")).await.unwrap();
    assert_kind(writer.commit(Commit::default()).await, Kind::DataLoss, "commit");
}

pub async fn the_status_tells_what_was_declared(store: &dyn Store) {
    let before = SystemTime::now();
    let mut writer = store.writer(&parse("status"), expected(b"0123456789")).await.unwrap();
    writer.write(Bytes::from_static(b"0123")).await.unwrap();
    let status = writer.status().await.unwrap();
    assert_eq!(status.ingest.as_str(), "status");
    assert_eq!((status.offset, status.total), (4, Some(10)));
    assert_eq!(status.expected, Some(Digest::sha256(b"0123456789")));
    assert_recent(status.started_at, before);
    assert!(status.updated_at >= status.started_at);

    let mut undeclared = store.writer(&parse("undeclared"), Expected::default()).await.unwrap();
    let status = undeclared.status().await.unwrap();
    assert_eq!((status.offset, status.total, status.expected), (0, None, None));
}

pub async fn the_store_and_the_writer_agree_on_the_status(store: &dyn Store) {
    let ingest = parse("status");
    assert_kind(store.status(&ingest).await, Kind::NotFound, "status of an absent ingest");
    let mut writer = store.writer(&ingest, expected(b"0123456789")).await.unwrap();
    writer.write(Bytes::from_static(b"01234")).await.unwrap();
    let (seen, told) = (store.status(&ingest).await.unwrap(), writer.status().await.unwrap());
    assert_eq!((seen.offset, seen.total, &seen.expected), (told.offset, told.total, &told.expected));
    assert_eq!(seen.offset, 5);
    let listed = store.statuses(&[]).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].offset, 5);
}

pub async fn statuses_by_filter(store: &dyn Store) {
    for name in ["layer-1", "layer-2", "config-1"] {
        drop(store.writer(&parse(name), expected(name.as_bytes())).await.unwrap());
    }
    let names = async |texts: &[&str]| {
        let filters: Vec<_> = texts.iter().map(|text| parse(text)).collect();
        let statuses = store.statuses(&filters).await.unwrap();
        let mut names: Vec<String> = statuses.into_iter().map(|status| status.ingest.into()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]).await, ["config-1", "layer-1", "layer-2"]);
    assert_eq!(names(&["ref~=^layer"]).await, ["layer-1", "layer-2"]);
    assert_eq!(names(&["ref==config-1", "ref==layer-2"]).await, ["config-1", "layer-2"]);
    assert!(store.statuses(&filters(["ref==none"])).await.unwrap().is_empty());
}

pub async fn a_digest_before_the_commit_is_that_of_what_is_here(store: &dyn Store) {
    // Beyond what a store may gather before it writes.
    let bytes = sample(12, 2_500_000);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let (ingest, digest) = (parse("told"), algorithm.digest(&bytes));
        let declared = Expected { digest: Some(digest.clone()), size: None };
        let mut writer = store.writer(&ingest, declared.clone()).await.unwrap();
        let mut at = 0;
        for length in [0, 1, 100, 400_000, 0, 1_000_000, 99_899, 700_000] {
            writer.write(bytes.slice(at..at + length)).await.unwrap();
            at += length;
            let Some(told) = writer.digest().await.unwrap() else { return };
            assert_eq!(told, algorithm.digest(&bytes[..at]), "after {at} bytes");
        }
        writer.truncate(200_000).await.unwrap();
        assert_eq!(writer.digest().await.unwrap(), Some(algorithm.digest(&bytes[..200_000])), "after a cut");
        drop(writer);
        let mut writer = store.writer(&ingest, declared).await.unwrap();
        assert_eq!(writer.digest().await.unwrap(), Some(algorithm.digest(&bytes[..200_000])), "opened again");
        writer.write(bytes.slice(200_000..)).await.unwrap();
        assert_eq!(writer.digest().await.unwrap(), Some(digest.clone()));
        assert_eq!(writer.commit(Commit::default()).await.unwrap().digest, digest);
    }
}

pub async fn too_many_bytes_are_refused(store: &dyn Store) {
    let bytes = sample(9, 1_000);
    let mut writer = store.writer(&parse("short"), expected(&bytes)).await.unwrap();
    writer.write(bytes.slice(..999)).await.unwrap();
    assert_kind(writer.write(Bytes::from_static(b"xy")).await, Kind::OutOfRange, "a write beyond the size");
    assert_eq!(writer.status().await.unwrap().offset, 999, "what was written before stays");
    writer.write(bytes.slice(999..)).await.unwrap();
    assert_kind(writer.write(Bytes::from_static(b"x")).await, Kind::OutOfRange, "a byte after the last one");
    writer.commit(Commit::default()).await.unwrap();
}

pub async fn truncate_then_write(store: &dyn Store) {
    let bytes = sample(10, 200_000);
    for (name, keep) in [("to-nothing", 0), ("to-a-part", 100_001), ("to-all", 150_000)] {
        let mut wrong = bytes.slice(..150_000).to_vec();
        wrong[keep..].fill(0);
        let mut writer = store.writer(&parse(name), Expected::default()).await.unwrap();
        writer.write(wrong.into()).await.unwrap();
        writer.truncate(keep as u64).await.unwrap();
        assert_eq!(writer.status().await.unwrap().offset, keep as u64);
        writer.write(bytes.slice(keep..)).await.unwrap();
        let info = writer.commit(Commit::default()).await.unwrap();
        assert_eq!(info.digest, Digest::sha256(&bytes), "{name}");
        assert_eq!(read(store, &info.digest).await, bytes, "{name}");
        store.delete(&info.digest).await.unwrap();
    }
}

pub async fn a_resumed_ingest_is_truncated_and_continued(store: &dyn Store) {
    let bytes = sample(11, 300_000);
    let ingest = parse("resumed");
    let mut wrong = bytes.slice(..250_000).to_vec();
    wrong[70_001..].fill(0);
    let mut writer = store.writer(&ingest, expected(&bytes)).await.unwrap();
    writer.write(wrong.into()).await.unwrap();
    drop(writer);
    for keep in [200_000, 70_001] {
        let mut writer = store.writer(&ingest, expected(&bytes)).await.unwrap();
        writer.truncate(keep).await.unwrap();
        drop(writer);
        assert_eq!(store.status(&ingest).await.unwrap().offset, keep);
    }
    let mut writer = store.writer(&ingest, expected(&bytes)).await.unwrap();
    writer.write(bytes.slice(70_001..)).await.unwrap();
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
}

pub async fn truncate_beyond_the_end_is_refused(store: &dyn Store) {
    let mut writer = store.writer(&parse("ref"), Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"12345")).await.unwrap();
    assert_kind(writer.truncate(6).await, Kind::OutOfRange, "truncate");
    assert_eq!(writer.status().await.unwrap().offset, 5);
}

pub async fn abort_discards_the_ingest(store: &dyn Store) {
    let ingest = parse("aborted");
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"gone")).await.unwrap();
    drop(writer);
    store.abort(&ingest).await.unwrap();
    assert_kind(store.status(&ingest).await, Kind::NotFound, "status");
    let mut writer = store.writer(&ingest, Expected::default()).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 0);
}

pub async fn abort_is_refused_while_a_writer_holds_the_ingest(store: &dyn Store) {
    let ingest = parse("held");
    let writer = store.writer(&ingest, Expected::default()).await.unwrap();
    assert_kind(store.abort(&ingest).await, Kind::Unavailable, "abort");
    drop(writer);
    store.abort(&ingest).await.unwrap();
}

pub async fn abort_of_an_absent_ingest_is_not_found(store: &dyn Store) {
    assert_kind(store.abort(&parse("absent")).await, Kind::NotFound, "abort");
}
