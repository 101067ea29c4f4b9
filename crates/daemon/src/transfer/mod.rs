//! Transfers: `containerd.services.transfer.v1.Transfer`, by the workflows that the command has too.
//!
//! | from | to | what it is |
//! |---|---|---|
//! | `OCIRegistry` | `ImageStore` | a pull |
//! | `ImageStore` | `OCIRegistry` | a push |
//! | `ImageImportStream` | `ImageStore` | an import |
//! | `ImageStore` | `ImageExportStream` | an export |
//! | `ImageStore` | `ImageStore` | another name |
//! | `ImageImportStream` | `ImageExportStream` | the bytes come back as they are |
//!
//! Anything else is `Unimplemented`, naming both. Bytes, questions about credentials and progress travel over streams that the
//! client opened before ([`Streams`]). A client that goes away stops its transfer, which then ends in order, as after an error: what
//! a pull brought stays for the next one, a push leaves blobs without a tag, and an import leaves nothing. So a transfer is a task of
//! its own. A daemon that stops does the same to those that do not end by themselves.
//!
//! What is recorded is held by the lease of the client as well, if it has one.

mod archive;
mod credentials;
mod progress;
mod pull;
mod push;
mod store;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost_types::Any;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use windlass::registry::Remote;
use windlass::transfer::{Priority, Pull, Stop};
use windlass_core::lease::{self, Resource, ResourceKind};
use windlass_core::progress::Tracker;
use windlass_core::{Descriptor, Error, Host, Kind, Namespace, Result, Scope};
use windlass_grpc::Routes;
use windlass_grpc::error::{to_foreign_status, to_status};
use windlass_grpc::scope;
use windlass_grpc::server::Limits;
use windlass_grpc::streaming::{self, Stream, Streams, unpack};
use windlass_grpc::transfer::{self, PullOptions};
use windlass_proto::containerd::services::streaming::v1::streaming_server::StreamingServer;
use windlass_proto::containerd::services::transfer::v1 as wire;
use windlass_proto::containerd::services::transfer::v1::transfer_server::{Transfer, TransferServer};
use windlass_proto::containerd::types::transfer::{ImageExportStream, ImageImportStream, ImageStore, OciRegistry};

use crate::calls::Calls;
use crate::daemon::DRAIN;

use progress::{Messages, Reporter};

/// The header in which a client says the priority of a transfer: low, normal or high.
const PRIORITY: &str = "windlass-priority";

/// How long a transfer may still run while the daemon stops: less than calls may, so that it can end in order.
const GRACE: Duration = DRAIN.saturating_sub(Duration::from_secs(1));

/// Where transfers are carried out.
#[derive(Clone)]
pub(crate) struct Hosts {
    /// Where images are brought, and read.
    pub(crate) bringing: Arc<dyn Host>,
    /// Where an image that is here gets another name.
    pub(crate) naming: Arc<dyn Host>,
}

/// Adds the services of transfers, and of the streams that they need, to others; `pull` is what a pull is unless its client says
/// otherwise, and `remote` where images come from. Called within the runtime in which transfers are to run.
pub(crate) fn added_to(
    routes: Routes,
    limits: Limits,
    hosts: Hosts,
    pull: Pull,
    remote: Remote,
    calls: Calls,
) -> Routes {
    let streams = Streams::default();
    let opened = StreamingServer::new(streaming::Server::new(streams.clone()));
    let (running, runtime) = (Mutex::default(), Handle::current());
    let transfers = TransferServer::new(Server { hosts, streams, pull, remote, calls, running, runtime });
    routes
        .add_service(opened.max_decoding_message_size(limits.taken).max_encoding_message_size(limits.sent))
        .add_service(transfers.max_decoding_message_size(limits.taken).max_encoding_message_size(limits.sent))
}

/// Carries out transfers.
struct Server {
    hosts: Hosts,
    streams: Streams,
    /// What a pull is unless its client says otherwise.
    pull: Pull,
    /// The one remote of the process: what is known of hosts, and how much may be asked of them, is shared by all transfers.
    remote: Remote,
    /// Who knows whether the daemon stops.
    calls: Calls,
    /// Transfers, until they have ended. Those that have not when the daemon ends are cut off.
    running: Mutex<JoinSet<()>>,
    /// Where they run: not on the thread that serves who asked for them.
    runtime: Handle,
}

/// A transfer that was asked for.
struct Asked {
    namespace: Namespace,
    lease: Option<lease::Id>,
    source: End,
    destination: End,
    told: PullOptions,
    /// Which of the others it gives way to.
    priority: Priority,
    progress: Option<Stream>,
    messages: Messages,
}

/// What a transfer works with.
struct Work<'a> {
    host: &'a dyn Host,
    /// Where an image that is here gets another name.
    naming: &'a dyn Host,
    namespace: &'a Namespace,
    /// The lease of the client.
    lease: Option<&'a lease::Id>,
    streams: &'a Streams,
    pull: &'a Pull,
    remote: &'a Remote,
    /// What a client of ours says of a pull.
    told: &'a PullOptions,
    reporter: &'a Reporter,
    stop: &'a Stop,
}

