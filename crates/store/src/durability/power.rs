//! Power cuts after every operation of every workload.
//!
//! Each test prints what to set to see a failure again. `WINDLASS_SOAK=n` looks at many more of the disks that may be left,
//! n times as many as a long run does; `WINDLASS_SEED=n` at others; `WINDLASS_POINT=k` only at those after k operations.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::behind::Behind;
use super::workloads::{self, Work, Workload};
use super::{Facts, World, open, quiet, runtime, setting, verify};
use crate::disk::cut::{Keep, Model, Variant};
use crate::disk::log::{Log, Op};

/// A process is killed after every so many operations before power goes.
const KILLS: usize = 3;

/// How many disks of chance a long run looks at after each operation.
const CHANCES: u64 = 12;

/// A workload that was carried out, with everything that happened.
struct Recorded {
    workload: Workload,
    log: Log,
    ops: Vec<Op>,
    /// How many of the operations happened before.
    before: usize,
    behind: Behind,
    facts: Facts,
    /// What to say to see a failure again, where that is not the number of operations.
    point: Option<usize>,
}

/// Carries a workload out and records it.
async fn record(workload: Workload) -> Recorded {
    let root = tempfile::tempdir().unwrap();
    let log = Log::of(root.path());
    let now = {
        let log = log.clone();
        move || log.len()
    };
    let (behind, facts) = (Behind::new(root.path(), now.clone()), Facts::new(now));
    let mut before = 0;
    for work in workload.before.into_iter().chain([workload.work]) {
        before = if workload.before.is_some() { log.len() } else { 0 };
        carry_out(work, &log, root.path(), &behind, &facts).await;
    }
    Recorded { workload, ops: log.ops(), log, before, behind, facts, point: None }
}

/// Carries work out in a process of its own.
async fn carry_out(work: Work, log: &Log, root: &Path, behind: &Behind, facts: &Facts) {
    let store = open(&log.disk(), root, Arc::new(behind.clone())).await.unwrap();
    let world = World { store, facts: facts.clone() };
    work(&world).await.unwrap();
    drop(world);
    quiet(root).await;
}

impl Recorded {
    /// Looks at every disk that may be left, each once.
    fn cut_everywhere(&self) {
        let (seed, point) = (setting("WINDLASS_SEED").unwrap_or(1), setting("WINDLASS_POINT"));
        let chances = setting("WINDLASS_SOAK").map(|times| times * CHANCES);
        let runtime = runtime();
        let (mut model, mut seen) = (Model::default(), HashSet::new());
        for done in 0..=self.ops.len() {
            if let Some(op) = done.checked_sub(1).and_then(|last| self.ops.get(last)) {
                model.step(op);
            }
            if done < self.before || point.is_some_and(|point| point != done as u64) {
                continue;
            }
            for variant in variants(seed, done as u64, chances) {
                let left = model.cut(variant);
                let facts = self.facts.at(done);
                if !seen.insert((left.identity(), format!("{facts:?}"))) {
                    continue;
                }
                let root = tempfile::tempdir().unwrap();
                left.write(root.path());
                let at = Point { recorded: self, done, variant, seed, root: Some(root) };
                runtime.block_on(at.survives());
            }
        }
        println!("{}: {} operations, {} disks", self.workload.name, self.ops.len() - self.before, seen.len());
    }
}

/// Returns the ways to lose power that are tried at one moment: the extremes, and so many of chance. Without any number, what
/// lies between takes turns.
fn variants(seed: u64, done: u64, chances: Option<u64>) -> Vec<Variant> {
    use Keep::{Everything, Nothing, Some};
    let with = |entries, lengths, data, seed| Variant { entries, lengths, data, seed };
    let mut variants = vec![with(Nothing, Nothing, Nothing, 0), with(Everything, Everything, Everything, 0)];
    // Entries and lengths without the data they were made for, and the other way round.
    let apart = [with(Everything, Everything, Nothing, 0), with(Nothing, Everything, Everything, 0)];
    let chance = |chance| with(Some, Some, Some, (seed << 40) + (done << 16) + chance);
    match chances {
        Option::Some(chances) => variants.extend(apart.into_iter().chain((0..chances).map(chance))),
        None if (done + seed).is_multiple_of(2) => variants.push(chance(0)),
        None => variants.push(apart[usize::from((done / 2).is_multiple_of(2))]),
    }
    variants
}

/// One disk after one power cut. When something about it is wrong, it says where it came from.
struct Point<'a> {
    recorded: &'a Recorded,
    done: usize,
    variant: Variant,
    seed: u64,
    root: Option<tempfile::TempDir>,
}

impl Point<'_> {
    async fn survives(&self) {
        let Recorded { workload, behind, facts, .. } = self.recorded;
        let root = self.root.as_ref().unwrap().path();
        let snapshotter = Arc::new(behind.at(self.done, root).await);
        let log = Log::of(root);
        log.adopt();
        let store = open(&log.disk(), root, snapshotter.clone()).await.unwrap();
        verify::records(&store).await;
        verify::facts(&store, &facts.at(self.done)).await;

        // What was cut short is done again, from its beginning.
        let again = Facts::new(|| 0);
        let world = World { store: store.clone(), facts: again.clone() };
        for work in workload.before.into_iter().chain([workload.work]) {
            work(&world).await.unwrap();
        }
        drop(world);
        verify::records(&store).await;
        verify::facts(&store, &again.at(0)).await;
        verify::collected(&store, &*snapshotter).await;
        drop(store);
        quiet(root).await;
    }
}

