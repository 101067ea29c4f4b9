//! Blobs that are brought to their places together: power cuts and failures at every operation, and when they are not.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use windlass_core::content::IngesterExt as _;
use windlass_core::lease::{self, Lease, Resource, ResourceKind};
use windlass_core::{Descriptor, Durability, Kind, Labels, Namespace, Scope};

use super::*;
use crate::disk::cut::{Keep, Model, Variant};
use crate::disk::fault::{Failure, Faulty};
use crate::disk::log::{Log, Op};
use crate::lock::{LockWait, RootLock};
use crate::precedence::tests::while_all_are_busy;
use crate::store::{Options, Store};

const BATCH: usize = LEAST;

/// Makes the directories below a root, and what works in them.
fn places(disk: &Disk, root: &Path) -> Places {
    let precedence = Precedence::default();
    let (blobs, ..) = crate::content::open(disk, root, precedence.clone()).unwrap();
    Places { disk: disk.clone(), directory: root.join("content/small"), next: AtomicU64::new(0), blobs, precedence }
}

/// Returns different bytes, each a few pages and a bit.
fn samples(count: usize) -> Vec<Bytes> {
    (0..count).map(|at| Bytes::from(format!("blob {at}, ").repeat(1000))).collect()
}

/// Lets the thread find the samples in its queue, all at once, and returns what became of each.
fn bring(places: &Places, count: usize) -> Vec<(Digest, Outcome)> {
    let (queue, queued) = channel();
    let mut answers = Vec::new();
    for bytes in samples(count) {
        let (reply, answer) = oneshot::channel();
        let digest = Digest::sha256(&bytes);
        answers.push((digest.clone(), answer));
        queue.send(Waiting { digest, bytes, reply }).unwrap();
    }
    drop(queue);
    places.run(&queued);
    answers.into_iter().map(|(digest, mut answer)| (digest, answer.try_recv().unwrap())).collect()
}

fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Returns the names of the blobs of a root, all of which have their bytes.
fn whole_blobs(root: &Path, what: &str) -> Vec<String> {
    let directory = root.join("content/blobs/sha256");
    let names = files(&directory);
    for name in &names {
        let bytes = std::fs::read(directory.join(name)).unwrap();
        assert_eq!(Digest::sha256(&bytes).hex(), name, "{what}");
    }
    names
}

#[test]
fn power_cuts_while_blobs_are_brought_together_leave_whole_ones() {
    let root = tempfile::tempdir().unwrap();
    let log = Log::of(root.path());
    let places = places(&log.disk(), root.path());
    let before = log.len();
    let mut digests: Vec<String> = bring(&places, BATCH)
        .into_iter()
        .map(|(digest, outcome)| {
            assert!(matches!(outcome, Outcome::Done(Ok(()))));
            digest.hex().to_owned()
        })
        .collect();
    digests.sort();
    let ops = log.ops();
    let first_move = ops.iter().position(|op| matches!(op, Op::Rename(..))).unwrap();
    let syncs = ops[before..first_move].iter().filter(|op| matches!(op, Op::SyncAll(_))).count();
    assert_eq!(syncs, BATCH, "one sync of the filesystem covers each file");
    let keeps = [Keep::Nothing, Keep::Everything, Keep::Some];
    let mut model = Model::default();
    let mut seen = std::collections::BTreeSet::new();
    for (done, op) in ops.iter().enumerate() {
        model.step(op);
        for (entries, data) in keeps.into_iter().flat_map(|entries| keeps.map(|data| (entries, data))) {
            let left = model.cut(Variant { entries, lengths: data, data, seed: done as u64 });
            let disk = tempfile::tempdir().unwrap();
            left.write(disk.path());
            seen.insert(whole_blobs(disk.path(), &format!("after {done}: {op:?}")));
        }
    }
    assert!(seen.len() > BATCH, "some of them, before the directory is synced: {seen:?}");
    // Step 4.
    places.blobs.barrier(Algorithm::Sha256).pass_alone().unwrap();
    for op in &log.ops()[ops.len()..] {
        model.step(op);
    }
    let disk = tempfile::tempdir().unwrap();
    model
        .cut(Variant { entries: Keep::Nothing, lengths: Keep::Nothing, data: Keep::Nothing, seed: 0 })
        .write(disk.path());
    assert_eq!(whole_blobs(disk.path(), "after the directory's sync"), digests);
}

