//! ttrpc, on which runtime shims forward their events: one service with one method.
//!
//! The protocol is small enough to be read here whole; `docs/adr/0010-ttrpc-by-ourselves.md` says why it is our own. A
//! connection's requests are answered one after the other, so that events keep their order. A client that breaks the protocol
//! is cut off.

mod frame;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use windlass_core::Result;
use windlass_proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use windlass_proto::containerd::types::Envelope;
use windlass_proto::google::rpc;

use windlass_grpc::error::to_status;

use crate::calls::Calls;
use frame::{Frame, MAX_DATA, REQUEST, Request, Response};

/// The one service.
const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// Its one method.
const METHOD: &str = "Forward";
/// How many connections may be open: a shim has one.
const MAX_CONNECTIONS: usize = 16 << 10;

/// Where events go.
#[async_trait]
pub(crate) trait Sink: Send + Sync {
    /// Passes an event on.
    async fn forward(&self, envelope: Option<Envelope>) -> Result<()>;
}

/// Serves until the calls are told to stop.
pub(crate) async fn serve(listener: UnixListener, sink: Arc<dyn Sink>, calls: Calls) {
    let mut connections = JoinSet::new();
    let mut stopped = Box::pin(calls.stopped());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut stopped => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let sink = sink.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &*sink).await {
                        tracing::debug!(%error, "a ttrpc connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a ttrpc connection was not accepted");
                tokio::time::sleep(crate::serve::PAUSE).await;
            }
        }
    }
}

/// Answers the requests of a connection.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, sink: &dyn Sink) -> std::io::Result<()> {
    let mut last = 0;
    while let Some(Frame { stream: id, kind, data }) = frame::read(&mut stream).await? {
        // A client's streams have odd numbers that grow.
        if kind != REQUEST || id % 2 == 0 || id <= last {
            return Err(std::io::Error::other(format!("a frame of kind {kind} on stream {id} after {last}")));
        }
        last = id;
        let outcome = match data {
            Some(data) => dispatch(&data, sink).await,
            None => Err(Status::resource_exhausted(format!("a message may have {MAX_DATA} bytes"))),
        };
        let response = match outcome {
            Ok(payload) => Response { status: None, payload },
            Err(status) => Response { status: Some(told(&status)), payload: Vec::new() },
        };
        frame::answer(&mut stream, id, &response).await?;
    }
    Ok(())
}

/// Carries a request out.
async fn dispatch(data: &[u8], sink: &dyn Sink) -> Result<Vec<u8>, Status> {
    let malformed = |error| Status::invalid_argument(format!("the message cannot be read: {error}"));
    let Request { service, method, payload, .. } = Request::decode(data).map_err(malformed)?;
    if (service.as_str(), method.as_str()) != (SERVICE, METHOD) {
        return Err(Status::unimplemented(format!("there is no {service}/{method} here, only {SERVICE}/{METHOD}")));
    }
    let request = ForwardRequest::decode(&*payload).map_err(malformed)?;
    sink.forward(request.envelope).await.map_err(|error| to_status(&error))?;
    Ok(Vec::new())
}

/// Returns a status as it is told.
fn told(status: &Status) -> rpc::Status {
    let code = if status.code() == Code::Ok { Code::Unknown } else { status.code() };
    rpc::Status { code: code as i32, message: status.message().to_owned(), details: Vec::new() }
}
