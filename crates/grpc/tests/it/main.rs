//! The traits of the contract over the wire: the suites that every implementor passes, on a client and a server that talk
//! over a pipe in memory.
//!
//! What containerd's messages have no room for is left out:
//!
//! - `content`: a reader is a series of calls, of which each finds the blob by its digest. So it does not outlive the deletion of
//!   its blob, and neither does a copy that reads from it.
//! - `image`: the message of a descriptor has type, digest, size and annotations; platform and URLs are lost.
//! - No `one_pass` suite: `Write` appends at one place and cannot be read behind, so there is no `tail` and no `sparse`. A
//!   declared size of zero is none on the wire.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod about;
mod calls;
mod containerd;
mod ctr;
mod daemon;
mod engine;
mod events;
mod layers;
mod mounts;
mod pipe;
mod read;
mod write;

use std::path::Path;
use std::sync::Arc;

use tonic::Request;
use tonic::transport::Channel;
use windlass_core::activation::Manager;
use windlass_core::{Host, Scope, Services};
use windlass_grpc::{Client, scope, server};
use windlass_snapshot::activations::Activations;
use windlass_testkit::memory;

/// Returns a host that keeps everything in memory, but for the trees of its snapshots.
fn in_memory(directory: &Path) -> Arc<dyn Host> {
    Arc::new(memory::Host::new(directory, Arc::new(memory::Applier::new())))
}

/// Returns a host for tests that need no snapshots, which alone would need the directory.
fn host() -> Arc<dyn Host> {
    in_memory(Path::new("/nonexistent"))
}

/// Serves a host over a pipe, with the activations of a directory, and connects to it.
async fn served(host: &Arc<dyn Host>, directory: &Path) -> Channel {
    let activations: Arc<dyn Manager> = Arc::new(Activations::open(&directory.join("mounts")).await.unwrap());
    let daemon: Arc<dyn windlass_core::plugin::Introspection> = Arc::new(daemon::Daemon);
    pipe::connect(server::routes(host, &daemon, &activations)).await
}

/// Serves a host over a pipe, for a test that activates nothing, and connects to it.
async fn connect(host: &Arc<dyn Host>) -> Channel {
    served(host, tempfile::tempdir().unwrap().path()).await
}

/// Returns the connection to a host of its own.
async fn channel() -> Channel {
    connect(&host()).await
}

/// Makes a call in a namespace, as any client does.
fn in_namespace<T>(message: T) -> Request<T> {
    scope::request(&Scope::default(), message).unwrap()
}

async fn client(directory: &Path) -> Client {
    Client::new(served(&in_memory(directory), directory).await)
}

async fn services(directory: &Path) -> Services {
    client(directory).await.services(&Scope::default()).await.unwrap()
}

windlass_testkit::namespace_suite!(namespace, async |directory: &Path| services(directory).await.namespaces);
windlass_testkit::content_suite!(content, async |directory: &Path| services(directory).await.content, except [
    a_copy_continues_from_a_blob_that_is_deleted
    a_reader_outlives_the_deletion_of_its_blob
]);
windlass_testkit::image_suite!(
    image,
    async |directory: &Path| services(directory).await.images,
    except[a_target_is_recorded_with_what_its_referrer_says_of_it]
);
windlass_testkit::lease_suite!(lease, async |directory: &Path| services(directory).await.leases);
windlass_testkit::container_suite!(container, async |directory: &Path| services(directory).await.containers);
windlass_testkit::snapshotter_suite!(snapshotter, async |directory: &Path| {
    services(directory).await.snapshotter(Some(memory::SNAPSHOTTER)).unwrap().1.clone()
});
windlass_testkit::event_suite!(event, async |directory: &Path| services(directory).await.events);
windlass_testkit::comparer_suite!(comparer, async |directory: &Path| Arc::new(client(directory).await));
windlass_testkit::host_suite!(host, async |directory: &Path| Arc::new(client(directory).await));
