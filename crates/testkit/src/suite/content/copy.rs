//! Copying into the store from every kind of source, continued where it was left.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use windlass_core::content::{Commit, Expected, InFile, OneWay, ReaderAt, Source, Store, copy};
use windlass_core::remote::Body;
use windlass_core::{Descriptor, Digest, Kind, MediaType, Result};

use super::{bring, expected, read};
use crate::suite::{assert_kind, parse, sample};

/// Where an ingest stands when a copy is to continue it.
const LEFT: usize = 123_457;

/// A source that can seek, but only to multiples of a block, and knows what was asked of it.
struct Blocks {
    bytes: Bytes,
    block: usize,
    asked: Option<u64>,
    size: Option<u64>,
}

impl Blocks {
    fn of(bytes: &Bytes, block: usize) -> Self {
        Self { bytes: bytes.clone(), block, asked: None, size: Some(bytes.len() as u64) }
    }
}

#[async_trait]
impl Source for Blocks {
    async fn open(&mut self, offset: u64) -> Result<Body> {
        self.asked = Some(offset);
        let begins = usize::try_from(offset).unwrap() / self.block * self.block;
        Ok(Body { offset: begins as u64, size: self.size, stream: pieces(&self.bytes.slice(begins..)) })
    }
}

/// Cuts bytes into odd pieces, among them empty ones.
fn pieces(bytes: &Bytes) -> windlass_core::ByteStream {
    let mut pieces = Vec::new();
    let (mut at, mut length) = (0, 0);
    while at < bytes.len() {
        let end = (at + length).min(bytes.len());
        pieces.push(Ok(bytes.slice(at..end)));
        (at, length) = (end, (length * 3 + 1) % 40_000);
    }
    stream::iter(pieces).boxed()
}

/// Leaves an ingest with the first of some bytes.
async fn leave(store: &dyn Store, ingest: &str, bytes: &Bytes, declared: Expected) {
    let mut writer = store.writer(&parse(ingest), declared).await.unwrap();
    writer.write(bytes.slice(..LEFT)).await.unwrap();
}

pub async fn a_copy_continues_from_any_kind_of_source(store: &dyn Store) {
    let bytes = sample(50, 400_000);
    let digest = Digest::sha256(&bytes);
    let mut sources: Vec<(&str, Box<dyn Source>)> = vec![
        ("bytes", Box::new(bytes.clone())),
        ("a range", Box::new(Blocks::of(&bytes, 1))),
        ("a range that begins earlier", Box::new(Blocks::of(&bytes, 4_096))),
        ("a server without ranges", Box::new(Blocks::of(&bytes, usize::MAX))),
        ("a stream", Box::new(OneWay::new(pieces(&bytes)))),
    ];
    for (what, source) in &mut sources {
        leave(store, "copied", &bytes, expected(&bytes)).await;
        let mut writer = store.writer(&parse("copied"), expected(&bytes)).await.unwrap();
        assert_eq!(copy(&mut *writer, &mut **source, None).await.unwrap(), 400_000, "{what}");
        assert_eq!(writer.commit(Commit::default()).await.unwrap().digest, digest, "{what}");
        assert_eq!(read(store, &digest).await, bytes, "{what}");
        store.delete(&digest).await.unwrap();
    }
}

pub async fn a_copy_continues_from_a_blob_that_is_deleted(store: &dyn Store) {
    let bytes = sample(50, 400_000);
    let there = bring(store, "there", &bytes).await;
    let descriptor = Descriptor::new(MediaType::OCTET_STREAM, there.digest.clone(), there.size);
    let mut blob: Arc<dyn ReaderAt> = store.reader(&descriptor).await.unwrap().into();
    store.delete(&there.digest).await.unwrap();
    leave(store, "copied", &bytes, expected(&bytes)).await;
    let mut writer = store.writer(&parse("copied"), expected(&bytes)).await.unwrap();
    assert_eq!(copy(&mut *writer, &mut blob, None).await.unwrap(), 400_000);
    assert_eq!(writer.commit(Commit::default()).await.unwrap().digest, there.digest);
    assert_eq!(read(store, &there.digest).await, bytes);
}

