//! How much of an ingest is hashed again when it is resumed: measured in bytes, by opening what is on disk as the next
//! writer does.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, IngestRef, Writer};
use windlass_core::{Digest, Namespace, Scope};

use super::state::State;
use crate::disk::Disk;
use crate::{LockWait, RootLock, Store};

const MIB: usize = 1 << 20;
/// What a crash costs at most.
const CHECKPOINT: u64 = 16 << 20;

async fn open(root: &Path) -> Store {
    let lock = RootLock::acquire(root, LockWait::Forever).await.unwrap();
    Store::open(lock, [].into()).await.unwrap()
}

/// Opens the ingest of the tests, which is the only one.
async fn writer(store: &Store, expected: Expected) -> Box<dyn Writer> {
    let ingest: IngestRef = "part".parse().unwrap();
    store.content(&Scope::from(Namespace::default())).writer(&ingest, expected).await.unwrap()
}

/// Returns the one ingest's directory.
fn ingest(root: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(root.join("content/ingest")).unwrap();
    let found = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    found
}

/// Returns how many bytes are there, and how many of them the next writer hashes again.
fn again(ingest: &Path, expected: &Expected) -> (u64, u64) {
    let length = std::fs::metadata(ingest.join("data")).unwrap().len();
    let state = State::read(&Disk::real(), ingest).unwrap().unwrap();
    let algorithm = expected.digest.as_ref().map_or(windlass_core::digest::Algorithm::Sha256, Digest::algorithm);
    let covered = state.hash(Disk::real().boot().as_deref(), algorithm, length).map_or(0, |(_, covered)| covered);
    (length, length - covered)
}

/// Copies an ingest as it lies on disk, which is what a SIGKILL at this moment leaves.
fn freeze(ingest: &Path, to: &Path) {
    for name in ["ref", "data", "state"] {
        std::fs::copy(ingest.join(name), to.join(name)).unwrap();
    }
}

#[tokio::test]
async fn after_a_clean_drop_nothing_is_hashed_again_and_after_a_kill_at_most_one_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let bytes: Bytes = (0..u32::try_from(45 * MIB / 4).unwrap()).flat_map(u32::to_le_bytes).collect::<Vec<_>>().into();
    let expected = Expected { digest: Some(Digest::sha256(&bytes)), size: Some(bytes.len() as u64) };
    let mut killed: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    for end in [3 * MIB / 2, 3 * MIB + 7, 36 * MIB + 1, 40 * MIB] {
        let store = open(root.path()).await;
        let mut writer = writer(&store, expected.clone()).await;
        assert_eq!(writer.status().await.unwrap().offset, at as u64);
        let moment = tempfile::tempdir().unwrap();
        for part in bytes.slice(at..end).chunks(MIB + 3) {
            writer.write(Bytes::copy_from_slice(part)).await.unwrap();
            // Nothing is under way: data and state on disk belong together.
            writer.status().await.unwrap();
            freeze(&ingest(root.path()), moment.path());
            killed.push(again(moment.path(), &expected));
        }
        at = end;
        drop(writer);
        drop(store);
        // Whoever gets the root next finds everything written.
        drop(RootLock::acquire(root.path(), LockWait::Forever).await.unwrap());
        assert_eq!(again(&ingest(root.path()), &expected), (at as u64, 0), "nothing after a clean drop");
    }
    let most = killed.iter().map(|(_, again)| *again).max().unwrap();
    assert!(killed.iter().any(|(length, _)| *length > 2 * CHECKPOINT), "there was more than two checkpoints' worth");
    assert!(most > 0 && most <= CHECKPOINT, "{most} bytes are hashed again after a kill");

    let store = open(root.path()).await;
    let mut writer = writer(&store, expected.clone()).await;
    writer.write(bytes.slice(at..)).await.unwrap();
    assert_eq!(Some(writer.commit(Commit::default()).await.unwrap().digest), expected.digest);
}
