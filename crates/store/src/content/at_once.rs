//! An ingest that is written at several places: what waits for what, what a kill costs, and what happens to writes under way.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use windlass_core::content::{Commit, Expected, IngestRef, Ranges, SparseWriter, Writer};
use windlass_core::digest::Algorithm;
use windlass_core::{Digest, Kind, Namespace, Scope};

use super::state::State;
use crate::disk::Disk;
use crate::{LockWait, RootLock, Store};

const MIB: u64 = 1 << 20;
/// How much may be written ahead of the hash.
const AHEAD: u64 = 64 * MIB;
/// What is written between two saves of the state.
const CHECKPOINT: u64 = 4 * MIB;
/// How long something may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_mins(1);

async fn open(root: &Path) -> Store {
    let lock = RootLock::acquire(root, LockWait::Forever).await.unwrap();
    Store::open(lock, [].into()).await.unwrap()
}

fn ingest() -> IngestRef {
    "part".parse().unwrap()
}

async fn writer(store: &Store, expected: Expected) -> Box<dyn Writer> {
    store.content(&Scope::from(Namespace::default())).writer(&ingest(), expected).await.unwrap()
}

async fn several(writer: &mut Box<dyn Writer>) -> Arc<dyn SparseWriter> {
    writer.sparse().await.unwrap().unwrap()
}

/// Bytes that are different everywhere.
fn sample(mib: u64) -> Bytes {
    (0..u32::try_from(mib * MIB / 4).unwrap()).flat_map(u32::to_le_bytes).collect::<Vec<_>>().into()
}

fn expected(bytes: &Bytes) -> Expected {
    Expected { digest: Some(Digest::sha256(bytes)), size: Some(bytes.len() as u64) }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

#[tokio::test]
async fn what_is_too_far_ahead_waits_for_the_first_gap() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let bytes = sample(80);
    let mut writer = writer(&store, expected(&bytes)).await;
    let hands = several(&mut writer).await;
    for at in (MIB..=AHEAD).step_by(1 << 20) {
        hands.write_at(at, slice(&bytes, &(at..at + MIB))).await.unwrap();
    }
    let further = AHEAD + MIB..AHEAD + 2 * MIB;
    let mut waiting = Box::pin(hands.write_at(further.start, slice(&bytes, &further)));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "it waits");
    // What is here already does not.
    hands.write_at(MIB, slice(&bytes, &(MIB..2 * MIB))).await.unwrap();
    // What brings only a part of the gap, and not its beginning, does.
    let mut inside = Box::pin(hands.write_at(10, bytes.slice(10..20)));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut inside).await.is_err(), "it waits");
    // The first missing byte is what everybody waits for.
    hands.write_at(0, bytes.slice(..10)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "the gap is still there");
    hands.write_at(10, slice(&bytes, &(10..MIB))).await.unwrap();
    waiting.await.unwrap();
    inside.await.unwrap();
    let rest = further.end..bytes.len() as u64;
    hands.write_at(rest.start, slice(&bytes, &rest)).await.unwrap();
    writer.commit(Commit::default()).await.unwrap();
}

#[tokio::test]
async fn what_waits_learns_that_the_writer_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let bytes = sample(70);
    let mut writer = writer(&store, expected(&bytes)).await;
    let hands = several(&mut writer).await;
    hands.write_at(MIB, slice(&bytes, &(MIB..AHEAD + MIB))).await.unwrap();
    let further = AHEAD + MIB..AHEAD + 2 * MIB;
    let mut waiting = Box::pin(hands.write_at(further.start, slice(&bytes, &further)));
    assert!((&mut waiting).now_or_never().is_none(), "it waits");
    drop(writer);
    assert!(waiting.await.unwrap_err().is(Kind::Aborted));
}

#[tokio::test]
async fn what_was_there_before_does_not_count_as_ahead() {
    let root = tempfile::tempdir().unwrap();
    let bytes = sample(80);
    {
        let store = open(root.path()).await;
        let mut writer = writer(&store, expected(&bytes)).await;
        let hands = several(&mut writer).await;
        hands.write_at(10 * MIB, slice(&bytes, &(10 * MIB..75 * MIB))).await.unwrap();
    }
    let store = open(root.path()).await;
    let mut writer = writer(&store, expected(&bytes)).await;
    let hands = several(&mut writer).await;
    for range in [75 * MIB..80 * MIB, 5 * MIB..10 * MIB, 0..5 * MIB] {
        hands.write_at(range.start, slice(&bytes, &range)).await.unwrap();
    }
    writer.commit(Commit::default()).await.unwrap();
}

