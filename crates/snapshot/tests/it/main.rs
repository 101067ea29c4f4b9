//! The snapshotters and their mounts, with real mounts: these tests need root.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod activations;
mod erofs;
mod mounts;
mod native;
mod overlay;
mod snapshots;
mod suites;

use std::path::Path;

use windlass_core::Labels;
use windlass_core::snapshot::{Commit, Key, Mount, Name, Snapshotter};
use windlass_snapshot::mount::Temporary;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Prepares a snapshot, fills it through its mounts, and commits it.
async fn layer(snapshots: &dyn Snapshotter, layer: &str, parent: Option<&str>, fill: impl FnOnce(&Path)) {
    let work = key(&format!("{layer}-work"));
    let parent = parent.map(name);
    let mounts = snapshots.prepare(&work, parent.as_ref(), Labels::new()).await.unwrap();
    within(&mounts, fill);
    snapshots.commit(&name(layer), &work, Commit::default()).await.unwrap();
}

/// Looks into mounts, or changes what is there.
fn within<T>(mounts: &[Mount], look: impl FnOnce(&Path) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let mounted = Temporary::mount(mounts, directory.path()).unwrap();
    let seen = look(mounted.path());
    mounted.close().unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    seen
}
