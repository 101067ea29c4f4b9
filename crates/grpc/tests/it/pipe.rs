//! A connection that is a pipe in memory.

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use windlass_grpc::{Routes, server};

/// Serves at one end of a pipe, for as long as the runtime lives, and connects to it at the other.
pub(crate) async fn connect(routes: Routes) -> Channel {
    let (client, server) = tokio::io::duplex(1 << 20);
    let incoming = futures::stream::iter([std::io::Result::Ok(server)]);
    tokio::spawn(async move { server::builder().serve_with_incoming(routes, incoming).await });
    let mut client = Some(client);
    let connector = tower::service_fn(move |_: Uri| {
        let end = client.take().ok_or_else(|| std::io::Error::other("the pipe is in use"));
        async move { end.map(TokioIo::new) }
    });
    windlass_grpc::Client::tuned(Endpoint::from_static("http://pipe")).connect_with_connector(connector).await.unwrap()
}
