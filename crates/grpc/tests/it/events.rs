//! Events as a client sees them that nobody here wrote.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use tempfile::TempDir;
use tonic::{Code, Request, Streaming};
use windlass_core::any::Any;
use windlass_core::event::{Envelope, Event, Missed, Publisher, Subscriber};
use windlass_core::filter::Filter;
use windlass_core::{Host, Labels, Listing, Namespace, Result, Scope, Services};
use windlass_grpc::Client;
use windlass_grpc::events::MISSED_TOPIC;
use windlass_grpc::scope::NAMESPACE_HEADER;
use windlass_proto::containerd::services::events::v1::events_client::EventsClient;
use windlass_proto::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use windlass_proto::containerd::types;
use windlass_proto::prost_types;

use crate::{in_memory, served};

fn within<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !namespace.is_empty() {
        request.metadata_mut().insert(NAMESPACE_HEADER, namespace.parse().unwrap());
    }
    request
}

fn publish(topic: &str) -> PublishRequest {
    let event = prost_types::Any { type_url: "some.Type".to_owned(), value: vec![1, 2, 255] };
    PublishRequest { topic: topic.to_owned(), event: Some(event) }
}

async fn next(events: &mut Streaming<types::Envelope>) -> (String, String) {
    let envelope = events.next().await.unwrap().unwrap();
    (envelope.namespace, envelope.topic)
}

#[tokio::test]
async fn a_call_without_a_namespace_sees_all_of_them_and_one_with_a_namespace_its_own() {
    let root = TempDir::new().unwrap();
    let mut client = EventsClient::new(served(&in_memory(root.path()), root.path()).await);
    let subscribe = |filters: &[&str]| SubscribeRequest { filters: filters.iter().map(ToString::to_string).collect() };
    let mut all = client.subscribe(within("", subscribe(&[]))).await.unwrap().into_inner();
    let mut some = client.subscribe(within("", subscribe(&["topic==/b"]))).await.unwrap().into_inner();
    let mut own = client.subscribe(within("two", subscribe(&[]))).await.unwrap().into_inner();
    let mut asked = client.subscribe(within("two", subscribe(&["namespace==one"]))).await.unwrap().into_inner();
    client.publish(within("one", publish("/a"))).await.unwrap();
    client.publish(within("two", publish("/b"))).await.unwrap();
    let (one, two) = (("one".to_owned(), "/a".to_owned()), ("two".to_owned(), "/b".to_owned()));
    assert_eq!((next(&mut all).await, next(&mut all).await), (one.clone(), two.clone()));
    assert_eq!((next(&mut some).await, next(&mut own).await, next(&mut asked).await), (two.clone(), two, one));
}

#[tokio::test]
async fn a_payload_passes_untouched_and_types_are_plain_names() {
    let root = TempDir::new().unwrap();
    let host = in_memory(root.path());
    let mut client = EventsClient::new(served(&host, root.path()).await);
    let mut events = client.subscribe(within("default", SubscribeRequest::default())).await.unwrap().into_inner();
    client.publish(within("default", publish("/mine"))).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().event, publish("").event);
    let exchange = host.services(&Scope::default()).await.unwrap().events;
    let event = Event::NamespaceCreate { name: "x".parse().unwrap(), labels: Labels::new() };
    exchange.publish(Envelope::now(Namespace::default(), event)).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().event.unwrap().type_url, "containerd.events.NamespaceCreate");
}

#[tokio::test]
async fn what_is_not_whole_is_refused() {
    let root = TempDir::new().unwrap();
    let mut client = EventsClient::new(served(&in_memory(root.path()), root.path()).await);
    let code = async |namespace: &str, request: PublishRequest| {
        client.clone().publish(within(namespace, request)).await.unwrap_err().code()
    };
    assert_eq!(code("", publish("/a")).await, Code::FailedPrecondition);
    assert_eq!(code("default", publish("a")).await, Code::InvalidArgument);
    assert_eq!(code("default", PublishRequest { event: None, ..publish("/a") }).await, Code::InvalidArgument);
    let forward = client.forward(ForwardRequest { envelope: None }).await;
    assert_eq!(forward.unwrap_err().code(), Code::InvalidArgument);
    let wrong = SubscribeRequest { filters: vec!["topic==".to_owned()] };
    assert_eq!(client.subscribe(within("default", wrong)).await.unwrap_err().code(), Code::InvalidArgument);
}

/// A host whose subscribers have always missed something.
struct Slow(Arc<dyn Host>);

struct SlowEvents;

fn event(topic: &str) -> Envelope {
    let payload = Any::new("type.example/Test", topic.to_owned());
    let timestamp = std::time::SystemTime::UNIX_EPOCH;
    Envelope { timestamp, namespace: Namespace::default(), event: Event::Other { topic: topic.to_owned(), payload } }
}

#[async_trait]
impl Host for Slow {
    async fn services(&self, scope: &Scope) -> Result<Services> {
        Ok(Services { events: Arc::new(SlowEvents), ..self.0.services(scope).await? })
    }
}

#[async_trait]
impl Publisher for SlowEvents {
    async fn publish(&self, _: Envelope) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Subscriber for SlowEvents {
    async fn subscribe(&self, _: &[Filter]) -> Result<Listing<Envelope>> {
        let events = [Ok(event("/first")), Err(Missed(7).error()), Ok(event("/last"))];
        Ok(futures::stream::iter(events).boxed())
    }
}

#[tokio::test]
async fn a_slow_subscriber_hears_how_much_it_missed_and_goes_on() {
    let root = TempDir::new().unwrap();
    let host: Arc<dyn Host> = Arc::new(Slow(in_memory(root.path())));
    let channel = served(&host, root.path()).await;
    let request = within("default", SubscribeRequest { filters: vec!["topic==/first".to_owned()] });
    let events = EventsClient::new(channel.clone()).subscribe(request).await.unwrap().into_inner();
    let topics: Vec<String> = events.map(|event| event.unwrap().topic).collect().await;
    assert_eq!(topics, ["/first", MISSED_TOPIC, "/last"]);

    let services = Client::new(channel).services(&Scope::default()).await.unwrap();
    let mut events = services.events.subscribe(&[]).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), event("/first"));
    assert_eq!(Missed::of(&events.next().await.unwrap().unwrap_err()), Some(Missed(7)));
    assert_eq!(events.next().await.unwrap().unwrap(), event("/last"));
    assert!(events.next().await.is_none());
}