pub async fn a_copy_asks_only_for_what_is_missing(store: &dyn Store) {
    let bytes = sample(51, 200_000);
    leave(store, "copied", &bytes, expected(&bytes)).await;
    let mut source = Blocks::of(&bytes, 1);
    let mut writer = store.writer(&parse("copied"), expected(&bytes)).await.unwrap();
    copy(&mut *writer, &mut source, None).await.unwrap();
    assert_eq!(source.asked, Some(LEFT as u64));

    // Complete, and not committed: there is nothing to ask for.
    drop(writer);
    source.asked = None;
    let mut writer = store.writer(&parse("copied"), expected(&bytes)).await.unwrap();
    assert_eq!(copy(&mut *writer, &mut source, None).await.unwrap(), 200_000);
    assert_eq!(source.asked, None);
    writer.commit(Commit::default()).await.unwrap();
}

pub async fn a_copy_without_a_declared_size_ends_where_the_source_does(store: &dyn Store) {
    let bytes = sample(52, 200_000);
    leave(store, "copied", &bytes, Expected::default()).await;
    let mut writer = store.writer(&parse("copied"), Expected::default()).await.unwrap();
    assert_eq!(copy(&mut *writer, &mut OneWay::new(pieces(&bytes)), None).await.unwrap(), 200_000);
    assert_eq!(writer.commit(Commit::default()).await.unwrap().digest, Digest::sha256(&bytes));
    let mut empty = store.writer(&parse("empty"), expected(b"")).await.unwrap();
    assert_eq!(copy(&mut *empty, &mut Bytes::new(), None).await.unwrap(), 0);
}

pub async fn a_copy_whose_source_ends_early_can_be_continued(store: &dyn Store) {
    let bytes = sample(53, 200_000);
    for end in [LEFT + 1, 150_000] {
        let mut writer = store.writer(&parse("copied"), expected(&bytes)).await.unwrap();
        let mut short = OneWay::new(pieces(&bytes.slice(..end)));
        assert_kind(copy(&mut *writer, &mut short, None).await, Kind::Unavailable, "a short source");
        assert_eq!(writer.status().await.unwrap().offset, end as u64, "what came stays");
        assert_kind(copy(&mut *writer, &mut short, None).await, Kind::FailedPrecondition, "a stream goes once");
    }
    let mut writer = store.writer(&parse("copied"), expected(&bytes)).await.unwrap();
    let mut shorter = OneWay::new(pieces(&bytes.slice(..1_000)));
    assert_kind(
        copy(&mut *writer, &mut shorter, None).await,
        Kind::Unavailable,
        "a source cut off before the ingest's end",
    );
    assert_kind(copy(&mut *writer, &mut bytes.slice(..1_000), None).await, Kind::OutOfRange, "one that says so");
    copy(&mut *writer, &mut bytes.clone(), None).await.unwrap();
    assert_eq!(writer.commit(Commit::default()).await.unwrap().digest, Digest::sha256(&bytes));
}

pub async fn a_copy_whose_source_is_shorter_than_what_is_here_is_refused_where_no_size_is_declared(store: &dyn Store) {
    let bytes = sample(56, 200_000);
    leave(store, "copied", &bytes, Expected::default()).await;
    let mut writer = store.writer(&parse("copied"), Expected::default()).await.unwrap();
    let mut shorter = OneWay::new(pieces(&bytes.slice(..1_000)));
    assert_kind(copy(&mut *writer, &mut shorter, None).await, Kind::OutOfRange, "another source");
    assert_eq!(writer.status().await.unwrap().offset, LEFT as u64, "what was here stays");
}

pub async fn a_copy_of_another_size_than_was_declared_is_refused(store: &dyn Store) {
    let bytes = sample(54, 200_000);
    let longer: Bytes = [&bytes[..], b"x"].concat().into();
    let mut writer = store.writer(&parse("copied"), expected(&bytes)).await.unwrap();
    assert_kind(copy(&mut *writer, &mut longer.clone(), None).await, Kind::DataLoss, "a source that says so");
    assert_eq!(writer.status().await.unwrap().offset, 0, "nothing of it is taken");
    let mut silent = OneWay::new(pieces(&longer));
    assert_kind(copy(&mut *writer, &mut silent, None).await, Kind::DataLoss, "a source that just goes on");
}

pub async fn a_copy_from_a_source_that_begins_too_late_is_refused(store: &dyn Store) {
    struct Late(Bytes);

    #[async_trait]
    impl Source for Late {
        async fn open(&mut self, offset: u64) -> Result<Body> {
            let begins = offset + 1;
            let rest = self.0.slice(usize::try_from(begins).unwrap()..);
            Ok(Body { offset: begins, size: None, stream: pieces(&rest) })
        }
    }

    let bytes = sample(55, 200_000);
    leave(store, "copied", &bytes, expected(&bytes)).await;
    let mut writer = store.writer(&parse("copied"), expected(&bytes)).await.unwrap();
    assert_kind(copy(&mut *writer, &mut Late(bytes), None).await, Kind::DataLoss, "a source that begins late");
    assert_eq!(writer.status().await.unwrap().offset, LEFT as u64);
}

