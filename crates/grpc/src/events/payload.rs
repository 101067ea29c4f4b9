//! Events as containerd's messages: the type of a payload is the plain name of its message, as containerd writes it. Those of
//! images are in the package of the images service, all others in `containerd.events`.

use prost::{Message, Name};
use windlass_core::any::Any;
use windlass_core::container::Runtime;
use windlass_core::event::{Envelope, Event, Missed};
use windlass_core::{Error, Result};
use windlass_proto::containerd::services::images::v1 as images;
use windlass_proto::containerd::{events, types};
use windlass_proto::google::rpc;

use crate::error::DOMAIN;
use crate::{time, wire};

/// The topic under which a subscriber hears that events are missing. The payload is a `google.rpc.Status`, which clients of
/// containerd know, with an `ErrorInfo` of the reason [`MISSED_REASON`] whose metadata has the number as `missed`.
pub const MISSED_TOPIC: &str = "/windlass/missed";
/// The reason in the payload of [`MISSED_TOPIC`].
pub const MISSED_REASON: &str = "events-missed";

/// Writes an envelope.
pub(super) fn message(envelope: &Envelope) -> types::Envelope {
    types::Envelope {
        timestamp: time::to_wire(envelope.timestamp),
        namespace: envelope.namespace.to_string(),
        topic: envelope.event.topic().to_owned(),
        event: Some(payload(&envelope.event)),
    }
}

/// Reads an envelope; its payload is not looked into.
///
/// # Errors
/// `InvalidArgument` without a payload or a time, or for a namespace out of the rule.
pub(super) fn untouched(wire: types::Envelope) -> Result<Envelope> {
    let payload =
        wire.event.ok_or_else(|| Error::invalid_argument(format!("event {:?} has no payload", wire.topic)))?;
    if wire.timestamp.is_none() {
        return Err(Error::invalid_argument(format!("event {:?} has no time", wire.topic)));
    }
    Ok(Envelope {
        timestamp: time::from_wire(wire.timestamp)?,
        namespace: wire.namespace.parse()?,
        event: Event::Other { topic: wire.topic, payload: wire::any(payload) },
    })
}

/// Reads an envelope to be passed on: its payload is understood, for filters, if nothing of it is lost by that.
pub(super) fn passed_on(wire: types::Envelope) -> Result<Envelope> {
    let mut envelope = untouched(wire)?;
    if let Event::Other { topic, payload } = &envelope.event
        && let Some(event) = known(topic, payload)
    {
        let again = self::payload(&event);
        // A field that the contract does not know is missing from what is written of it.
        if again.type_url == payload.type_url && again.value.len() == payload.value.len() {
            envelope.event = event;
        }
    }
    Ok(envelope)
}

/// Reads an envelope whose payload is understood if it is one of the contract's.
pub(super) fn understood(wire: types::Envelope) -> Result<Envelope> {
    let mut envelope = untouched(wire)?;
    if let Event::Other { topic, payload } = &envelope.event
        && let Some(event) = known(topic, payload)
    {
        envelope.event = event;
    }
    Ok(envelope)
}

