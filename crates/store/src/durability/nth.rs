//! Every operation of every workload fails once: with EIO, or because the disk is full.
//!
//! `WINDLASS_SOAK=1` fails every operation, the ordinary run only some of the many that are alike; `WINDLASS_SEED=n` chooses
//! others, `WINDLASS_POINT=n` only the nth.

use std::path::Path;
use std::sync::Arc;

use windlass_core::{Error, Kind};

use super::behind::{self, Behind};
use super::workloads::{self, Workload};
use super::{Facts, World, open, quiet, runtime, setting, verify};
use crate::disk::fault::{Failed, Failure, Faulty};

/// Of so many operations in a row, one fails in the ordinary run.
const EVERY: usize = 5;

/// What is there before a workload.
struct Before {
    workload: Workload,
    root: tempfile::TempDir,
    behind: Behind,
    facts: Facts,
}

impl Before {
    async fn prepare(workload: Workload) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (behind, facts) = (Behind::new(root.path(), || 0), Facts::new(|| 0));
        if let Some(before) = workload.before {
            let store = open(&Faulty::default().disk(), root.path(), Arc::new(behind.clone())).await.unwrap();
            let world = World { store, facts: facts.clone() };
            before(&world).await.unwrap();
            drop(world);
            quiet(root.path()).await;
        }
        Self { workload, root, behind, facts }
    }

    /// Lets the nth operation fail, and returns whether there were as many.
    async fn fail(&self, failure: Failure, nth: usize) -> bool {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        copy(self.root.path(), root);
        let snapshotter = Arc::new(self.behind.at(0, root).await);
        let (disk, facts) = (Faulty::default(), self.facts.again());
        let mut attempt = Attempt { before: self, failure, nth, failed: Vec::new() };

        disk.fail(failure, nth);
        let (store, outcome) = match open(&disk.disk(), root, snapshotter.clone()).await {
            Err(error) => (None, Err(error)),
            Ok(store) => {
                let world = World { store: store.clone(), facts: facts.clone() };
                (Some(store), (self.workload.work)(&world).await)
            }
        };
        attempt.failed = disk.mend();
        if attempt.failed.is_empty() {
            outcome.unwrap();
            return false;
        }
        if let Err(error) = &outcome {
            attempt.is_explained(error, root);
        }

        if let Some(store) = store {
            let world = World { store: store.clone(), facts: facts.clone() };
            match (self.workload.work)(&world).await {
                Ok(()) => verify::records(&store).await,
                // A database that has lost a write or a sync does not go on.
                Err(error) => {
                    assert!(attempt.failed.iter().any(concerns_database) && error.is(Kind::Aborted), "{error}");
                }
            }
        }
        quiet(root).await;

        let store = open(&disk.disk(), root, snapshotter.clone()).await.unwrap();
        verify::records(&store).await;
        verify::facts(&store, &facts.at(0)).await;
        let again = Facts::new(|| 0);
        let world = World { store: store.clone(), facts: again.clone() };
        for work in self.workload.before.into_iter().chain([self.workload.work]) {
            work(&world).await.unwrap();
        }
        drop(world);
        verify::facts(&store, &again.at(0)).await;
        verify::collected(&store, &*snapshotter).await;
        drop(store);
        quiet(root).await;
        true
    }
}

/// Tells whether the operation was one of the database, or of the directory it is in.
fn concerns_database(failed: &Failed) -> bool {
    let name = failed.path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("meta.redb") || failed.operation == "sync" && failed.path.join("meta.redb").exists()
}

/// One failure. When something about it is wrong, it says what it was.
struct Attempt<'a> {
    before: &'a Before,
    failure: Failure,
    nth: usize,
    failed: Vec<Failed>,
}

impl Attempt<'_> {
    /// Checks that the error says what the matter is, and where.
    fn is_explained(&self, error: &Error, root: &Path) {
        let text = error.to_string();
        match self.failure {
            Failure::Broken => assert!(text.contains("os error 5"), "{text}"),
            Failure::Full | Failure::HalfWritten => {
                // Aborted when what a writer that was dropped left to do has stopped the database.
                let stopped = error.is(Kind::Aborted) && text.contains("No space left");
                assert!(stopped || error.is(Kind::ResourceExhausted), "{text}");
                assert!(error.hint_text().is_some(), "{text}");
            }
        }
        let above = self.failed.iter().map(|failed| failed.path.as_path()).filter(|path| root.starts_with(path));
        let named = above.chain([root]).any(|path| text.contains(&path.display().to_string()));
        assert!(named, "{text}");
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { before, failure, nth, failed } = self;
            eprintln!(
                "{failure:?} at operation {nth} of {}: {:?}\nto see it again: WINDLASS_POINT={nth}",
                before.workload.name,
                failed.first()
            );
        }
    }
}

/// Copies a root, without what the snapshotter has in it.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_name() == behind::DIRECTORY {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            let modified = entry.metadata().unwrap().modified().unwrap();
            std::fs::copy(entry.path(), &to).unwrap();
            std::fs::File::open(&to).unwrap().set_modified(modified).unwrap();
        }
    }
    let modified = std::fs::metadata(from).unwrap().modified().unwrap();
    std::fs::File::open(to).unwrap().set_modified(modified).unwrap();
}

fn survives_failures(workload: Workload) {
    let runtime = runtime();
    let before = runtime.block_on(Before::prepare(workload));
    let every = if setting("WINDLASS_SOAK").is_some() { 1 } else { EVERY };
    let seed = usize::try_from(setting("WINDLASS_SEED").unwrap_or(1)).unwrap();
    let point = setting("WINDLASS_POINT").map(|point| usize::try_from(point).unwrap());
    for (at, failure) in [Failure::Broken, Failure::Full, Failure::HalfWritten].into_iter().enumerate() {
        let first = point.unwrap_or(1 + (at + seed) % every);
        let points = (first..).step_by(every);
        let failed = points.take_while(|nth| runtime.block_on(before.fail(failure, *nth)) && point.is_none()).count();
        println!("{} with {failure:?}: {failed} of about {} operations failed", workload.name, failed * every);
        assert!(failed > 0 || point.is_some() || failure != Failure::Broken, "nothing failed");
    }
}

macro_rules! tests {
    ($($name:ident = $workload:ident;)*) => {
        $(#[test]
        fn $name() {
            survives_failures(workloads::$workload);
        })*
        #[test]
        fn every_workload_has_a_test() {
            let tested = [$(workloads::$workload.name),*];
            assert_eq!(tested.to_vec(), workloads::ALL.iter().map(|workload| workload.name).collect::<Vec<_>>());
        }
    };
}

tests! {
    failures_while_a_root_is_opened_for_the_first_time = FIRST_OPEN;
    failures_on_the_way_to_the_first_lease = FIRST_LEASE;
    failures_on_the_way_to_the_first_blob = FIRST_BLOB;
    failures_while_a_blob_is_committed = BLOB;
    failures_while_two_blobs_are_committed_at_once = TWO_BLOBS;
    failures_while_several_blobs_are_committed_at_once = SEVERAL_BLOBS;
    failures_while_a_blob_is_resumed = RESUMED_BLOB;
    failures_while_blobs_are_written_at_several_places = SPARSE_BLOB;
    failures_around_ingests_that_are_given_up = ABANDONED_BLOB;
    failures_while_images_come_and_go = IMAGE;
    failures_while_a_blob_is_deleted = DELETED_BLOB;
    failures_while_snapshots_come_and_go = SNAPSHOTS;
    failures_while_garbage_is_collected = COLLECTION;
}
