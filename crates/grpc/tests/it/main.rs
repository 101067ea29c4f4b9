//! The traits of the contract over the wire: the suites that every implementor passes, on a client and a server that talk
//! over a pipe in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pipe;
mod streaming;

use std::path::Path;
use std::sync::Arc;

use windlass_core::Host;
use windlass_grpc::{Client, namespaces};
use windlass_proto::containerd::services::namespaces::v1::namespaces_server::NamespacesServer;
use windlass_testkit::memory;

/// Returns a host that keeps everything in memory, but for the trees of its snapshots.
fn in_memory(directory: &Path) -> Arc<dyn Host> {
    Arc::new(memory::Host::new(directory, Arc::new(memory::Applier::new())))
}

/// Serves a host over a pipe and returns the client at its other end.
async fn over_the_wire(host: Arc<dyn Host>) -> Client {
    let router = tonic::transport::Server::builder().add_service(NamespacesServer::new(namespaces::Server::new(host)));
    Client::new(pipe::connect(router).await)
}

windlass_testkit::namespace_suite!(namespace, async |directory: &Path| {
    over_the_wire(in_memory(directory)).await.namespaces()
});
