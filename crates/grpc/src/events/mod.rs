//! Events over the wire: `containerd.services.events.v1.Events`.
//!
//! A call with a namespace sees the events of that one, but for filters that name `namespace` themselves; a call without sees
//! all. Whoever reads too slowly is told by an event of the topic [`MISSED_TOPIC`], whatever its filters are, and the stream
//! goes on. Payloads that clients publish are passed on untouched; filters see the fields of those that are the contract's.

mod payload;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future, stream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use windlass_core::event::{self, Envelope, Missed, Publisher, Subscriber};
use windlass_core::filter::Filter;
use windlass_core::{Error, Host, Kind, Listing, Result, Scope};
use windlass_proto::containerd::services::events::v1 as wire;
use windlass_proto::containerd::services::events::v1::events_client::EventsClient;
use windlass_proto::containerd::services::events::v1::events_server::Events;
use windlass_proto::containerd::types;

use crate::error::{Answer as _, Reply as _, from_status, to_status};
use crate::{MAX_MESSAGE, scope, time, wire as messages};

pub use payload::{MISSED_REASON, MISSED_TOPIC};

/// Answers with the events of a host.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }
}

/// Publishes an envelope that somebody else made, in the namespace that it names.
///
/// # Errors
/// `InvalidArgument` for an envelope that is not whole or a topic out of the rule.
pub async fn forward(host: &dyn Host, envelope: Option<types::Envelope>) -> Result<()> {
    let envelope = envelope.ok_or_else(|| Error::invalid_argument("no envelope is given"))?;
    let envelope = payload::passed_on(envelope)?;
    host.services(&envelope.namespace.clone().into()).await?.events.publish(envelope).await
}

#[tonic::async_trait]
impl Events for Server {
    async fn publish(&self, request: Request<wire::PublishRequest>) -> Result<Response<()>, Status> {
        let services = scope::services(&*self.host, &request).await?;
        let publish = async {
            let wire::PublishRequest { topic, event } = request.into_inner();
            let envelope = types::Envelope {
                timestamp: time::to_wire(SystemTime::now()),
                namespace: services.scope.namespace.to_string(),
                topic,
                event,
            };
            services.events.publish(payload::passed_on(envelope)?).await
        };
        publish.await.reply()
    }

    async fn forward(&self, request: Request<wire::ForwardRequest>) -> Result<Response<()>, Status> {
        forward(&*self.host, request.into_inner().envelope).await.reply()
    }

    type SubscribeStream = BoxStream<'static, Result<types::Envelope, Status>>;

    async fn subscribe(
        &self,
        request: Request<wire::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let subscribe = async {
            let scope = match scope::of_headers(request.metadata()) {
                Ok(scope) => Some(Scope::from(scope.namespace)),
                // There is none: that is not an error here.
                Err(error) if error.is(Kind::FailedPrecondition) => None,
                Err(error) => return Err(error),
            };
            let mut filters = messages::filters(&request.into_inner().filters)?;
            if scope.is_none() {
                filters = everywhere(&filters)?;
            }
            let scope = scope.unwrap_or_default();
            let events = self.host.services(&scope).await?.events.subscribe(&filters).await?;
            Ok(sent(events, scope.namespace.to_string()))
        };
        subscribe.await.reply()
    }
}

/// Widens filters that say nothing of the namespace to all namespaces.
fn everywhere(filters: &[Filter]) -> Result<Vec<Filter>> {
    let any: Filter = "namespace".parse()?;
    if filters.is_empty() {
        return Ok(vec![any]);
    }
    Ok(filters.iter().map(|filter| if filter.names("namespace") { filter.clone() } else { filter.and(&any) }).collect())
}

/// Writes events as they come, for a subscriber in a namespace.
fn sent(events: Listing<Envelope>, namespace: String) -> BoxStream<'static, Result<types::Envelope, Status>> {
    let message = move |event: Result<Envelope>| match event {
        Ok(envelope) => Ok(payload::message(&envelope)),
        Err(error) => match Missed::of(&error) {
            Some(missed) => {
                tracing::warn!(namespace, missed = missed.0, "a subscriber reads events more slowly than they come");
                Ok(payload::missed_message(missed, &namespace))
            }
            None => Err(to_status(&error)),
        },
    };
    events.map(message).boxed()
}

/// The events of a daemon.
pub struct Remote {
    client: EventsClient<Channel>,
    scope: Scope,
}

impl Remote {
    /// Returns those at the other end of a channel, as seen from a scope's namespace.
    pub fn new(channel: Channel, scope: Scope) -> Self {
        let client = EventsClient::new(channel);
        Self {
            client: client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE),
            scope: scope.namespace.into(),
        }
    }
}

#[async_trait]
impl Publisher for Remote {
    async fn publish(&self, envelope: Envelope) -> Result<()> {
        let request = wire::ForwardRequest { envelope: Some(payload::message(&envelope)) };
        self.client.clone().forward(scope::request(&self.scope, request)?).await.answer()
    }
}

/// How long is waited for a daemon to say that the subscription stands. containerd says nothing before the first event.
const STANDS_WITHIN: Duration = Duration::from_millis(250);

#[async_trait]
impl Subscriber for Remote {
    async fn subscribe(&self, filters: &[Filter]) -> Result<Listing<Envelope>> {
        // Not every daemon looks at the header.
        let filters = messages::filter_texts(&event::within(&self.scope.namespace, filters)?);
        let request = scope::request(&self.scope, wire::SubscribeRequest { filters })?;
        let mut client = self.client.clone();
        let mut call = async move { client.subscribe(request).await.answer() }.boxed();
        let events = match tokio::time::timeout(STANDS_WITHIN, &mut call).await {
            Ok(events) => future::ready(Ok(events?)).boxed(),
            Err(_) => call,
        };
        Ok(stream::once(events).map_ok(|events| events.map(received)).try_flatten().boxed())
    }
}

fn received(event: Result<types::Envelope, Status>) -> Result<Envelope> {
    let envelope = event.map_err(|status| from_status(&status))?;
    match payload::missed(&envelope) {
        Some(missed) => Err(missed.error()),
        None => payload::understood(envelope),
    }
}
