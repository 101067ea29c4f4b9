//! `dist events`: what happens on a daemon, as it happens.

use std::fmt::Write as _;
use std::time::SystemTime;

use futures::StreamExt as _;
use serde::Serialize;
use serde_json::{Map, Value, json};
use windlass_core::event::{Envelope, Event, Missed};
use windlass_core::filter::Filter;
use windlass_core::{Error, Host as _, Namespace, timestamp};

use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{line, printable};

/// Print what happens on a daemon, a line each, until the command is stopped.
///
/// Those of the namespace are printed; a filter that names `namespace` sees others. A line is the time, the namespace, the
/// topic and the payload, as `ctr events` has it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist events
  dist events 'topic~=^/images/'               those of images
  dist events namespace                        of every namespace
  dist --format json events | jq .topic")]
pub(crate) struct Args {
    /// Filters, any of which must match: topic==x, namespace==x, event.name~=re.
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
}

/// An event in JSON.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(with = "timestamp")]
    timestamp: SystemTime,
    namespace: &'a Namespace,
    topic: &'a str,
    event: Value,
}

/// Prints events until there are none any more.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let client = context.client().await?;
    let services = client.services(&context.globals.namespace.clone().into()).await?;
    let mut events = services.events.subscribe(&args.filters).await?;
    while let Some(event) = events.next().await {
        match event {
            Ok(envelope) => show(context, &envelope)?,
            Err(error) => match Missed::of(&error) {
                Some(Missed(missed)) => tracing::warn!(missed, "events came faster than they were read"),
                None => return Err(error.into()),
            },
        }
    }
    Err(Error::unavailable("the daemon sends no more events").into())
}

fn show(context: &Context, envelope: &Envelope) -> Outcome {
    let Envelope { timestamp, namespace, event } = envelope;
    let (topic, payload) = (event.topic(), payload(event));
    if context.output().is_json() {
        let row = Row { timestamp: *timestamp, namespace, topic, event: payload };
        let text = serde_json::to_string(&row).map_err(|error| Error::internal("encode JSON").source(error))?;
        return line(&text);
    }
    line(&printable(&format!("{} {namespace} {topic} {payload}", time(*timestamp))))
}

/// Writes a time as `ctr` does.
fn time(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_nanos(at).to_string().replace('T', " ");
    let text = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{text} +0000 UTC")
}

/// Writes a payload with the names of containerd's fields; what is empty is left out.
fn payload(event: &Event) -> Value {
    let value = match event {
        Event::ContentCreate { digest, size } => json!({ "digest": digest, "size": size }),
        Event::ContentDelete { digest } => json!({ "digest": digest }),
        Event::ImageCreate { name, labels } | Event::ImageUpdate { name, labels } => {
            json!({ "name": name, "labels": labels })
        }
        Event::ImageDelete { name } => json!({ "name": name }),
        Event::NamespaceCreate { name, labels } | Event::NamespaceUpdate { name, labels } => {
            json!({ "name": name, "labels": labels })
        }
        Event::NamespaceDelete { name } => json!({ "name": name }),
        Event::SnapshotPrepare { snapshotter, key, parent } => {
            json!({ "key": key, "parent": parent, "snapshotter": snapshotter })
        }
        Event::SnapshotCommit { snapshotter, key, name } => {
            json!({ "key": key, "name": name, "snapshotter": snapshotter })
        }
        Event::SnapshotRemove { snapshotter, key } => json!({ "key": key, "snapshotter": snapshotter }),
        Event::ContainerCreate { id, image, runtime } => {
            json!({ "id": id, "image": image, "runtime": { "name": runtime.name } })
        }
        Event::ContainerUpdate { id, image, labels, snapshot_key } => {
            json!({ "id": id, "image": image, "labels": labels, "snapshot_key": snapshot_key })
        }
        Event::ContainerDelete { id } => json!({ "id": id }),
        Event::Other { payload, .. } => json!({ "type_url": payload.type_url, "hex": hex(&payload.value) }),
        _ => Value::Null,
    };
    match value {
        Value::Object(fields) => Value::Object(fields.into_iter().filter(|(_, value)| !is_empty(value)).collect()),
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_str().is_some_and(str::is_empty)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windlass_core::Labels;

    use super::*;

    #[test]
    fn times_are_written_as_ctr_does() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_120);
        assert_eq!(time(at), "2020-09-13 12:26:40.12 +0000 UTC");
        assert_eq!(time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)), "2020-09-13 12:26:40 +0000 UTC");
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let event = Event::ImageCreate { name: "redis".parse().unwrap(), labels: Labels::new() };
        assert_eq!(payload(&event).to_string(), r#"{"name":"redis"}"#);
        let event = Event::ImageCreate { name: "redis".parse().unwrap(), labels: Labels::new().with("a", "1") };
        assert_eq!(payload(&event)["labels"]["a"], "1");
    }
}
