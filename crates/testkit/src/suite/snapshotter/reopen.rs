//! What is still there after the snapshotter was closed and opened again on the same directory.

use std::path::Path;
use std::sync::Arc;

use windlass_core::Kind;
use windlass_core::snapshot::{Snapshotter, State};

use super::{commit_layer, key, name, prepare, view};
use crate::mounted::Mounted;
use crate::suite::{assert_kind, collect};

pub async fn snapshots_survive_a_restart(make: &impl AsyncFn(&Path) -> Arc<dyn Snapshotter>, root: &Path) {
    let snapshotter = make(root).await;
    commit_layer(&*snapshotter, "base", None).await;
    prepare(&*snapshotter, "active", Some("base")).await.write("mine", b"x").unwrap();
    drop(snapshotter);

    let snapshotter = make(root).await;
    snapshotter.cleanup().await.unwrap();
    let info = snapshotter.stat(&key("active")).await.unwrap();
    assert_eq!((info.state, info.parent), (State::Active, Some(name("base"))));
    let mounted = Mounted::of(&snapshotter.mounts(&key("active")).await.unwrap()).unwrap();
    assert_eq!((mounted.read("mine").unwrap(), mounted.read("base").unwrap()), (b"x".to_vec(), b"base".to_vec()));
    assert_eq!(view(&*snapshotter, "base").await.read("base").unwrap(), b"base");
}

pub async fn a_removed_snapshot_stays_removed_after_a_restart(
    make: &impl AsyncFn(&Path) -> Arc<dyn Snapshotter>,
    root: &Path,
) {
    let snapshotter = make(root).await;
    commit_layer(&*snapshotter, "base", None).await;
    let gone = prepare(&*snapshotter, "gone", None).await;
    snapshotter.remove(&key("gone")).await.unwrap();
    drop(snapshotter);

    let snapshotter = make(root).await;
    snapshotter.cleanup().await.unwrap();
    assert_kind(snapshotter.stat(&key("gone")).await, Kind::NotFound, "stat");
    assert_eq!(collect(snapshotter.walk(&[])).await.len(), 1);
    assert!(!gone.layers[0].exists());
}