impl Work<'_> {
    fn tracker(&self) -> &Tracker {
        self.reporter.tracker()
    }

    fn stream(&self, name: &str) -> Result<Stream> {
        self.streams.take(self.namespace, name)
    }

    /// Has the lease of the client hold an image too. Everything that the image has is held by that.
    async fn hold(&self, target: &Descriptor) -> Result<()> {
        let Some(lease) = self.lease else { return Ok(()) };
        let services = self.host.services(&self.namespace.clone().into()).await?;
        let target = Resource { kind: ResourceKind::Content, id: target.digest.to_string() };
        services.leases.add_resource(lease, &target).await
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
    if let Some(lease) = work.lease {
        // That it is not here is said before anything is done.
        work.host.services(&work.namespace.clone().into()).await?.leases.resources(lease).await?;
    }
    match (source, destination) {
        (End::Registry(from), End::Images(to)) => Box::pin(pull::pull(work, from, to)).await,
        (End::Images(from), End::Registry(to)) => Box::pin(push::push(work, from, to)).await,
        (End::Import(from), End::Images(to)) => archive::import(work, from, to).await,
        (End::Images(from), End::Export(to)) => archive::export(work, from, to).await,
        (End::Images(from), End::Images(to)) => store::tag(work, &from, &to).await,
        (End::Import(from), End::Export(to)) => archive::echo(work, &from, &to).await,
        (source, destination) => Err(Error::unimplemented(format!(
            "nothing is transferred from {} to {} here",
            source.name(),
            destination.name()
        ))),
    }
}

/// Says why a transfer did not end by itself.
fn cut_off() -> Error {
    Error::unavailable("the daemon is stopping").hint("do it again once it runs: it continues where it stopped")
}

/// Returns which of the others a transfer gives way to, as its client says in a header of ours.
fn priority(headers: &MetadataMap, usual: Priority) -> Result<Priority> {
    let Some(value) = headers.get(PRIORITY) else { return Ok(usual) };
    value.to_str().unwrap_or_default().parse()
}

impl Server {
    fn read(&self, request: Request<wire::TransferRequest>) -> Result<Asked> {
        let Scope { namespace, lease } = scope::of_headers(request.metadata())?;
        let told = transfer::options(request.metadata())?;
        let priority = priority(request.metadata(), self.pull.priority)?;
        let ours = scope::has_contract(request.metadata());
        let messages = if ours { Messages::Ours } else { Messages::Containerd };
        let request = request.into_inner();
        let source = End::of(request.source.as_ref(), "source")?;
        let destination = End::of(request.destination.as_ref(), "destination")?;
        let progress = request.options.map(|options| options.progress_stream).filter(|name| !name.is_empty());
        let progress = progress.map(|name| self.streams.take(&namespace, &name)).transpose()?;
        Ok(Asked { namespace, lease, source, destination, told, priority, progress, messages })
    }

    /// Begins a transfer, which is stopped when what is returned is dropped, or the daemon stops.
    fn begin(&self, asked: Asked) -> (oneshot::Sender<()>, oneshot::Receiver<Result<()>>) {
        let (hosts, streams, remote) = (self.hosts.clone(), self.streams.clone(), self.remote.clone());
        let pull = Pull { priority: asked.priority, ..self.pull.clone() };
        let (client, gone) = oneshot::channel();
        let (ended, outcome) = oneshot::channel();
        let calls = self.calls.clone();
        let (stopped, stopping) = (calls.stopped(), calls.clone());
        let stop = Stop::when(async move {
            let cut_off = async {
                stopped.await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                _ = gone => {}
                () = cut_off => {}
            }
        });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        let transfer = async move {
            let Asked { namespace, lease, source, destination, told, progress, messages, .. } = asked;
            let reporter = Reporter::start(progress, messages);
            let (host, naming, namespace) = (&*hosts.bringing, &*hosts.naming, &namespace);
            let (streams, pull, remote, told) = (&streams, &pull, &remote, &told);
            let (reporting, stop, lease) = (&reporter, &stop, lease.as_ref());
            let work = Work { host, naming, namespace, lease, streams, pull, remote, told, reporter: reporting, stop };
            let outcome = carry_out(&work, source, destination).await;
            let outcome = outcome.map_err(|error| match error.kind() {
                Kind::Canceled if *stopping.stopping().borrow() => cut_off(),
                _ => error,
            });
            reporter.end().await;
            if let Err(Err(error)) = ended.send(outcome) {
                tracing::info!(%error, "a transfer of namespace {namespace} whose client is gone has ended");
            }
        };
        running.spawn_on(transfer, &self.runtime);
        (client, outcome)
    }
}

#[tonic::async_trait]
impl Transfer for Server {
    async fn transfer(&self, request: Request<wire::TransferRequest>) -> Result<Response<()>, Status> {
        // Clients of others show the message, and nothing else.
        let status = if scope::has_contract(request.metadata()) { to_status } else { to_foreign_status };
        let done = async {
            let (_client, outcome) = self.begin(self.read(request)?);
            outcome.await.map_err(|_| Error::internal("the transfer panicked, or the daemon ends"))?
        };
        done.await.map(Response::new).map_err(|error| status(&error))
    }
}