/// Returns the one ingest's directory.
fn directory(root: &Path) -> std::path::PathBuf {
    std::fs::read_dir(root.join("content/ingest")).unwrap().next().unwrap().unwrap().path()
}

#[tokio::test]
async fn a_kill_costs_no_more_than_what_was_written_between_two_saves() {
    let root = tempfile::tempdir().unwrap();
    let bytes = sample(48);
    let declared = expected(&bytes);
    let store = open(root.path()).await;
    let mut writer = writer(&store, declared.clone()).await;
    let hands = several(&mut writer).await;
    let mut written = Ranges::default();
    let mut worst = 0;
    // Four hands, each with a range of 8 MiB, in turn.
    for step in 0..48 {
        let (round, hand) = (step / 4, step % 4);
        let at = (round / 8 * 32 + hand * 8 + round % 8) * MIB;
        if at + MIB > bytes.len() as u64 {
            continue;
        }
        hands.write_at(at, slice(&bytes, &(at..at + MIB))).await.unwrap();
        written.insert(at..at + MIB);
        // The save is made beside the writes, and comes without any more of them.
        let lost = async {
            loop {
                let lost = written.length_from(0) - killed(root.path(), &bytes).length_from(0);
                if lost <= CHECKPOINT {
                    return lost;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        worst = worst.max(tokio::time::timeout(PATIENCE, lost).await.expect("what was written is written down"));
    }
    assert!(worst > 0, "not every write is written down");
    for gap in hands.gaps().await.unwrap() {
        hands.write_at(gap.start, slice(&bytes, &gap)).await.unwrap();
    }
    drop(writer);
    let mut next = self::writer(&store, declared).await;
    assert_eq!(next.status().await.unwrap().offset, bytes.len() as u64);
    assert_eq!(killed(root.path(), &bytes).prefix(), bytes.len() as u64, "all of it is written down");
}

/// Looks at what a SIGKILL leaves now, and returns what of it the next writer finds.
fn killed(root: &Path, bytes: &Bytes) -> Ranges {
    let moment = tempfile::tempdir().unwrap();
    // The state first: the data goes on meanwhile.
    for name in ["ref", "state", "data"] {
        std::fs::copy(directory(root).join(name), moment.path().join(name)).unwrap();
    }
    let data = std::fs::read(moment.path().join("data")).unwrap();
    let state = State::read(&Disk::real(), moment.path()).unwrap().unwrap();
    let here = state.here(data.len() as u64).unwrap();
    for range in here.iter() {
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert!(data[start..end] == bytes[start..end], "what is said to be there is");
    }
    let boot = Disk::real().boot();
    let (_, hashed) = state.hash(boot.as_deref(), Algorithm::Sha256, here.prefix()).unwrap();
    assert!(hashed <= here.prefix());
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_under_way_are_finished_before_the_next_writer_or_the_commit() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&Scope::default());
    let bytes = sample(4);
    for round in 0..40_u64 {
        let mut first = writer(&store, expected(&bytes)).await;
        let hands = several(&mut first).await;
        let pieces: Vec<Range<u64>> =
            (0..64).map(|at| (at * 7 + round) % 64).map(|at| at * MIB / 16..(at + 1) * MIB / 16).collect();
        for piece in pieces.iter().take(40) {
            // Begun, and nobody waits for it.
            drop(hands.write_at(piece.start, slice(&bytes, piece)).now_or_never());
        }
        drop(first);
        let mut second = writer(&store, expected(&bytes)).await;
        let hands = several(&mut second).await;
        let gaps = hands.gaps().await.unwrap();
        assert_eq!(gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>(), 24 * MIB / 16, "what was begun is here");
        let writes = gaps.iter().map(|gap| hands.write_at(gap.start, slice(&bytes, gap)));
        // All of them are begun; the commit waits for them.
        let begun: Vec<_> = writes.map(futures::FutureExt::now_or_never).collect();
        drop(begun);
        let info = second.commit(Commit::default()).await.unwrap();
        content.delete(&info.digest).await.unwrap();
    }
}
