//! A root that is written without syncs: a crash of the process loses nothing, and after a power cut it says that anything
//! may be lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use windlass_core::fsck::Problem;
use windlass_core::progress::Tracker;
use windlass_core::{Durability, Kind};

use super::behind::Behind;
use super::workloads::{self, Workload};
use super::{Facts, SNAPSHOTTER, World, quiet, runtime, verify};
use crate::disk::Disk;
use crate::disk::cut::{Keep, Model, Variant};
use crate::disk::log::{Log, Op};
use crate::fsck::{Depth, inspect};
use crate::lock::{LockWait, RootLock};
use crate::store::{Options, Store};
use crate::unsynced;

/// The power is cut after every so many operations.
const EVERY: usize = 3;

async fn open(disk: &Disk, root: &Path, behind: &Behind, durability: Durability) -> windlass_core::Result<Store> {
    let lock = RootLock::acquire(root, LockWait::Forever).await?;
    let snapshotters = BTreeMap::from([(SNAPSHOTTER.to_owned(), Arc::new(behind.clone()) as _)]);
    Store::open_on(disk.clone(), lock, snapshotters, Options { durability, ..Options::default() }).await
}

/// Carries a workload out without syncs.
async fn carry_out(workload: Workload, log: &Log, root: &Path, behind: &Behind, facts: &Facts) {
    for work in workload.before.into_iter().chain([workload.work]) {
        let store = open(&log.disk(), root, behind, Durability::Unsynced).await.unwrap();
        let world = World { store, facts: facts.clone() };
        work(&world).await.unwrap();
        drop(world);
        quiet(root).await;
    }
}

fn is_sync(op: &Op) -> bool {
    matches!(op, Op::SyncAll(_) | Op::SyncData(_) | Op::SyncDir(_))
}

fn keep(all: Keep, seed: u64) -> Variant {
    Variant { entries: all, lengths: all, data: all, seed }
}

#[test]
fn a_root_that_is_opened_with_syncs_in_the_same_boot_has_everything() {
    for workload in [workloads::TWO_BLOBS, workloads::IMAGE, workloads::SPARSE_BLOB] {
        runtime().block_on(async {
            let root = tempfile::tempdir().unwrap();
            let log = Log::of(root.path());
            let (behind, facts) = (Behind::new(root.path(), || 0), Facts::new(|| 0));
            carry_out(workload, &log, root.path(), &behind, &facts).await;
            // Two of them say that the root is written without: of the file, and of its entry.
            assert_eq!(log.ops().iter().filter(|op| is_sync(op)).count(), 2, "{}", workload.name);
            assert!(!unsynced::is_doubtful(&log.disk(), root.path()).unwrap());

            drop(open(&log.disk(), root.path(), &behind, Durability::Synced).await.unwrap());
            quiet(root.path()).await;
            assert!(!root.path().join(unsynced::FILE).exists());
            let mut model = Model::default();
            log.ops().iter().for_each(|op| model.step(op));
            let left = tempfile::tempdir().unwrap();
            model.cut(keep(Keep::Nothing, 0)).write(left.path());
            let log = Log::of(left.path());
            log.adopt();
            let store = open(&log.disk(), left.path(), &behind, Durability::Synced).await.unwrap();
            verify::records(&store).await;
            verify::facts(&store, &facts.at(0)).await;
        });
    }
}

#[test]
fn after_a_power_cut_a_root_says_that_it_was_written_without_syncs() {
    let (mut opened, mut damaged) = (0, 0);
    for workload in [workloads::TWO_BLOBS, workloads::IMAGE] {
        let root = tempfile::tempdir().unwrap();
        let log = Log::of(root.path());
        let now = {
            let log = log.clone();
            move || log.len()
        };
        let (behind, facts) = (Behind::new(root.path(), now.clone()), Facts::new(now));
        runtime().block_on(carry_out(workload, &log, root.path(), &behind, &facts));
        let mut model = Model::default();
        for (done, op) in log.ops().iter().enumerate().map(|(at, op)| (at + 1, op)) {
            model.step(op);
            if done % EVERY != 0 || facts.at(done).is_empty() {
                continue;
            }
            for variant in [keep(Keep::Nothing, 0), keep(Keep::Some, done as u64), keep(Keep::Everything, 0)] {
                let left = tempfile::tempdir().unwrap();
                model.cut(variant).write(left.path());
                let found = inspect(left.path(), None, Depth::Bytes, &BTreeMap::new(), &Tracker::new()).unwrap();
                let told = found.iter().any(|finding| finding.problem == Problem::WrittenWithoutSyncs);
                assert!(told, "{} {done} {variant:?}: {found:?}", workload.name);
                let log = Log::of(left.path());
                log.adopt();
                match runtime().block_on(open(&log.disk(), left.path(), &behind, Durability::Synced)) {
                    Ok(_) => opened += 1,
                    Err(error) => {
                        assert!(error.is(Kind::DataLoss) && error.hint_text().is_some(), "{error:?}");
                        damaged += 1;
                    }
                }
                assert!(left.path().join(unsynced::FILE).exists(), "only a repair takes note of it");
            }
        }
    }
    assert!(opened > 0 && damaged > 0, "{opened} opened, {damaged} did not");
}
