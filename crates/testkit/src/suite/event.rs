//! The suite of [`event::Exchange`](windlass_core::event::Exchange), seen from the namespace `default`.

use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use windlass_core::any::Any;
use windlass_core::container::Runtime;
use windlass_core::event::{Envelope, Event, Exchange};
use windlass_core::{Digest, Kind, Labels, Listing, Namespace};

use super::{assert_kind, filters, parse};

/// Expands to the tests of an exchange; see [`suite`](crate::suite).
#[macro_export]
macro_rules! event_suite {
    ($name:ident, $make:expr $(,)?) => {
        mod $name {
            use super::*;
            $crate::suite_cases!(event, dyn $crate::contract::event::Exchange, $make, [
                a_subscriber_gets_what_is_published_from_then_on_in_order
                every_subscriber_gets_every_event
                an_envelope_arrives_as_it_was_published
                a_subscriber_sees_its_own_namespace
                a_filter_that_names_the_namespace_sees_others
                any_of_the_filters_is_enough
                an_event_that_nobody_waits_for_is_no_error
                a_topic_out_of_the_rule_is_refused
            ]);
        }
    };
}

fn other(topic: &str) -> Event {
    Event::Other { topic: topic.to_owned(), payload: Any::new("type.example/Test", topic.to_owned()) }
}

async fn publish(exchange: &dyn Exchange, namespace: &str, event: Event) {
    exchange.publish(Envelope::now(parse::<Namespace>(namespace), event)).await.unwrap();
}

/// Returns the topics of the next events.
async fn topics(events: &mut Listing<Envelope>, count: usize) -> Vec<String> {
    let next = events.take(count).map(|event| event.unwrap().event.topic().to_owned());
    next.collect().await
}

pub async fn a_subscriber_gets_what_is_published_from_then_on_in_order(exchange: &dyn Exchange) {
    publish(exchange, "default", other("/before")).await;
    let mut events = exchange.subscribe(&[]).await.unwrap();
    let published: Vec<String> = (0..100).map(|number| format!("/event/{number}")).collect();
    for topic in &published {
        publish(exchange, "default", other(topic)).await;
    }
    assert_eq!(topics(&mut events, 100).await, published);
}

pub async fn every_subscriber_gets_every_event(exchange: &dyn Exchange) {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(exchange.subscribe(&[]).await.unwrap());
    }
    drop(all.pop());
    publish(exchange, "default", other("/event")).await;
    for events in &mut all {
        assert_eq!(topics(events, 1).await, ["/event"]);
    }
}

pub async fn an_envelope_arrives_as_it_was_published(exchange: &dyn Exchange) {
    let mut events = exchange.subscribe(&[]).await.unwrap();
    let labels = || Labels::new().with("a.b/c", "1").with("d", "");
    let digest = Digest::sha256(b"x");
    let snapshotter = || "overlayfs".to_owned();
    let runtime = Runtime { name: "io.containerd.runc.v2".into(), options: Some(Any::new("t", vec![0, 255])) };
    for event in [
        Event::ContentCreate { digest: digest.clone(), size: 1 << 40 },
        Event::ContentDelete { digest },
        Event::ImageCreate { name: parse("docker.io/library/redis:7"), labels: labels() },
        Event::ImageUpdate { name: parse("redis"), labels: Labels::new() },
        Event::ImageDelete { name: parse("redis") },
        Event::NamespaceCreate { name: parse("k8s.io"), labels: labels() },
        Event::NamespaceUpdate { name: parse("k8s.io"), labels: labels() },
        Event::NamespaceDelete { name: parse("k8s.io") },
        Event::SnapshotPrepare { snapshotter: snapshotter(), key: parse("k"), parent: None },
        Event::SnapshotPrepare { snapshotter: snapshotter(), key: parse("k"), parent: Some(parse("p")) },
        Event::SnapshotCommit { snapshotter: snapshotter(), key: parse("k"), name: parse("n") },
        Event::SnapshotRemove { snapshotter: snapshotter(), key: parse("k") },
        Event::ContainerCreate { id: "c".into(), image: Some(parse("redis")), runtime },
        Event::ContainerCreate { id: "c".into(), image: None, runtime: Runtime::default() },
        Event::ContainerUpdate { id: "c".into(), image: None, labels: labels(), snapshot_key: Some(parse("k")) },
        Event::ContainerDelete { id: "c".into() },
        other("/tasks/exit"),
        // A topic of ours with another payload is still somebody's event.
        Event::Other { topic: "/images/create".into(), payload: Any::new("other.Type", vec![1, 2, 3]) },
    ] {
        let timestamp = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let envelope = Envelope { timestamp, namespace: Namespace::default(), event };
        exchange.publish(envelope.clone()).await.unwrap();
        assert_eq!(events.next().await.unwrap().unwrap(), envelope);
    }
}

pub async fn a_subscriber_sees_its_own_namespace(exchange: &dyn Exchange) {
    let mut all = exchange.subscribe(&[]).await.unwrap();
    let mut some = exchange.subscribe(&filters(["topic~=^/t"])).await.unwrap();
    publish(exchange, "other", other("/theirs")).await;
    publish(exchange, "default", other("/this")).await;
    for events in [&mut all, &mut some] {
        assert_eq!(topics(events, 1).await, ["/this"]);
    }
}

pub async fn a_filter_that_names_the_namespace_sees_others(exchange: &dyn Exchange) {
    let mut others = exchange.subscribe(&filters(["namespace==other"])).await.unwrap();
    let mut all = exchange.subscribe(&filters(["namespace"])).await.unwrap();
    publish(exchange, "default", other("/mine")).await;
    publish(exchange, "other", other("/theirs")).await;
    assert_eq!(topics(&mut others, 1).await, ["/theirs"]);
    assert_eq!(topics(&mut all, 2).await, ["/mine", "/theirs"]);
}

pub async fn any_of_the_filters_is_enough(exchange: &dyn Exchange) {
    let wanted = filters(["topic==/images/create,event.name==redis", "topic==/last"]);
    let mut events = exchange.subscribe(&wanted).await.unwrap();
    for name in ["nginx", "redis"] {
        publish(exchange, "default", Event::ImageCreate { name: parse(name), labels: Labels::new() }).await;
    }
    publish(exchange, "default", other("/unwanted")).await;
    publish(exchange, "default", other("/last")).await;
    assert_eq!(topics(&mut events, 2).await, ["/images/create", "/last"]);
}

pub async fn an_event_that_nobody_waits_for_is_no_error(exchange: &dyn Exchange) {
    drop(exchange.subscribe(&[]).await.unwrap());
    publish(exchange, "default", other("/event")).await;
}

pub async fn a_topic_out_of_the_rule_is_refused(exchange: &dyn Exchange) {
    for topic in ["", "/", "event", "/a//b", "/a b"] {
        let published = exchange.publish(Envelope::now(Namespace::default(), other(topic))).await;
        assert_kind(published, Kind::InvalidArgument, topic);
    }
}
