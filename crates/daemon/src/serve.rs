//! gRPC on a socket.

use std::sync::Arc;

use futures::stream;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use windlass_core::Host;
use windlass_grpc::namespaces;
use windlass_proto::containerd::services::namespaces::v1::namespaces_server::NamespacesServer;

use crate::calls::Calls;

/// How many calls a connection may have open at once.
const MAX_STREAMS: u32 = 10_000;
/// How much a client may send before it is read, in bytes: of one call, and of all calls of a connection.
const WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// The pause after a connection could not be accepted, because no file could be opened for instance.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Returns the services of a host.
pub(crate) fn routes(host: Arc<dyn Host>) -> Routes {
    Routes::new(NamespacesServer::new(namespaces::Server::new(host)))
}

/// Serves until the calls are told to stop, and then until the last one has ended.
pub(crate) fn grpc(
    listener: UnixListener,
    routes: Routes,
    calls: &Calls,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    let stopped = calls.stopped();
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(calls.clone())
        .add_routes(routes);
    tokio::spawn(async move { server.serve_with_incoming_shutdown(connections(listener), stopped).await })
}

/// Returns the connections to a socket. One that could not be accepted is logged, and the others are not affected.
fn connections(listener: UnixListener) -> impl stream::Stream<Item = std::io::Result<tokio::net::UnixStream>> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}
