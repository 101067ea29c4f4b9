//! Events: what happened to which object, for whoever subscribes. Topics are containerd's.
//!
//! An [`Exchange`] hands every event to all who subscribe. It never waits for one of them: whoever is slow loses events, is
//! told how many ([`Missed`]), and goes on.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::any::Any;
use crate::container::Runtime;
use crate::digest::Digest;
use crate::error::{Error, Result, ResultExt as _};
use crate::filter::{Fields, Filter};
use crate::label::Labels;
use crate::namespace::Namespace;
use crate::{Listing, identifier, image, snapshot};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A blob was committed.
    ContentCreate {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A blob's record was deleted.
    ContentDelete {
        /// The blob.
        digest: Digest,
    },
    /// An image was recorded.
    ImageCreate {
        /// The image.
        name: image::Name,
        /// Its labels.
        labels: Labels,
    },
    /// An image's record changed.
    ImageUpdate {
        /// The image.
        name: image::Name,
        /// Its labels.
        labels: Labels,
    },
    /// An image's record was deleted.
    ImageDelete {
        /// The image.
        name: image::Name,
    },
    /// A namespace was created.
    NamespaceCreate {
        /// The namespace.
        name: Namespace,
        /// Its labels.
        labels: Labels,
    },
    /// A namespace's labels changed.
    NamespaceUpdate {
        /// The namespace.
        name: Namespace,
        /// Its labels.
        labels: Labels,
    },
    /// A namespace was deleted.
    NamespaceDelete {
        /// The namespace.
        name: Namespace,
    },
    /// A snapshot was begun.
    SnapshotPrepare {
        /// The snapshotter.
        snapshotter: String,
        /// The snapshot.
        key: snapshot::Key,
        /// What it stands on.
        parent: Option<snapshot::Name>,
    },
    /// A snapshot was committed.
    SnapshotCommit {
        /// The snapshotter.
        snapshotter: String,
        /// What it was.
        key: snapshot::Key,
        /// What it is now.
        name: snapshot::Name,
    },
    /// A snapshot was removed.
    SnapshotRemove {
        /// The snapshotter.
        snapshotter: String,
        /// The snapshot.
        key: snapshot::Key,
    },
    /// The record of a container was created.
    ContainerCreate {
        /// The container.
        id: String,
        /// The image it was made of.
        image: Option<image::Name>,
        /// What is to run it.
        runtime: Runtime,
    },
    /// The record of a container changed.
    ContainerUpdate {
        /// The container.
        id: String,
        /// The image it was made of.
        image: Option<image::Name>,
        /// Its labels.
        labels: Labels,
        /// The snapshot that is its root filesystem.
        snapshot_key: Option<snapshot::Key>,
    },
    /// The record of a container was deleted.
    ContainerDelete {
        /// The container.
        id: String,
    },
    /// Something else, from a client or a shim.
    Other {
        /// The topic.
        topic: String,
        /// The payload.
        payload: Any,
    },
}

impl Event {
    /// Returns the topic that the event is published under.
    pub fn topic(&self) -> &str {
        match self {
            Self::ContentCreate { .. } => "/content/create",
            Self::ContentDelete { .. } => "/content/delete",
            Self::ImageCreate { .. } => "/images/create",
            Self::ImageUpdate { .. } => "/images/update",
            Self::ImageDelete { .. } => "/images/delete",
            Self::NamespaceCreate { .. } => "/namespaces/create",
            Self::NamespaceUpdate { .. } => "/namespaces/update",
            Self::NamespaceDelete { .. } => "/namespaces/delete",
            Self::SnapshotPrepare { .. } => "/snapshot/prepare",
            Self::SnapshotCommit { .. } => "/snapshot/commit",
            Self::SnapshotRemove { .. } => "/snapshot/remove",
            Self::ContainerCreate { .. } => "/containers/create",
            Self::ContainerUpdate { .. } => "/containers/update",
            Self::ContainerDelete { .. } => "/containers/delete",
            Self::Other { topic, .. } => topic,
        }
    }
}

impl Fields for Event {
    /// The fields of containerd's messages; of [`Event::Other`] none is known.
    fn field(&self, path: &[&str]) -> Option<String> {
        let value = match (self, path) {
            (
                Self::ImageCreate { labels, .. }
                | Self::ImageUpdate { labels, .. }
                | Self::NamespaceCreate { labels, .. }
                | Self::NamespaceUpdate { labels, .. }
                | Self::ContainerUpdate { labels, .. },
                ["labels", key @ ..],
            ) => return labels.field(key),
            (Self::ContentCreate { digest, .. } | Self::ContentDelete { digest }, ["digest"]) => digest.to_string(),
            (Self::ContentCreate { size, .. }, ["size"]) => size.to_string(),
            (
                Self::ImageCreate { name, .. } | Self::ImageUpdate { name, .. } | Self::ImageDelete { name },
                ["name"],
            ) => name.to_string(),
            (
                Self::NamespaceCreate { name, .. }
                | Self::NamespaceUpdate { name, .. }
                | Self::NamespaceDelete { name },
                ["name"],
            ) => name.to_string(),
            (
                Self::SnapshotPrepare { key, .. } | Self::SnapshotCommit { key, .. } | Self::SnapshotRemove { key, .. },
                ["key"],
            ) => key.to_string(),
            (Self::SnapshotPrepare { parent, .. }, ["parent"]) => parent.as_ref()?.to_string(),
            (Self::SnapshotCommit { name, .. }, ["name"]) => name.to_string(),
            (
                Self::SnapshotPrepare { snapshotter, .. }
                | Self::SnapshotCommit { snapshotter, .. }
                | Self::SnapshotRemove { snapshotter, .. },
                ["snapshotter"],
            ) => snapshotter.clone(),
            (
                Self::ContainerCreate { id, .. } | Self::ContainerUpdate { id, .. } | Self::ContainerDelete { id },
                ["id"],
            ) => id.clone(),
            (Self::ContainerCreate { image, .. } | Self::ContainerUpdate { image, .. }, ["image"]) => {
                image.as_ref()?.to_string()
            }
            (Self::ContainerCreate { runtime, .. }, ["runtime", "name"]) => runtime.name.clone(),
            (Self::ContainerUpdate { snapshot_key, .. }, ["snapshot_key"]) => snapshot_key.as_ref()?.to_string(),
            _ => return None,
        };
        Some(value)
    }
}