fn encoded<M: Message + Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Reads a payload of that type; `None` for another one, and for one that is damaged.
fn decoded<M: Message + Name + Default>(payload: &Any) -> Option<M> {
    let name = payload.type_url.rsplit('/').next().unwrap_or_default();
    if name == M::full_name() { M::decode(&*payload.value).ok() } else { None }
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn payload(event: &Event) -> prost_types::Any {
    match event {
        Event::ContentCreate { .. }
        | Event::ContentDelete { .. }
        | Event::NamespaceCreate { .. }
        | Event::NamespaceUpdate { .. }
        | Event::NamespaceDelete { .. } => of_content_or_namespace(event),
        Event::ImageCreate { name, labels } => {
            encoded(&images::ImageCreate { name: name.to_string(), labels: wire::label_map(labels.clone()) })
        }
        Event::ImageUpdate { name, labels } => {
            encoded(&images::ImageUpdate { name: name.to_string(), labels: wire::label_map(labels.clone()) })
        }
        Event::ImageDelete { name } => encoded(&images::ImageDelete { name: name.to_string() }),
        Event::SnapshotPrepare { snapshotter, key, parent } => encoded(&events::SnapshotPrepare {
            key: key.to_string(),
            parent: text(parent.as_ref()),
            snapshotter: snapshotter.clone(),
        }),
        Event::SnapshotCommit { snapshotter, key, name } => encoded(&events::SnapshotCommit {
            key: key.to_string(),
            name: name.to_string(),
            snapshotter: snapshotter.clone(),
        }),
        Event::SnapshotRemove { snapshotter, key } => {
            encoded(&events::SnapshotRemove { key: key.to_string(), snapshotter: snapshotter.clone() })
        }
        Event::ContainerCreate { id, image, runtime } => encoded(&events::ContainerCreate {
            id: id.clone(),
            image: text(image.as_ref()),
            runtime: Some(events::container_create::Runtime {
                name: runtime.name.clone(),
                options: runtime.options.as_ref().map(wire::any_message),
            }),
        }),
        Event::ContainerUpdate { id, image, labels, snapshot_key } => encoded(&events::ContainerUpdate {
            id: id.clone(),
            image: text(image.as_ref()),
            labels: wire::label_map(labels.clone()),
            snapshot_key: text(snapshot_key.as_ref()),
        }),
        Event::ContainerDelete { id } => encoded(&events::ContainerDelete { id: id.clone() }),
        Event::Other { payload, .. } => wire::any_message(payload),
        // One that was added since: nobody on the wire has a message for it.
        _ => prost_types::Any::default(),
    }
}

fn of_content_or_namespace(event: &Event) -> prost_types::Any {
    match event {
        Event::ContentCreate { digest, size } => {
            encoded(&events::ContentCreate { digest: digest.to_string(), size: wire::size_number(*size) })
        }
        Event::ContentDelete { digest } => encoded(&events::ContentDelete { digest: digest.to_string() }),
        Event::NamespaceCreate { name, labels } => {
            encoded(&events::NamespaceCreate { name: name.to_string(), labels: wire::label_map(labels.clone()) })
        }
        Event::NamespaceUpdate { name, labels } => {
            encoded(&events::NamespaceUpdate { name: name.to_string(), labels: wire::label_map(labels.clone()) })
        }
        Event::NamespaceDelete { name } => encoded(&events::NamespaceDelete { name: name.to_string() }),
        _ => prost_types::Any::default(),
    }
}

/// Reads an optional text: empty is absent.
fn optional<T: std::str::FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Understands a payload, if topic, type and every value are the contract's.
fn known(topic: &str, payload: &Any) -> Option<Event> {
    Some(match topic {
        "/content/create" => {
            let event: events::ContentCreate = decoded(payload)?;
            Event::ContentCreate { digest: event.digest.parse().ok()?, size: event.size.try_into().ok()? }
        }
        "/content/delete" => {
            Event::ContentDelete { digest: decoded::<events::ContentDelete>(payload)?.digest.parse().ok()? }
        }
        "/images/create" => {
            let event: images::ImageCreate = decoded(payload)?;
            Event::ImageCreate { name: event.name.parse().ok()?, labels: wire::labels(event.labels) }
        }
        "/images/update" => {
            let event: images::ImageUpdate = decoded(payload)?;
            Event::ImageUpdate { name: event.name.parse().ok()?, labels: wire::labels(event.labels) }
        }
        "/images/delete" => Event::ImageDelete { name: decoded::<images::ImageDelete>(payload)?.name.parse().ok()? },
        "/namespaces/create" => {
            let event: events::NamespaceCreate = decoded(payload)?;
            Event::NamespaceCreate { name: event.name.parse().ok()?, labels: wire::labels(event.labels) }
        }
        "/namespaces/update" => {
            let event: events::NamespaceUpdate = decoded(payload)?;
            Event::NamespaceUpdate { name: event.name.parse().ok()?, labels: wire::labels(event.labels) }
        }
        "/namespaces/delete" => {
            Event::NamespaceDelete { name: decoded::<events::NamespaceDelete>(payload)?.name.parse().ok()? }
        }
        _ => return known_snapshot_or_container(topic, payload),
    })
}

fn known_snapshot_or_container(topic: &str, payload: &Any) -> Option<Event> {
    Some(match topic {
        "/snapshot/prepare" => {
            let event: events::SnapshotPrepare = decoded(payload)?;
            let (key, parent) = (event.key.parse().ok()?, optional(&event.parent).ok()?);
            Event::SnapshotPrepare { snapshotter: event.snapshotter, key, parent }
        }
        "/snapshot/commit" => {
            let event: events::SnapshotCommit = decoded(payload)?;
            let (key, name) = (event.key.parse().ok()?, event.name.parse().ok()?);
            Event::SnapshotCommit { snapshotter: event.snapshotter, key, name }
        }
        "/snapshot/remove" => {
            let event: events::SnapshotRemove = decoded(payload)?;
            Event::SnapshotRemove { snapshotter: event.snapshotter, key: event.key.parse().ok()? }
        }
        "/containers/create" => {
            let event: events::ContainerCreate = decoded(payload)?;
            let runtime = event.runtime.unwrap_or_default();
            let runtime = Runtime { name: runtime.name, options: runtime.options.map(wire::any) };
            Event::ContainerCreate { id: event.id, image: optional(&event.image).ok()?, runtime }
        }
        "/containers/update" => {
            let event: events::ContainerUpdate = decoded(payload)?;
            Event::ContainerUpdate {
                id: event.id,
                image: optional(&event.image).ok()?,
                labels: wire::labels(event.labels),
                snapshot_key: optional(&event.snapshot_key).ok()?,
            }
        }
        "/containers/delete" => Event::ContainerDelete { id: decoded::<events::ContainerDelete>(payload)?.id },
        _ => return None,
    })
}

/// Writes for a subscriber in a namespace how many events it missed.
pub(super) fn missed_message(missed: Missed, namespace: &str) -> types::Envelope {
    let info = rpc::ErrorInfo {
        reason: MISSED_REASON.to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: [("missed".to_owned(), missed.0.to_string())].into(),
    };
    let status = rpc::Status {
        code: tonic::Code::ResourceExhausted as i32,
        message: missed.error().to_string(),
        details: vec![encoded(&info)],
    };
    types::Envelope {
        timestamp: time::to_wire(std::time::SystemTime::now()),
        namespace: namespace.to_owned(),
        topic: MISSED_TOPIC.to_owned(),
        event: Some(encoded(&status)),
    }
}

/// Reads how many events were missed, if that is what an envelope tells.
pub(super) fn missed(wire: &types::Envelope) -> Option<Missed> {
    let payload = wire.event.as_ref().filter(|_| wire.topic == MISSED_TOPIC)?;
    let status: rpc::Status = decoded(&wire::any(payload.clone()))?;
    let mut infos = status.details.into_iter().filter_map(|detail| decoded::<rpc::ErrorInfo>(&wire::any(detail)));
    let info = infos.find(|info| info.domain == DOMAIN && info.reason == MISSED_REASON)?;
    info.metadata.get("missed")?.parse().ok().map(Missed)
}

#[cfg(test)]
mod tests {
    use windlass_core::{Kind, Labels, Namespace};

    use super::*;

    #[test]
    fn types_are_the_plain_names_of_messages_and_others_with_a_host_are_understood() {
        let event = Event::ImageCreate { name: "redis".parse().unwrap(), labels: Labels::new().with("a", "1") };
        let envelope = Envelope::now(Namespace::default(), event);
        let mut wire = message(&envelope);
        assert_eq!(wire.event.as_ref().unwrap().type_url, "containerd.services.images.v1.ImageCreate");
        wire.event.as_mut().unwrap().type_url =
            "type.googleapis.com/containerd.services.images.v1.ImageCreate".to_owned();
        assert_eq!(understood(wire).unwrap(), envelope);
    }

    #[test]
    fn what_is_passed_on_loses_nothing() {
        let event = Event::ImageCreate { name: "redis".parse().unwrap(), labels: Labels::new().with("a", "1") };
        let envelope = Envelope::now(Namespace::default(), event);
        let wire = message(&envelope);
        assert_eq!(passed_on(wire.clone()).unwrap(), envelope);
        let mut newer = wire;
        // A field that nobody here knows: number 15, a text of one byte.
        newer.event.as_mut().unwrap().value.extend([15 << 3 | 2, 1, b'x']);
        let sent = newer.event.clone();
        assert_eq!(message(&passed_on(newer).unwrap()).event, sent);
    }

    #[test]
    fn what_cannot_be_understood_is_passed_on_and_what_is_not_whole_refused() {
        let wire = types::Envelope {
            timestamp: time::to_wire(std::time::SystemTime::now()),
            namespace: "default".into(),
            topic: "/content/create".into(),
            event: Some(prost_types::Any { type_url: "containerd.events.ContentCreate".into(), value: vec![0xff; 9] }),
        };
        assert!(matches!(understood(wire.clone()).unwrap().event, Event::Other { .. }));
        for broken in [
            types::Envelope { event: None, ..wire.clone() },
            types::Envelope { timestamp: None, ..wire.clone() },
            types::Envelope { namespace: "a b".into(), ..wire },
        ] {
            assert_eq!(untouched(broken).unwrap_err().kind(), Kind::InvalidArgument);
        }
    }

    #[test]
    fn what_was_missed_is_told_and_read() {
        let wire = missed_message(Missed(12), "default");
        assert_eq!(missed(&wire), Some(Missed(12)));
        assert_eq!(wire.event.as_ref().unwrap().type_url, "google.rpc.Status");
        assert_eq!(missed(&types::Envelope { topic: "/other".into(), ..wire }), None);
    }
}
