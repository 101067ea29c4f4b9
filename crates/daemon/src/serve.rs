//! gRPC on a socket.

use std::time::Duration;

use futures::stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use windlass_grpc::{Lingering, Turn, make_room, server};

use crate::calls::Calls;
use crate::gathering::Gathering;

/// The pause after a connection could not be accepted, because no file could be opened for instance.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the sender is dropped, and then until the last call has ended.
pub(crate) fn grpc(
    listener: UnixListener,
    routes: Routes,
    calls: &Calls,
    until: oneshot::Receiver<()>,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    let stopped = async { drop(until.await) };
    let server = server::builder().layer(calls.clone()).add_routes(routes);
    tokio::spawn(async move { server.serve_with_incoming_shutdown(connections(listener), stopped).await })
}

/// Returns the connections to a socket. One that could not be accepted is logged, and the others are not affected.
fn connections(
    listener: UnixListener,
) -> impl stream::Stream<Item = std::io::Result<Gathering<Lingering<UnixStream>>>> {
    let turn = Turn::default();
    stream::unfold((listener, turn), |(listener, turn)| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    make_room(&stream);
                    let stream = Gathering::new(Lingering::new(stream, turn.clone()));
                    return Some((Ok(stream), (listener, turn)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}
