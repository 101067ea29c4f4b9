//! Writing an ingest at several places.

#![expect(clippy::single_range_in_vec_init, reason = "a list of ranges that has one")]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use windlass_core::content::{Commit, SparseWriter, Store, Writer};
use windlass_core::{Digest, Kind};

use super::tail::{assert_waits, read_some, spawn_read, tail};
use super::{expected, read};
use crate::suite::{assert_kind, parse, sample};

/// What the cases write.
const SIZE: usize = 3_000_017;

async fn sparse(writer: &mut Box<dyn Writer>) -> Arc<dyn SparseWriter> {
    writer.sparse().await.unwrap().expect("the size was declared")
}

/// Writes ranges of some bytes where they belong.
async fn put(hands: &dyn SparseWriter, bytes: &Bytes, ranges: impl IntoIterator<Item = Range<usize>>) {
    for range in ranges {
        hands.write_at(range.start as u64, bytes.slice(range)).await.unwrap();
    }
}

/// Leaves an ingest with nothing but these ranges of some bytes.
async fn leave(store: &dyn Store, bytes: &Bytes, ranges: impl IntoIterator<Item = Range<usize>>) {
    let mut writer = store.writer(&parse("sparse"), expected(bytes)).await.unwrap();
    put(&*sparse(&mut writer).await, bytes, ranges).await;
}

pub async fn an_ingest_is_written_in_any_order(store: &dyn Store) {
    for size in [10, SIZE] {
        let bytes = sample(80, size);
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        let hands = sparse(&mut writer).await;
        assert_eq!(hands.gaps().await.unwrap(), [0..size as u64]);
        let tenth = |at: usize| at * size / 10..(at + 1) * size / 10;
        for (at, offset) in [(9, 0), (3, 0), (0, 1), (5, 1), (1, 2), (2, 4), (8, 4), (4, 6), (7, 6), (6, 10)] {
            put(&*hands, &bytes, [tenth(at)]).await;
            let status = writer.status().await.unwrap();
            assert_eq!(status.offset, (offset * size / 10) as u64, "after {at}: the first gap");
            assert_eq!(store.status(&parse("sparse")).await.unwrap().offset, status.offset);
        }
        assert!(hands.gaps().await.unwrap().is_empty());
        writer.commit(Commit::default()).await.unwrap();
        assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
    }
}

pub async fn an_ingest_is_written_at_several_places_at_once(store: &dyn Store) {
    let bytes = sample(81, SIZE);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let hands = sparse(&mut writer).await;
    // Each place is written by two, who agree on what belongs there.
    let places: Vec<usize> = (0..SIZE).step_by(70_001).collect();
    let writes = places.iter().rev().chain(&places).map(async |&at| {
        let end = (at + 70_001).min(SIZE);
        let parts = bytes.slice(at..end).chunks(9_000).map(Bytes::copy_from_slice).collect();
        hands.write_parts_at(at as u64, parts).await
    });
    assert!(join_all(writes).await.into_iter().all(|written| written.is_ok()));
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
}

pub async fn gaps_are_left_to_the_next_writer(store: &dyn Store) {
    let bytes = sample(82, SIZE);
    leave(store, &bytes, [2_000_000..2_500_000, 0..1_000, 500_000..600_000]).await;
    let status = store.status(&parse("sparse")).await.unwrap();
    assert_eq!((status.offset, status.total), (1_000, Some(SIZE as u64)));
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 1_000);
    let hands = sparse(&mut writer).await;
    let gaps = hands.gaps().await.unwrap();
    assert_eq!(gaps, [1_000..500_000, 600_000..2_000_000, 2_500_000..SIZE as u64]);
    for gap in gaps.into_iter().rev() {
        put(&*hands, &bytes, [usize::try_from(gap.start).unwrap()..usize::try_from(gap.end).unwrap()]).await;
    }
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
}

pub async fn what_was_appended_is_continued_at_several_places(store: &dyn Store) {
    let bytes = sample(83, SIZE);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    writer.write(bytes.slice(..1_100_000)).await.unwrap();
    let hands = sparse(&mut writer).await;
    assert_eq!(hands.gaps().await.unwrap(), [1_100_000..SIZE as u64]);
    put(&*hands, &bytes, [2_000_000..SIZE, 1_100_000..2_000_000]).await;
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
}

pub async fn bytes_that_are_here_are_not_written_again(store: &dyn Store) {
    let bytes = sample(84, SIZE);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let hands = sparse(&mut writer).await;
    put(&*hands, &bytes, [100_000..200_000, 300_000..400_000]).await;
    let mut mixed = bytes.slice(50_000..450_000).to_vec();
    mixed[50_000..150_000].fill(0);
    mixed[250_000..350_000].fill(0);
    hands.write_at(50_000, mixed.into()).await.unwrap();
    assert_eq!(hands.gaps().await.unwrap(), [0..50_000, 450_000..SIZE as u64]);
    hands.write_at(120_000, Bytes::from_static(&[0; 1_000])).await.unwrap();
    put(&*hands, &bytes, [0..SIZE]).await;
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
}

