//! Transfers: `containerd.services.transfer.v1.Transfer`, by the workflows that the command has too.
//!
//! | from | to | what it is |
//! |---|---|---|
//! | `OCIRegistry` | `ImageStore` | a pull |
//! | `ImageStore` | `OCIRegistry` | a push |
//! | `ImageImportStream` | `ImageStore` | an import |
//! | `ImageStore` | `ImageExportStream` | an export |
//! | `ImageStore` | `ImageStore` | another name |
//!
//! Anything else is `Unimplemented`, naming both. Bytes, questions about credentials and progress travel over streams that the
//! client opened before ([`Streams`]). A client that goes away ends its transfer; what a pull brought stays for the next one.

mod archive;
mod credentials;
mod progress;
mod pull;
mod push;
mod store;

use std::sync::Arc;

use prost_types::Any;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use windlass::registry::Remote;
use windlass::transfer::{Priority, Pull};
use windlass_core::progress::Tracker;
use windlass_core::{Error, Host, Namespace, Result};
use windlass_grpc::error::to_status;
use windlass_grpc::scope;
use windlass_grpc::server::Limits;
use windlass_grpc::streaming::{self, Stream, Streams, unpack};
use windlass_proto::containerd::services::streaming::v1::streaming_server::StreamingServer;
use windlass_proto::containerd::services::transfer::v1 as wire;
use windlass_proto::containerd::services::transfer::v1::transfer_server::{Transfer, TransferServer};
use windlass_proto::containerd::types::transfer::{ImageExportStream, ImageImportStream, ImageStore, OciRegistry};

use progress::Reporter;

/// The header in which a client says the priority of a transfer: low, normal or high.
const PRIORITY: &str = "windlass-priority";

/// Adds the services of transfers, and of the streams that they need, to those of a host; `pull` is what a pull is unless its client
/// says otherwise, and `remote` where images come from.
pub(crate) fn added_to(routes: Routes, limits: Limits, host: &Arc<dyn Host>, pull: Pull, remote: Remote) -> Routes {
    let streams = Streams::default();
    let opened = StreamingServer::new(streaming::Server::new(streams.clone()));
    let transfers = TransferServer::new(Server { host: host.clone(), streams, pull, remote });
    routes
        .add_service(opened.max_decoding_message_size(limits.taken).max_encoding_message_size(limits.sent))
        .add_service(transfers.max_decoding_message_size(limits.taken).max_encoding_message_size(limits.sent))
}

/// Carries out transfers on a host.
struct Server {
    host: Arc<dyn Host>,
    streams: Streams,
    /// What a pull is unless its client says otherwise.
    pull: Pull,
    /// The one remote of the process: what is known of hosts, and how much may be asked of them, is shared by all transfers.
    remote: Remote,
}

/// What a transfer works with.
struct Work<'a> {
    host: &'a dyn Host,
    namespace: &'a Namespace,
    streams: &'a Streams,
    pull: &'a Pull,
    remote: &'a Remote,
    reporter: &'a Reporter,
}

impl Work<'_> {
    fn tracker(&self) -> &Tracker {
        self.reporter.tracker()
    }

    fn stream(&self, name: &str) -> Result<Stream> {
        self.streams.take(self.namespace, name)
    }
}

/// One end of a transfer.
enum End {
    Registry(OciRegistry),
    Images(ImageStore),
    Import(ImageImportStream),
    Export(ImageExportStream),
}

impl End {
    fn of(any: Option<&Any>, which: &str) -> Result<Self> {
        let any = any.ok_or_else(|| Error::invalid_argument(format!("the transfer has no {which}")))?;
        if let Some(registry) = unpack(any)? {
            return Ok(Self::Registry(registry));
        }
        if let Some(images) = unpack(any)? {
            return Ok(Self::Images(images));
        }
        if let Some(import) = unpack(any)? {
            return Ok(Self::Import(import));
        }
        if let Some(export) = unpack(any)? {
            return Ok(Self::Export(export));
        }
        Err(Error::unimplemented(format!(
            "the {which} of the transfer is a {:?}, which is not known here",
            any.type_url
        )))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Registry(_) => "a registry",
            Self::Images(_) => "the image store",
            Self::Import(_) => "an archive that is read",
            Self::Export(_) => "an archive that is written",
        }
    }
}

async fn carry_out(work: &Work<'_>, source: End, destination: End) -> Result<()> {
    match (source, destination) {
        (End::Registry(from), End::Images(to)) => pull::pull(work, from, to).await,
        (End::Images(from), End::Registry(to)) => push::push(work, from, to).await,
        (End::Import(from), End::Images(to)) => archive::import(work, from, to).await,
        (End::Images(from), End::Export(to)) => archive::export(work, from, to).await,
        (End::Images(from), End::Images(to)) => store::tag(work, &from, &to).await,
        (source, destination) => Err(Error::unimplemented(format!(
            "nothing is transferred from {} to {} here",
            source.name(),
            destination.name()
        ))),
    }
}

/// Returns which of the others a transfer gives way to, as its client says in a header of ours.
fn priority(headers: &MetadataMap, usual: Priority) -> Result<Priority> {
    let Some(value) = headers.get(PRIORITY) else { return Ok(usual) };
    value.to_str().unwrap_or_default().parse()
}

#[tonic::async_trait]
impl Transfer for Server {
    async fn transfer(&self, request: Request<wire::TransferRequest>) -> Result<Response<()>, Status> {
        let done = async {
            let namespace = scope::of_headers(request.metadata())?.namespace;
            let pull = Pull { priority: priority(request.metadata(), self.pull.priority)?, ..self.pull.clone() };
            let request = request.into_inner();
            let source = End::of(request.source.as_ref(), "source")?;
            let destination = End::of(request.destination.as_ref(), "destination")?;
            let progress = request.options.map(|options| options.progress_stream).filter(|name| !name.is_empty());
            let stream = progress.map(|name| self.streams.take(&namespace, &name)).transpose()?;
            let reporter = Reporter::start(stream);
            let (host, streams, remote) = (&*self.host, &self.streams, &self.remote);
            let work = Work { host, namespace: &namespace, streams, pull: &pull, remote, reporter: &reporter };
            let outcome = carry_out(&work, source, destination).await;
            reporter.end().await;
            outcome
        };
        done.await.map(Response::new).map_err(|error| to_status(&error))
    }
}
