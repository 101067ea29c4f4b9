//! The store as its callers see it: the suites of the contract, and what a crash, another process or another namespace
//! may do to it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod adoption;
mod collector;
mod elsewhere;
mod full;
mod garbage;
mod group;
mod leftovers;
mod lock;
mod property;
mod small;
mod suites;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, IngesterExt as _};
use windlass_core::snapshot::{Capabilities, Snapshotter};
use windlass_core::{Descriptor, Labels, Namespace, Scope, content, lease};
use windlass_store::{LockWait, Options, RootLock, Sharing, Store};
use windlass_testkit::memory;

/// What the snapshotter of the tests is called.
const SNAPSHOTTER: &str = "memory";

/// Opens a store on a root, with the given snapshotter.
async fn open_with(root: &Path, snapshotter: Arc<dyn Snapshotter>) -> Store {
    // Whatever the last owner of the root still has to write may take a moment.
    let lock = RootLock::acquire(root, LockWait::UpTo(Duration::from_secs(10))).await.unwrap();
    Store::open(lock, BTreeMap::from([(SNAPSHOTTER.to_owned(), snapshotter)])).await.unwrap()
}

/// Opens a store on a root, with a snapshotter in memory.
async fn open(root: &Path) -> Store {
    open_with(root, snapshotter(root)).await
}

/// Opens a store on a root, whose namespaces do not share.
async fn open_isolated(root: &Path, snapshotter: Arc<dyn Snapshotter>) -> Store {
    let lock = RootLock::acquire(root, LockWait::UpTo(Duration::from_secs(10))).await.unwrap();
    let snapshotters = BTreeMap::from([(SNAPSHOTTER.to_owned(), snapshotter)]);
    Store::open_with(lock, snapshotters, Options { sharing: Sharing::Isolated, ..Options::default() }).await.unwrap()
}

fn snapshotter(root: &Path) -> Arc<dyn Snapshotter> {
    let directory = root.join("snapshots");
    std::fs::create_dir_all(&directory).unwrap();
    Arc::new(memory::Snapshotter::new(&directory, Capabilities { rebase: true }))
}

fn namespace(name: &str) -> Namespace {
    name.parse().unwrap()
}

fn scope(name: &str) -> Scope {
    namespace(name).into()
}

/// Makes a lease and returns the scope with it.
async fn leased(store: &Store, name: &str) -> Scope {
    let lease = store.leases(&namespace(name)).create(lease::Options::default()).await.unwrap();
    Scope { namespace: namespace(name), lease: Some(lease.id) }
}

/// Brings a blob and returns its descriptor.
async fn bring(content: &dyn content::Store, bytes: &'static [u8], labels: Labels) -> Descriptor {
    let descriptor = Descriptor::of("application/octet-stream", bytes);
    content.write_blob(&descriptor, Bytes::from_static(bytes), labels).await.unwrap();
    descriptor
}

/// Writes a blob under a ref with what is declared, all the way to the commit.
async fn ingest(content: &dyn content::Store, key: &str, bytes: &[u8], expected: Expected) -> content::Info {
    let mut writer = content.writer(&key.parse().unwrap(), expected).await.unwrap();
    writer.write(Bytes::copy_from_slice(bytes)).await.unwrap();
    writer.commit(Commit::default()).await.unwrap()
}

/// Returns where the bytes of a blob lie.
fn blob_path(root: &Path, descriptor: &Descriptor) -> std::path::PathBuf {
    root.join("content/blobs/sha256").join(descriptor.digest.hex())
}