pub async fn a_commit_with_a_gap_is_refused_and_keeps_the_ingest(store: &dyn Store) {
    let bytes = sample(85, SIZE);
    for (here, gap) in [(0..SIZE - 1, SIZE - 1..SIZE), (1..SIZE - 1, 0..1)] {
        leave(store, &bytes, [here]).await;
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        drop(sparse(&mut writer).await);
        assert_kind(writer.commit(Commit::default()).await, Kind::FailedPrecondition, "commit");
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        let gaps = sparse(&mut writer).await.gaps().await.unwrap();
        assert!(gaps.contains(&(gap.start as u64..gap.end as u64)), "{gaps:?}");
        drop(writer);
        store.abort(&parse("sparse")).await.unwrap();
    }
    // Also when nobody asked for the gaps.
    leave(store, &bytes, [5..SIZE]).await;
    let writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    assert_kind(writer.commit(Commit::default()).await, Kind::FailedPrecondition, "commit");
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let hands = sparse(&mut writer).await;
    assert_eq!(hands.gaps().await.unwrap(), [0..5]);
    put(&*hands, &bytes, [0..5]).await;
    writer.commit(Commit::default()).await.unwrap();
}

pub async fn a_sparse_ingest_with_a_wrong_digest_is_discarded(store: &dyn Store) {
    let bytes = sample(86, SIZE);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let hands = sparse(&mut writer).await;
    let mut wrong = bytes.to_vec();
    wrong[2_000_000] ^= 1;
    put(&*hands, &wrong.into(), [1_500_000..SIZE, 0..1_500_000]).await;
    assert_kind(writer.commit(Commit::default()).await, Kind::DataLoss, "commit");
    assert_kind(store.status(&parse("sparse")).await, Kind::NotFound, "status");
    assert_kind(hands.write_at(0, bytes).await, Kind::Aborted, "a write after the commit");
}

pub async fn a_write_beyond_the_declared_size_is_refused(store: &dyn Store) {
    let bytes = sample(87, SIZE);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let hands = sparse(&mut writer).await;
    for offset in [SIZE as u64 - 1, SIZE as u64, SIZE as u64 + 1, u64::MAX] {
        assert_kind(hands.write_at(offset, Bytes::from_static(b"xy")).await, Kind::OutOfRange, "a write");
        let parts = vec![Bytes::from_static(b"x"), Bytes::from_static(b"y")];
        assert_kind(hands.write_parts_at(offset.max(SIZE as u64), parts).await, Kind::OutOfRange, "a write of parts");
    }
    assert!(hands.gaps().await.unwrap().iter().any(|gap| gap.contains(&0)), "nothing else happened");
    hands.write_at(SIZE as u64, Bytes::new()).await.unwrap();
    put(&*hands, &bytes, [0..SIZE]).await;
    writer.commit(Commit::default()).await.unwrap();
}

pub async fn a_tail_behind_a_sparse_writer_reads_up_to_the_first_gap(store: &dyn Store) {
    let bytes = sample(88, SIZE);
    leave(store, &bytes, [0..100_000, 1_000_000..1_500_000]).await;
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let before = tail(&mut writer).await;
    let hands = sparse(&mut writer).await;
    let after = tail(&mut writer).await;
    put(&*hands, &bytes, [2_000_000..SIZE]).await;
    for tail in [&before, &after] {
        assert_eq!(read_some(&**tail, 0, 100_000).await.unwrap(), bytes.slice(..100_000));
        assert_eq!(tail.read_at(99_990, 1_000).await.unwrap(), bytes.slice(99_990..100_000), "no further than the gap");
    }
    let reads = [&before, &after].map(|tail| spawn_read(tail, 0, SIZE));
    let island = spawn_read(&after, 1_200_000, 10);
    assert_waits(&island).await;
    put(&*hands, &bytes, [100_000..1_000_000]).await;
    assert_eq!(island.await.unwrap().unwrap(), bytes.slice(1_200_000..1_200_010));
    for read in &reads {
        assert_waits(read).await;
    }
    put(&*hands, &bytes, [1_500_000..2_000_000]).await;
    writer.commit(Commit::default()).await.unwrap();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap(), bytes);
    }
}

pub async fn a_tail_of_little_content_becomes_one_behind_a_sparse_writer(store: &dyn Store) {
    let bytes = sample(94, 1_000);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let tail = tail(&mut writer).await;
    writer.write(bytes.slice(..100)).await.unwrap();
    let hands = sparse(&mut writer).await;
    assert_eq!(hands.gaps().await.unwrap(), [100..1_000]);
    let whole = spawn_read(&tail, 0, 1_000);
    put(&*hands, &bytes, [500..1_000]).await;
    assert_waits(&whole).await;
    put(&*hands, &bytes, [100..500]).await;
    assert_eq!(whole.await.unwrap().unwrap(), bytes);
    writer.commit(Commit::default()).await.unwrap();
}

