//! Streams that other calls refer to by a name: `containerd.services.streaming.v1.Streaming`.
//!
//! A client opens a stream and names it; whatever call it makes next, such as a transfer, tells the daemon the name, and the
//! daemon takes the stream up. Both ends send typed values ([`Stream`]); bytes travel in a window that the receiver grants
//! ([`window`]).

pub mod window;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::{Stream as Values, StreamExt as _};
use prost::Name;
use prost_types::Any;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use windlass_core::{Error, Namespace, Result, Scope};
use windlass_proto::containerd::services::streaming::v1 as wire;
use windlass_proto::containerd::services::streaming::v1::streaming_client::StreamingClient;
use windlass_proto::containerd::services::streaming::v1::streaming_server::Streaming;

use crate::error::{Answer as _, from_status, to_status};
use crate::{MAX_MESSAGE, scope};

/// How many values wait to be sent at one end, at most.
const QUEUE: usize = 4;
/// How many streams of one namespace may wait to be taken up.
const MAX_WAITING: usize = 1024;

/// One end of a stream. Dropping it breaks the stream off: what was sent may not arrive.
pub struct Stream {
    incoming: Pin<Box<dyn Values<Item = Result<Any, Status>> + Send>>,
    outgoing: mpsc::Sender<Any>,
}

impl Stream {
    /// Sends a value; waits while the other end does not take what was sent before.
    ///
    /// # Errors
    /// `Aborted` when the other end is gone.
    pub async fn send<M: Name>(&mut self, message: &M) -> Result<()> {
        self.outgoing.send(pack(message)).await.map_err(|_| gone())
    }

    /// Receives the next value; none at the end.
    ///
    /// # Errors
    /// That of the connection.
    pub async fn receive(&mut self) -> Result<Option<Any>> {
        self.incoming.next().await.transpose().map_err(|status| from_status(&status))
    }

    /// Sends nothing more, and waits until the other end has taken what was sent and closes too.
    ///
    /// # Errors
    /// That of the connection.
    pub async fn finish(self) -> Result<()> {
        let Self { mut incoming, outgoing } = self;
        drop(outgoing);
        while incoming.next().await.transpose().map_err(|status| from_status(&status))?.is_some() {}
        Ok(())
    }
}

fn gone() -> Error {
    Error::aborted("the other end of the stream is gone")
}

/// Packs a message as containerd's clients do: its name is the whole URL.
pub fn pack<M: Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Unpacks a message; none when the value is of another type.
///
/// # Errors
/// `InvalidArgument` when the value is not what its type says.
pub fn unpack<M: Name + Default>(any: &Any) -> Result<Option<M>> {
    // A prefix such as `type.googleapis.com/` says nothing about the type.
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != M::full_name() {
        return Ok(None);
    }
    M::decode(&*any.value)
        .map(Some)
        .map_err(|error| Error::invalid_argument(format!("the value is no {name}")).source(error))
}

/// The streams of a daemon that wait to be taken up. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<BTreeMap<(Namespace, String), Stream>>>);

impl Streams {
    // A panic while the lock was held cannot leave a half-made state behind: every change is one call.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Namespace, String), Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a stream that a client opened before.
    ///
    /// # Errors
    /// `NotFound` when nobody did.
    pub fn take(&self, namespace: &Namespace, name: &str) -> Result<Stream> {
        self.lock().remove(&(namespace.clone(), name.to_owned())).ok_or_else(|| {
            Error::not_found(format!("stream {name:?} is not open")).hint("open it before the call that names it")
        })
    }

    fn put(&self, namespace: &Namespace, name: &str, stream: Stream) -> Result<()> {
        let mut streams = self.lock();
        let waiting = streams.keys().filter(|(of, _)| of == namespace).count();
        if waiting >= MAX_WAITING {
            return Err(Error::resource_exhausted(format!("{waiting} streams of namespace {namespace} wait already")));
        }
        match streams.entry((namespace.clone(), name.to_owned())) {
            Entry::Vacant(free) => free.insert(stream),
            Entry::Occupied(_) => return Err(Error::already_exists(format!("stream {name:?} is open already"))),
        };
        Ok(())
    }
}

/// Takes streams from clients and keeps them until somebody takes them up.
pub struct Server {
    streams: Streams,
}

impl Server {
    /// Serves those streams.
    pub fn new(streams: Streams) -> Self {
        Self { streams }
    }
}

/// What goes to the client; a stream that nobody took up before the client went is forgotten.
pub struct Outgoing {
    values: mpsc::Receiver<Any>,
    streams: Streams,
    of: (Namespace, String),
}

impl Values for Outgoing {
    type Item = Result<Any, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // What was sent before the end was closed arrives: the channel ends after it.
        self.values.poll_recv(context).map(|value| value.map(Ok))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.values.close();
        let mut streams = self.streams.lock();
        // Another stream may have the name by now: its end is open.
        if streams.get(&self.of).is_some_and(|stream| stream.outgoing.is_closed()) {
            streams.remove(&self.of);
        }
    }
}

#[tonic::async_trait]
impl Streaming for Server {
    type StreamStream = Outgoing;

    async fn stream(&self, request: Request<tonic::Streaming<Any>>) -> Result<Response<Outgoing>, Status> {
        let namespace = scope::of_headers(request.metadata()).map_err(|error| to_status(&error))?.namespace;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.ok_or_else(|| Status::invalid_argument("the stream has no name"))?;
        let registered = async {
            let init = unpack::<wire::StreamInit>(&first)?.ok_or_else(|| {
                Error::invalid_argument(format!("a stream begins with StreamInit, not {}", first.type_url))
            })?;
            if init.id.is_empty() {
                return Err(Error::invalid_argument("the stream has no name"));
            }
            let (outgoing, values) = mpsc::channel(QUEUE);
            // The answer that tells the client that the name can be used.
            outgoing
                .send(Any { type_url: "google.protobuf.Empty".to_owned(), value: Vec::new() })
                .await
                .map_err(|_| gone())?;
            let stream = Stream { incoming: Box::pin(incoming), outgoing };
            self.streams.put(&namespace, &init.id, stream)?;
            Ok(Outgoing { values, streams: self.streams.clone(), of: (namespace, init.id) })
        };
        registered.await.map(Response::new).map_err(|error| to_status(&error))
    }
}

/// Opens a stream to a daemon; the name is free to choose, and new.
pub(crate) async fn open(channel: Channel, scope: &Scope, name: &str) -> Result<Stream> {
    let (outgoing, values) = mpsc::channel(QUEUE);
    outgoing.send(pack(&wire::StreamInit { id: name.to_owned() })).await.map_err(|_| gone())?;
    let values = futures::stream::unfold(values, async |mut values| values.recv().await.map(|value| (value, values)));
    let mut client = StreamingClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let incoming = client.stream(scope::request(scope, values)?).await.answer()?;
    let mut stream = Stream { incoming: Box::pin(incoming), outgoing };
    match stream.receive().await? {
        Some(_) => Ok(stream),
        None => Err(Error::aborted(format!("the daemon closed stream {name:?} before it was used"))),
    }
}
