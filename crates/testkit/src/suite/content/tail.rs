//! Reading behind a writer.

use std::sync::Arc;

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, ReaderAt, Store, Writer};
use windlass_core::{Digest, Kind, Result};

use super::copy::{BEFORE, Filed};
use super::{bring, expected, read};
use crate::suite::{assert_kind, parse, sample};

/// One that stays in memory until the commit in some stores, and one that certainly does not.
const SIZES: [usize; 2] = [70_000, 5_000_011];

/// Opens a tail, which this writer has.
pub(super) async fn tail(writer: &mut Box<dyn Writer>) -> Arc<dyn ReaderAt> {
    writer.tail().await.unwrap().expect("the size was declared")
}

/// Reads so many bytes at an offset, in as many reads as it takes.
pub(super) async fn read_some(reader: &dyn ReaderAt, offset: usize, length: usize) -> Result<Bytes> {
    let mut all = Vec::new();
    while all.len() < length {
        let part = reader.read_at((offset + all.len()) as u64, length - all.len()).await?;
        assert!(!part.is_empty(), "nothing at {} of {}", offset + all.len(), reader.size());
        assert!(part.len() <= length - all.len(), "more than asked for");
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}

/// Gives a read every opportunity to end, and asserts that it does not.
pub(super) async fn assert_waits<T>(read: &tokio::task::JoinHandle<T>) {
    for _ in 0..50 {
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
    }
    assert!(!read.is_finished(), "a read at the edge waits");
}

pub(super) fn spawn_read(
    reader: &Arc<dyn ReaderAt>,
    offset: usize,
    length: usize,
) -> tokio::task::JoinHandle<Result<Bytes>> {
    let reader = reader.clone();
    tokio::spawn(async move { read_some(&*reader, offset, length).await })
}

pub async fn a_tail_reads_what_was_written(store: &dyn Store) {
    for size in SIZES {
        let bytes = sample(60, size);
        let half = size / 2;
        let mut writer = store.writer(&parse(&format!("tail-{size}")), expected(&bytes)).await.unwrap();
        let tail = tail(&mut writer).await;
        assert_eq!(tail.size(), size as u64);
        writer.write(bytes.slice(..half)).await.unwrap();
        assert_eq!(read_some(&*tail, 0, half).await.unwrap(), bytes.slice(..half));
        assert_eq!(read_some(&*tail, half - 9, 9).await.unwrap(), bytes.slice(half - 9..half));
        let over_the_edge = tail.read_at(half as u64 - 5, 100).await.unwrap();
        assert!(!over_the_edge.is_empty() && bytes.slice(half - 5..half).starts_with(&over_the_edge));
        assert!(tail.read_at(0, 0).await.unwrap().is_empty());
        assert!(tail.read_at(size as u64, 10).await.unwrap().is_empty(), "nothing is behind the declared size");
        assert!(tail.read_at(u64::MAX, 10).await.unwrap().is_empty());
    }
}

pub async fn a_tail_reads_what_the_writer_read_of_a_file(store: &dyn Store) {
    let bytes = sample(59, SIZES[1]);
    let (begin, end) = (1_000_000, 4_000_000);
    let file = Filed::new(&bytes).file;
    let mut writer = store.writer(&parse("tail-file"), expected(&bytes)).await.unwrap();
    let tail = tail(&mut writer).await;
    let whole = spawn_read(&tail, 0, bytes.len());
    writer.write(bytes.slice(..begin)).await.unwrap();
    if !writer.write_file(&file, BEFORE + begin as u64..BEFORE + end as u64).await.unwrap() {
        writer.write(bytes.slice(begin..end)).await.unwrap();
    }
    writer.write(bytes.slice(end..)).await.unwrap();
    assert_eq!(whole.await.unwrap().unwrap(), bytes);
    writer.commit(Commit::default()).await.unwrap();
}

pub async fn a_tail_waits_at_the_edge(store: &dyn Store) {
    for size in SIZES {
        let bytes = sample(61, size);
        let mut writer = store.writer(&parse(&format!("tail-{size}")), expected(&bytes)).await.unwrap();
        let tail = tail(&mut writer).await;
        let whole = spawn_read(&tail, 0, size);
        let last = spawn_read(&tail, size - 1, 1);
        assert_waits(&whole).await;
        writer.write(bytes.slice(..size - 1)).await.unwrap();
        assert_waits(&whole).await;
        assert_waits(&last).await;
        writer.write(bytes.slice(size - 1..)).await.unwrap();
        assert_eq!(whole.await.unwrap().unwrap(), bytes);
        assert_eq!(last.await.unwrap().unwrap(), bytes.slice(size - 1..));
        drop(writer);
    }
}

pub async fn a_tail_follows_a_writer_to_the_blob(store: &dyn Store) {
    for (at, size) in SIZES.into_iter().enumerate() {
        let bytes = sample(62 + at as u64, size);
        let mut writer = store.writer(&parse("tail"), expected(&bytes)).await.unwrap();
        let tails = [tail(&mut writer).await, tail(&mut writer).await];
        let reads = tails.each_ref().map(|tail| spawn_read(tail, 0, size));
        for part in bytes.chunks(33_333) {
            writer.write(Bytes::copy_from_slice(part)).await.unwrap();
        }
        writer.commit(Commit::default()).await.unwrap();
        for read in reads {
            assert_eq!(read.await.unwrap().unwrap(), bytes);
        }
        let digest = Digest::sha256(&bytes);
        assert_eq!(read(store, &digest).await, bytes);
        store.delete(&digest).await.unwrap();
        assert_eq!(read_some(&*tails[0], 7, size - 7).await.unwrap(), bytes.slice(7..), "it is a reader of the blob");
    }
}

pub async fn a_tail_of_a_resumed_ingest_begins_with_what_is_here(store: &dyn Store) {
    for size in SIZES {
        let bytes = sample(64, size);
        let mut writer = store.writer(&parse("tail"), expected(&bytes)).await.unwrap();
        writer.write(bytes.slice(..size / 3)).await.unwrap();
        drop(writer);
        let mut writer = store.writer(&parse("tail"), expected(&bytes)).await.unwrap();
        let tail = tail(&mut writer).await;
        assert_eq!(read_some(&*tail, 0, size / 3).await.unwrap(), bytes.slice(..size / 3));
        let rest = spawn_read(&tail, size / 3 - 1, size - size / 3);
        writer.write(bytes.slice(size / 3..size - 1)).await.unwrap();
        writer.write(bytes.slice(size - 1..)).await.unwrap();
        assert_eq!(rest.await.unwrap().unwrap(), bytes.slice(size / 3 - 1..size - 1));
        writer.commit(Commit::default()).await.unwrap();
        store.delete(&Digest::sha256(&bytes)).await.unwrap();
    }
}

pub async fn a_tail_ends_when_the_writer_is_dropped(store: &dyn Store) {
    for size in SIZES {
        let bytes = sample(65, size);
        let mut writer = store.writer(&parse("tail"), expected(&bytes)).await.unwrap();
        let tail = tail(&mut writer).await;
        writer.write(bytes.slice(..size / 2)).await.unwrap();
        let waiting = spawn_read(&tail, size / 2, 1);
        assert_waits(&waiting).await;
        drop(writer);
        assert_kind(waiting.await.unwrap(), Kind::Aborted, "a read that waits");
        assert_kind(tail.read_at(0, 1).await, Kind::Aborted, "a read of what was there");
        store.abort(&parse("tail")).await.unwrap();
    }
}

pub async fn a_tail_ends_when_the_writer_cuts_back(store: &dyn Store) {
    for size in SIZES {
        let bytes = sample(66, size);
        let mut wrong = bytes.slice(..size / 2).to_vec();
        wrong[size / 4..].fill(0);
        let mut writer = store.writer(&parse("tail"), expected(&bytes)).await.unwrap();
        let before = tail(&mut writer).await;
        writer.write(wrong.into()).await.unwrap();
        let waiting = spawn_read(&before, size - 1, 1);
        writer.truncate(size as u64 / 4).await.unwrap();
        assert_kind(waiting.await.unwrap(), Kind::Aborted, "a read that waits");
        assert_kind(before.read_at(0, 1).await, Kind::Aborted, "a read of what was there");
        let after = tail(&mut writer).await;
        writer.write(bytes.slice(size / 4..)).await.unwrap();
        assert_eq!(read_some(&*after, 0, size).await.unwrap(), bytes);
        writer.commit(Commit::default()).await.unwrap();
        store.delete(&Digest::sha256(&bytes)).await.unwrap();
    }
}

pub async fn a_tail_ends_when_the_digest_is_wrong(store: &dyn Store) {
    for size in SIZES {
        let mut wrong = sample(67, size).to_vec();
        let declared = expected(&wrong);
        *wrong.last_mut().unwrap() ^= 1;
        let mut writer = store.writer(&parse("tail"), declared).await.unwrap();
        let tail = tail(&mut writer).await;
        writer.write(wrong.into()).await.unwrap();
        assert_eq!(read_some(&*tail, 0, size).await.unwrap().len(), size);
        assert_kind(writer.commit(Commit::default()).await, Kind::DataLoss, "commit");
        assert_kind(tail.read_at(0, 1).await, Kind::Aborted, "a read of bytes that are wrong");
    }
}

pub async fn a_tail_outlives_a_commit_of_what_is_here_already(store: &dyn Store) {
    let bytes = sample(68, 50_000);
    let mut writer = store.writer(&parse("late"), expected(&bytes)).await.unwrap();
    let tail = tail(&mut writer).await;
    writer.write(bytes.clone()).await.unwrap();
    bring(store, "first", &bytes).await;
    assert_kind(writer.commit(Commit::default()).await, Kind::AlreadyExists, "commit");
    assert_eq!(read_some(&*tail, 0, 50_000).await.unwrap(), bytes);
}

pub async fn without_a_declared_size_there_is_no_tail(store: &dyn Store) {
    let declared = Expected { digest: Some(Digest::sha256(b"some")), size: None };
    let mut writer = store.writer(&parse("tail"), declared).await.unwrap();
    assert!(writer.tail().await.unwrap().is_none());
    assert!(writer.sparse().await.unwrap().is_none());
    writer.write(Bytes::from_static(b"some")).await.unwrap();
    writer.commit(Commit::default()).await.unwrap();
}