#[test]
fn failures_while_blobs_are_brought_together_leave_those_that_succeeded() {
    for failure in [Failure::Broken, Failure::Full, Failure::HalfWritten] {
        let mut failed_syncs = 0;
        for nth in 1.. {
            let root = tempfile::tempdir().unwrap();
            let faulty = Faulty::default();
            let places = places(&faulty.disk(), root.path());
            faulty.fail(failure, nth);
            let outcomes = bring(&places, BATCH);
            let failed = faulty.mend();
            let mut placed = Vec::new();
            let mut errors = Vec::new();
            for (digest, outcome) in outcomes {
                match outcome {
                    Outcome::Done(Ok(())) => placed.push(digest.hex().to_owned()),
                    Outcome::Done(Err(error)) => errors.push(error),
                    Outcome::Apart => panic!("there is nothing else to write"),
                }
            }
            placed.sort();
            let what = format!("{failure:?} at {nth}: {failed:?}");
            assert_eq!(whole_blobs(root.path(), &what), placed, "{what}");
            assert_eq!(files(&places.directory), [""; 0], "{what}");
            let Some(first) = failed.first() else {
                assert!(errors.is_empty(), "{errors:?}");
                break;
            };
            assert!(!errors.is_empty(), "{what}");
            let full = errors.iter().all(|error| error.is(Kind::ResourceExhausted));
            assert!(failure == Failure::Broken || full, "{what}: {errors:?}");
            if first.operation == "sync" {
                failed_syncs += 1;
                assert!(placed.is_empty(), "nobody knows whose bytes are lost: {what}");
            }
        }
        assert_eq!(failed_syncs, 1, "one for all: {failure:?}");
    }
}

#[test]
fn a_sync_of_the_filesystem_does_not_wait_for_more_than_it_saves() {
    let root = tempfile::tempdir().unwrap();
    let faulty = Faulty::default();
    let places = places(&faulty.disk(), root.path());
    faulty.has_unwritten(BATCH as u64 * WORTH);
    assert!(bring(&places, BATCH).iter().all(|(_, outcome)| matches!(outcome, Outcome::Apart)));
    assert_eq!(files(&places.directory), [""; 0]);
    faulty.has_unwritten(0);
    assert!(bring(&places, BATCH - 1).iter().all(|(_, outcome)| matches!(outcome, Outcome::Apart)), "too few");
    faulty.has_unwritten(BATCH as u64 * WORTH - 1);
    assert!(bring(&places, BATCH).iter().all(|(_, outcome)| matches!(outcome, Outcome::Done(Ok(())))));
    assert_eq!(whole_blobs(root.path(), "together").len(), BATCH);
}

#[tokio::test]
async fn blobs_that_are_not_brought_together_are_brought_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let faulty = Faulty::default();
    faulty.has_unwritten(u64::MAX);
    let (_, small, _) = crate::content::open(&faulty.disk(), root.path(), Precedence::default()).unwrap();
    let each = samples(BATCH).into_iter().map(|bytes| small.place(Digest::sha256(&bytes), bytes));
    futures::future::try_join_all(each).await.unwrap();
    assert_eq!(whole_blobs(root.path(), "apart").len(), BATCH);
}