/// Checks a topic: names joined by slashes, with one in front; [`identifier`] has the rule of a name.
///
/// # Errors
/// `InvalidArgument` that names the topic.
pub fn validate_topic(topic: &str) -> Result<()> {
    let Some(names) = topic.strip_prefix('/') else {
        return Err(Error::invalid_argument(format!("topic {topic:?} does not begin with a slash"))
            .hint("a topic looks like /images/create"));
    };
    names.split('/').try_for_each(|name| identifier::validate("a part", name)).context(|| format!("topic {topic:?}"))
}

/// An event with when and where it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// When.
    pub timestamp: SystemTime,
    /// In which namespace.
    pub namespace: Namespace,
    /// What.
    pub event: Event,
}

impl Envelope {
    /// Puts an event that happens now in an envelope.
    pub fn now(namespace: Namespace, event: Event) -> Self {
        Self { timestamp: SystemTime::now(), namespace, event }
    }
}

impl Fields for Envelope {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["namespace"] => Some(self.namespace.to_string()),
            ["topic"] => Some(self.event.topic().to_owned()),
            ["event", field @ ..] => self.event.field(field),
            _ => None,
        }
    }
}

/// How many events a subscriber missed, between the one before and the next one. It travels as the source of an error in
/// the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed(pub u64);

impl Missed {
    /// Makes the error that tells a subscriber.
    pub fn error(self) -> Error {
        Error::resource_exhausted("this subscriber is slower than the events come").source(self)
    }

    /// Reads it out of an error of a stream of events; `None` for any other error, after which no event comes.
    pub fn of(error: &Error) -> Option<Self> {
        error.cause().copied()
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events were missed", self.0)
    }
}

impl std::error::Error for Missed {}

/// Narrows filters to a namespace: those that say nothing of `namespace` see that one only. Without a filter there is one
/// then.
pub fn within(namespace: &Namespace, filters: &[Filter]) -> Result<Vec<Filter>> {
    let own: Filter = format!("namespace=={namespace}").parse()?;
    if filters.is_empty() {
        return Ok(vec![own]);
    }
    Ok(filters.iter().map(|filter| if filter.names("namespace") { filter.clone() } else { filter.and(&own) }).collect())
}

/// Takes events.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Publishes an event to whoever subscribes now, and waits for none of them.
    ///
    /// # Errors
    /// `InvalidArgument` for a topic out of the rule ([`validate_topic`]).
    async fn publish(&self, envelope: Envelope) -> Result<()>;
}

/// Gives events.
#[async_trait]
pub trait Subscriber: Send + Sync {
    /// Returns the events from now on that match any of the filters, in the order in which they were published.
    ///
    /// A filter can look at `namespace`, `topic`, and the fields of containerd's messages as `event.name`. One that says
    /// nothing of the namespace sees the one that the services are bound to ([`within`]).
    ///
    /// A subscriber that is too slow gets an error with [`Missed`] where events are missing, and the stream goes on. After
    /// any other error it ends.
    async fn subscribe(&self, filters: &[Filter]) -> Result<Listing<Envelope>>;
}

/// Hands every event to all who subscribe.
pub trait Exchange: Publisher + Subscriber {}

impl<E: Publisher + Subscriber + ?Sized> Exchange for E {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_names_behind_slashes() {
        for good in ["/images/create", "/a", "/tasks/exec-added", "/windlass/missed"] {
            assert!(validate_topic(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "images/create", "/images/", "//x", "/a b", "/a/../b"] {
            assert_eq!(validate_topic(bad).unwrap_err().kind(), crate::Kind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn filters_that_say_nothing_of_the_namespace_see_their_own() {
        let own: Namespace = "mine".parse().unwrap();
        let filters = Filter::parse_all(["topic==/images/create", "namespace==other", "topic~=^/a,namespace"]).unwrap();
        let narrowed: Vec<String> = within(&own, &filters).unwrap().iter().map(ToString::to_string).collect();
        let expected = ["topic==/images/create,namespace==mine", "namespace==other", "topic~=^/a,namespace"];
        assert_eq!(narrowed, expected);
        assert_eq!(within(&own, &[]).unwrap()[0].to_string(), "namespace==mine");
        assert_eq!(within(&own, &["".parse().unwrap()]).unwrap()[0].to_string(), "namespace==mine");
    }

    #[test]
    fn a_filter_sees_the_fields_of_an_event() {
        let event = Event::ImageCreate { name: "redis".parse().unwrap(), labels: Labels::new().with("a.b", "1") };
        let envelope = Envelope::now(Namespace::default(), event);
        for text in ["event.name==redis", "event.labels.a.b==1", "topic==/images/create", "namespace==default"] {
            assert!(text.parse::<Filter>().unwrap().matches(&envelope), "{text}");
        }
        assert!(!"event.key".parse::<Filter>().unwrap().matches(&envelope));
    }

    #[test]
    fn what_was_missed_is_read_out_of_the_error() {
        assert_eq!(Missed::of(&Missed(3).error().context("wait")), Some(Missed(3)));
        assert_eq!(Missed::of(&Error::unavailable("gone")), None);
    }
}