pub async fn appending_gives_up_what_is_behind_the_first_gap(store: &dyn Store) {
    let bytes = sample(89, SIZE);
    let mut wrong = bytes.to_vec();
    wrong[1_000_000..].fill(0);
    leave(store, &wrong.into(), [0..200_000, 1_000_000..2_000_000]).await;
    store.abort(&parse("sparse")).await.unwrap();
    // Now with the digest of the right ones declared.
    for step in [1, 900_000, 2_800_017] {
        let mut zeros = bytes.slice(..200_000).to_vec();
        zeros.resize(SIZE, 0);
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        put(&*sparse(&mut writer).await, &zeros.into(), [0..200_000, 1_000_000..SIZE]).await;
        drop(writer);
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        assert_eq!(writer.status().await.unwrap().offset, 200_000);
        writer.write(bytes.slice(200_000..200_000 + step)).await.unwrap();
        assert_eq!(writer.status().await.unwrap().offset, 200_000 + step as u64);
        drop(writer);
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        assert_eq!(writer.status().await.unwrap().offset, 200_000 + step as u64);
        let hands = sparse(&mut writer).await;
        assert!(hands.gaps().await.unwrap().iter().all(|gap| gap.end == SIZE as u64), "islands are gone");
        put(&*hands, &bytes, [200_000 + step..SIZE]).await;
        writer.commit(Commit::default()).await.unwrap();
        assert_eq!(read(store, &Digest::sha256(&bytes)).await, bytes);
        store.delete(&Digest::sha256(&bytes)).await.unwrap();
    }
}

pub async fn cutting_back_gives_up_what_is_behind(store: &dyn Store) {
    let bytes = sample(90, SIZE);
    for keep in [200_000, 50_000, 0] {
        let mut zeros = bytes.slice(..200_000).to_vec();
        zeros.resize(SIZE, 0);
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        put(&*sparse(&mut writer).await, &zeros.into(), [0..200_000, 1_000_000..SIZE]).await;
        drop(writer);
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        assert_kind(writer.truncate(200_001).await, Kind::OutOfRange, "truncate");
        writer.truncate(keep).await.unwrap();
        assert_eq!(writer.status().await.unwrap().offset, keep);
        drop(writer);
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        assert_eq!(sparse(&mut writer).await.gaps().await.unwrap(), [keep..SIZE as u64]);
        drop(writer);
        let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
        writer.write(bytes.slice(usize::try_from(keep).unwrap()..)).await.unwrap();
        writer.commit(Commit::default()).await.unwrap();
        store.delete(&Digest::sha256(&bytes)).await.unwrap();
    }
}

pub async fn a_writer_with_several_hands_does_not_append(store: &dyn Store) {
    let bytes = sample(91, SIZE);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let hands = sparse(&mut writer).await;
    put(&*hands, &bytes, [0..10]).await;
    assert_kind(writer.write(bytes.slice(10..20)).await, Kind::FailedPrecondition, "write");
    assert_kind(writer.truncate(0).await, Kind::FailedPrecondition, "truncate");
    assert_eq!(sparse(&mut writer).await.gaps().await.unwrap(), [10..SIZE as u64], "another call returns the same");
}

pub async fn the_hands_of_a_writer_go_with_it(store: &dyn Store) {
    let bytes = sample(92, SIZE);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let dropped = sparse(&mut writer).await;
    drop(writer);
    assert_kind(dropped.write_at(0, bytes.slice(..10)).await, Kind::Aborted, "a write after the writer");
    assert_kind(dropped.gaps().await, Kind::Aborted, "the gaps after the writer");
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let hands = sparse(&mut writer).await;
    assert_kind(dropped.write_at(0, bytes.slice(..10)).await, Kind::Aborted, "a write beside the next writer");
    put(&*hands, &bytes, [0..SIZE]).await;
    writer.commit(Commit::default()).await.unwrap();
    assert_kind(hands.write_at(0, bytes).await, Kind::Aborted, "a write after the commit");
}

pub async fn gaps_survive_a_restart(make: &impl AsyncFn(&Path) -> Arc<dyn Store>, root: &Path) {
    let bytes = sample(93, SIZE);
    leave(&*make(root).await, &bytes, [1_000_000..2_000_000, 10..20]).await;
    leave(&*make(root).await, &bytes, [0..15, 2_500_000..SIZE]).await;
    let store = make(root).await;
    assert_eq!(store.status(&parse("sparse")).await.unwrap().offset, 20);
    let mut writer = store.writer(&parse("sparse"), expected(&bytes)).await.unwrap();
    let hands = sparse(&mut writer).await;
    assert_eq!(hands.gaps().await.unwrap(), [20..1_000_000, 2_000_000..2_500_000]);
    put(&*hands, &bytes, [20..2_500_000]).await;
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(&*store, &Digest::sha256(&bytes)).await, bytes);
}