#[test]
fn without_syncs_there_is_none_of_the_filesystem_either() {
    let root = tempfile::tempdir().unwrap();
    let log = Log::of(root.path());
    let places = places(&log.disk().with(Durability::Unsynced), root.path());
    assert!(bring(&places, BATCH).iter().all(|(_, outcome)| matches!(outcome, Outcome::Done(Ok(())))));
    assert!(!log.ops().iter().any(|op| matches!(op, Op::SyncAll(_) | Op::SyncData(_) | Op::SyncDir(_))));
    assert_eq!(whole_blobs(root.path(), "unsynced").len(), BATCH);
}

async fn open(disk: &Disk, root: &Path) -> Store {
    let lock = RootLock::acquire(root, LockWait::Forever).await.unwrap();
    Store::open_on(disk.clone(), lock, BTreeMap::new(), Options::default()).await.unwrap()
}

/// Makes a lease, and returns what it holds things in.
async fn leased(store: &Store) -> Scope {
    let Lease { id, .. } = store.leases(&Namespace::default()).create(lease::Options::default()).await.unwrap();
    Scope { lease: Some(id), ..Scope::default() }
}

async fn resources(store: &Store, scope: &Scope) -> Vec<Resource> {
    store.leases(&scope.namespace).resources(scope.lease.as_ref().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_blob_that_a_lease_holds_is_one_commit_of_the_database_as_any_other() {
    let root = tempfile::tempdir().unwrap();
    let log = Log::of(root.path());
    let store = open(&log.disk(), root.path()).await;
    let leased = leased(&store).await;
    let mut syncs = Vec::new();
    for (scope, bytes) in [Scope::default(), leased.clone()].iter().zip(samples(2)) {
        let before = log.len();
        let descriptor = Descriptor::of("application/octet-stream", &bytes);
        store.content(scope).write_blob(&descriptor, bytes, Labels::new()).await.unwrap();
        // Only the database syncs data alone.
        syncs.push(log.ops()[before..].iter().filter(|op| matches!(op, Op::SyncData(_))).count());
    }
    assert!(syncs[0] > 0);
    assert_eq!(syncs[0], syncs[1]);
    let kinds: Vec<_> = resources(&store, &leased).await.into_iter().map(|resource| resource.kind).collect();
    assert_eq!(kinds, [ResourceKind::Content]);
}

#[tokio::test]
async fn what_a_writer_leaves_is_held_by_its_lease_from_the_time_it_was_opened() {
    let root = tempfile::tempdir().unwrap();
    let store = open(&Disk::real(), root.path()).await;
    let leased = leased(&store).await;
    let held = [Resource { kind: ResourceKind::Ingest, id: "left".to_owned() }];
    let content = store.content(&leased);
    let mut writer = content.writer(&"left".parse().unwrap(), Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"some bytes")).await.unwrap();
    assert_eq!(resources(&store, &leased).await, held, "nothing of it is on the disk");
    drop(writer);
    assert_eq!(files(&root.path().join("content/ingest")).len(), 1, "it is on the disk at once, whoever ends now");
    assert_eq!(resources(&store, &leased).await, held, "whether that is recorded yet or not");
    assert_eq!(content.statuses(&[]).await.unwrap()[0].offset, 10);
    drop((content, store));
    let store = open(&Disk::real(), root.path()).await;
    assert_eq!(resources(&store, &leased).await, held, "it is recorded");
    store.content(&leased).abort(&"left".parse().unwrap()).await.unwrap();
    assert_eq!(resources(&store, &leased).await, []);
}

#[test]
fn a_crowd_leaves_time_to_whoever_goes_first() {
    let root = tempfile::tempdir().unwrap();
    let places = places(&Disk::real(), root.path());
    let takes = |count| {
        let began = Instant::now();
        bring(&places, count);
        began.elapsed()
    };
    // However slow the machine is at times.
    let is_short_once = |count| (0..100).any(|_| takes(count) < REST);
    while_all_are_busy(|| {
        assert!(is_short_once(BATCH), "nobody goes first");
        let _first = places.precedence.take();
        assert!(takes(BATCH) >= REST);
        assert!(is_short_once(1), "one alone is no crowd");
    });
}