/// How many bytes of something else are before those of a sample in a file.
pub(super) const BEFORE: u64 = 4_099;

/// A sample that is in a file.
pub(super) struct Filed {
    pub(super) file: Arc<File>,
    bytes: Bytes,
}

impl Filed {
    pub(super) fn new(bytes: &Bytes) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![b'-'; usize::try_from(BEFORE).unwrap()], 0).unwrap();
        file.write_all_at(bytes, BEFORE).unwrap();
        Self { file: Arc::new(file), bytes: bytes.clone() }
    }
}

#[async_trait]
impl Source for Filed {
    async fn open(&mut self, offset: u64) -> Result<Body> {
        self.bytes.open(offset).await
    }

    fn in_file(&self) -> Option<(InFile, u64)> {
        Some((InFile { file: self.file.clone(), begin: BEFORE }, self.bytes.len() as u64))
    }
}

pub async fn a_copy_of_what_is_in_a_file_continues(store: &dyn Store) {
    // More than is read of a file at once, and not a multiple of anything.
    let bytes = sample(9, 19_000_001);
    let mut source = Filed::new(&bytes);
    let mut writer = store.writer(&parse("file"), expected(&bytes)).await.unwrap();
    writer.write(bytes.slice(..LEFT)).await.unwrap();
    drop(writer);
    let mut writer = store.writer(&parse("file"), expected(&bytes)).await.unwrap();
    assert_eq!(copy(&mut *writer, &mut source, None).await.unwrap(), bytes.len() as u64);
    let info = writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &info.digest).await, bytes);
}

pub async fn a_writer_reads_all_that_it_is_given_of_a_file_or_nothing(store: &dyn Store) {
    let bytes = sample(10, 5_000_011);
    let Filed { file, .. } = Filed::new(&bytes);
    let mut writer = store.writer(&parse("file"), expected(&bytes)).await.unwrap();
    let (mut at, half) = (0, bytes.len() / 2);
    for end in [half, half + 1, bytes.len()] {
        let part = BEFORE + at as u64..BEFORE + end as u64;
        let before = writer.status().await.unwrap().offset;
        let appended = writer.write_file(&file, part).await.unwrap();
        let after = writer.status().await.unwrap().offset;
        assert_eq!(after - before, if appended { (end - at) as u64 } else { 0 });
        if !appended {
            writer.write(bytes.slice(at..end)).await.unwrap();
        }
        at = end;
    }
    let info = writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &info.digest).await, bytes);
}

pub async fn more_of_a_file_than_was_declared_is_refused(store: &dyn Store) {
    let bytes = sample(11, 3_000_000);
    let Filed { file, .. } = Filed::new(&bytes);
    let declared = Expected { size: Some(2_999_999), digest: None };
    let mut writer = store.writer(&parse("file"), declared).await.unwrap();
    match writer.write_file(&file, BEFORE..BEFORE + 3_000_000).await {
        Ok(appended) => assert!(!appended),
        Err(error) => assert_eq!(error.kind(), Kind::OutOfRange, "{error}"),
    }
    assert_eq!(writer.status().await.unwrap().offset, 0);
}

pub async fn a_file_that_ends_too_early_is_said_and_what_is_here_continued(store: &dyn Store) {
    let bytes = sample(12, 5_000_000);
    let mut source = Filed::new(&bytes);
    source.file.set_len(BEFORE + 2_500_000).unwrap();
    let mut writer = store.writer(&parse("file"), expected(&bytes)).await.unwrap();
    let failed = async {
        let appended = writer.write_file(&source.file, BEFORE..BEFORE + 5_000_000).await?;
        // An ingest elsewhere says so later.
        writer.status().await.map(|_| appended)
    };
    match failed.await {
        Ok(appended) => assert!(!appended),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            assert!(error.to_string().contains("ended at 2504099"), "{error}");
        }
    }
    drop(writer);
    source = Filed::new(&bytes);
    let mut writer = store.writer(&parse("file"), expected(&bytes)).await.unwrap();
    assert!(writer.status().await.unwrap().offset <= 2_500_000);
    copy(&mut *writer, &mut source, None).await.unwrap();
    let info = writer.commit(Commit::default()).await.unwrap();
    assert_eq!(read(store, &info.digest).await, bytes);
}