impl Drop for Point<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self { recorded, done, variant, seed, root } = self;
        let kept = root.take().map(tempfile::TempDir::keep);
        eprintln!(
            "power cut in {} after operation {done} of {} ({:?}), {variant:?}\n\
             what was left, and what became of it, is in {}\n\
             to see it again: WINDLASS_SEED={seed} WINDLASS_POINT={}{}",
            recorded.workload.name,
            recorded.ops.len(),
            done.checked_sub(1).and_then(|last| recorded.ops.get(last)),
            kept.unwrap_or_default().display(),
            recorded.point.unwrap_or(*done),
            setting("WINDLASS_SOAK").map_or(String::new(), |times| format!(" WINDLASS_SOAK={times}")),
        );
    }
}

/// Lets a process die after some of the operations of a workload, another one of the same boot carry it out to its end, and
/// power go then: what the first one did not sync, the second one must not take for durable.
fn survives_a_kill_and_a_power_cut(workload: Workload) {
    let runtime = runtime();
    let first = runtime.block_on(record(workload));
    let every = if setting("WINDLASS_SOAK").is_some() { 1 } else { KILLS };
    let (seed, point) = (setting("WINDLASS_SEED").unwrap_or(1), setting("WINDLASS_POINT"));
    let mut model = Model::default();
    for (killed, op) in first.ops.iter().enumerate().map(|(at, op)| (at + 1, op)) {
        model.step(op);
        if point.map_or(killed % every != 0, |point| point != killed as u64) {
            continue;
        }
        let root = tempfile::tempdir().unwrap();
        let everything = Keep::Everything;
        model.cut(Variant { entries: everything, lengths: everything, data: everything, seed }).write(root.path());
        let log = first.log.continued(root.path(), first.ops[..killed].to_vec());
        let second = runtime.block_on(async {
            let behind = Behind::new(root.path(), || 0);
            let facts = Facts::new(|| 0);
            carry_out(workload.work, &log, root.path(), &behind, &facts).await;
            Recorded { workload, ops: log.ops(), log, before: killed, behind, facts, point: Some(killed) }
        });
        let mut model = Model::default();
        for op in &second.ops {
            model.step(op);
        }
        for variant in variants(seed, killed as u64, None) {
            let root = tempfile::tempdir().unwrap();
            model.cut(variant).write(root.path());
            let at = Point { recorded: &second, done: second.ops.len(), variant, seed, root: Some(root) };
            runtime.block_on(at.survives());
        }
    }
}

fn survives_power_cuts(workload: Workload) {
    let recorded = runtime().block_on(record(workload));
    assert!(recorded.ops.len() > recorded.before, "nothing happened");
    recorded.cut_everywhere();
}

macro_rules! tests {
    ($($name:ident = $workload:ident;)*) => {
        $(#[test]
        fn $name() {
            survives_power_cuts(workloads::$workload);
        })*
        #[test]
        fn a_kill_and_then_a_power_cut_from_an_empty_root_to_a_blob() {
            survives_a_kill_and_a_power_cut(workloads::FIRST_BLOB);
        }

        #[test]
        fn a_kill_and_then_a_power_cut_while_blobs_are_written_at_several_places() {
            survives_a_kill_and_a_power_cut(Workload { before: None, ..workloads::SPARSE_BLOB });
        }

        #[test]
        fn a_kill_and_then_a_power_cut_from_an_empty_root_to_a_lease() {
            survives_a_kill_and_a_power_cut(workloads::FIRST_LEASE);
        }

        #[test]
        fn every_workload_has_a_test() {
            let tested = [$(workloads::$workload.name),*];
            assert_eq!(tested.to_vec(), workloads::ALL.iter().map(|workload| workload.name).collect::<Vec<_>>());
        }
    };
}

tests! {
    power_cuts_while_a_root_is_opened_for_the_first_time = FIRST_OPEN;
    power_cuts_on_the_way_to_the_first_lease = FIRST_LEASE;
    power_cuts_on_the_way_to_the_first_blob = FIRST_BLOB;
    power_cuts_while_a_blob_is_committed = BLOB;
    power_cuts_while_two_blobs_are_committed_at_once = TWO_BLOBS;
    power_cuts_while_several_blobs_are_committed_at_once = SEVERAL_BLOBS;
    power_cuts_while_a_blob_is_resumed = RESUMED_BLOB;
    power_cuts_while_blobs_are_written_at_several_places = SPARSE_BLOB;
    power_cuts_around_ingests_that_are_given_up = ABANDONED_BLOB;
    power_cuts_while_images_come_and_go = IMAGE;
    power_cuts_while_a_blob_is_deleted = DELETED_BLOB;
    power_cuts_while_snapshots_come_and_go = SNAPSHOTS;
    power_cuts_while_garbage_is_collected = COLLECTION;
}
