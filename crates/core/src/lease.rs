//! Leases: they keep what is being built alive until something recorded refers to it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::filter::{Fields, Filter};
use crate::gc::{self, Deletion};
use crate::label::Labels;
use crate::text::{self, checked_text};
use crate::timestamp;

/// How long a lease lasts unless said otherwise, as containerd's clients have it.
pub const DEFAULT_EXPIRY: Duration = Duration::from_hours(24);

checked_text! {
    /// The identity of a lease: up to 1024 bytes without control characters. The stricter [`identifier`](crate::identifier)
    /// would refuse one in twenty of those that containerd's clients make up, such as `280609800-_V5k`.
    Id, "lease", text::validate
}

/// The record of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The identity.
    pub id: Id,
    /// When it was created.
    #[serde(with = "timestamp")]
    pub created_at: SystemTime,
    /// When it ends by itself; never when absent.
    #[serde(with = "timestamp::option", default)]
    pub expires_at: Option<SystemTime>,
    /// The labels.
    #[serde(default)]
    pub labels: Labels,
}

impl Fields for Lease {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.id.to_string()),
            ["labels", key @ ..] => self.labels.field(key),
            _ => None,
        }
    }
}

/// What a lease can hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// A blob, by digest.
    Content,
    /// An ingest, by ref.
    Ingest,
    /// A snapshot of the named snapshotter, by key or name.
    Snapshot(String),
    /// An image, by name.
    Image,
}

impl fmt::Display for ResourceKind {
    /// Writes containerd's name of the type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content => f.write_str("content"),
            Self::Ingest => f.write_str("ingests"),
            Self::Snapshot(snapshotter) => write!(f, "snapshots/{snapshotter}"),
            Self::Image => f.write_str("images"),
        }
    }
}

/// Something a lease holds. As text it is containerd's name of the type, a slash, and which one:
/// `content/sha256:…`, `ingests/REF`, `snapshots/overlayfs/KEY`, `images/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Which one.
    pub id: String,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

impl FromStr for Resource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once('/') {
            Some(("content", digest)) => {
                digest.parse::<Digest>().map_err(|error| error.context(format!("resource {text:?}")))?;
                Some((ResourceKind::Content, digest))
            }
            Some(("ingests", ingest)) => Some((ResourceKind::Ingest, ingest)),
            Some(("images", name)) => Some((ResourceKind::Image, name)),
            Some(("snapshots", rest)) => match rest.split_once('/') {
                Some((snapshotter, key)) if !snapshotter.is_empty() => {
                    Some((ResourceKind::Snapshot(snapshotter.to_owned()), key))
                }
                _ => None,
            },
            _ => None,
        };
        match parsed {
            Some((kind, id)) if !id.is_empty() => Ok(Self { kind, id: id.to_owned() }),
            _ => Err(Error::invalid_argument(format!("{text:?} is nothing that a lease can hold"))
                .hint("it looks like content/DIGEST, ingests/REF, snapshots/SNAPSHOTTER/KEY or images/NAME")),
        }
    }
}

/// What is said when a lease is created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The identity; a new one is made up when absent.
    pub id: Option<Id>,
    /// When it ends by itself, from now; when the label [`gc::EXPIRE`] says, or never, when absent.
    pub expiry: Option<Duration>,
    /// The labels.
    pub labels: Labels,
}

impl Options {
    /// Returns when the lease ends that is created at a time; never when absent.
    ///
    /// # Errors
    /// `InvalidArgument` when the label that says it, which containerd's clients write, has no time.
    pub fn ends(&self, created_at: SystemTime) -> Result<Option<SystemTime>> {
        if let Some(expiry) = self.expiry {
            return Ok(created_at.checked_add(expiry));
        }
        let Some(text) = self.labels.get(gc::EXPIRE) else { return Ok(None) };
        timestamp::parse(text).map(Some).ok_or_else(|| {
            Error::invalid_argument(format!("label {} of a lease is no time: {text:?}", gc::EXPIRE))
                .hint("it looks like 2026-11-20T10:00:00Z")
        })
    }
}

/// The leases of one namespace.
#[async_trait]
pub trait Manager: Send + Sync {
    /// Creates a lease.
    ///
    /// # Errors
    /// `AlreadyExists` when the identity is taken.
    async fn create(&self, options: Options) -> Result<Lease>;

    /// Deletes a lease; what it alone held becomes garbage.
    ///
    /// # Errors
    /// `NotFound`.
    async fn delete(&self, id: &Id, deletion: Deletion) -> Result<()>;

    /// Lists the leases that match any of the filters.
    async fn list(&self, filters: &[Filter]) -> Result<Vec<Lease>>;

    /// Adds something to a lease.
    async fn add_resource(&self, id: &Id, resource: &Resource) -> Result<()>;

    /// Takes something out of a lease.
    async fn delete_resource(&self, id: &Id, resource: &Resource) -> Result<()>;

    /// Lists what a lease holds.
    ///
    /// # Errors
    /// `NotFound`, also for a lease that was listed and has gone since.
    async fn resources(&self, id: &Id) -> Result<Vec<Resource>>;
}

/// Lists the leases that match any of the filters, with what they hold. Those that go meanwhile, because others end their work
/// or their time is up, are left out.
pub async fn holdings(leases: &dyn Manager, filters: &[Filter]) -> Result<Vec<(Lease, Vec<Resource>)>> {
    let mut holdings = Vec::new();
    for lease in leases.list(filters).await? {
        match leases.resources(&lease.id).await {
            Ok(resources) => holdings.push((lease, resources)),
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(holdings)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Leases `here`, `gone` and, if it is to be so, `broken`, which cannot be read.
    struct Going {
        broken: bool,
    }

    #[async_trait]
    impl Manager for Going {
        async fn list(&self, _: &[Filter]) -> Result<Vec<Lease>> {
            let names = ["here", "gone"].into_iter().chain(self.broken.then_some("broken"));
            let lease = |name: &str| Lease {
                id: name.parse().unwrap(),
                created_at: SystemTime::UNIX_EPOCH,
                expires_at: None,
                labels: Labels::new(),
            };
            Ok(names.map(lease).collect())
        }

        async fn resources(&self, id: &Id) -> Result<Vec<Resource>> {
            match id.as_str() {
                "here" => Ok(vec!["ingests/x".parse()?]),
                "gone" => Err(Error::not_found("lease gone is not here")),
                _ => Err(Error::data_loss("the records are damaged")),
            }
        }

        async fn create(&self, _: Options) -> Result<Lease> {
            Err(Error::unimplemented("nothing is created"))
        }

        async fn delete(&self, _: &Id, _: Deletion) -> Result<()> {
            Err(Error::unimplemented("nothing is deleted"))
        }

        async fn add_resource(&self, _: &Id, _: &Resource) -> Result<()> {
            Err(Error::unimplemented("nothing is added"))
        }

        async fn delete_resource(&self, _: &Id, _: &Resource) -> Result<()> {
            Err(Error::unimplemented("nothing is taken out"))
        }
    }

    #[test]
    fn a_lease_that_goes_while_it_is_listed_is_left_out_and_other_failures_are_not() {
        let listed = |broken| holdings(&Going { broken }, &[]).now_or_never().unwrap();
        let here = listed(false).unwrap();
        assert_eq!(here.iter().map(|(lease, held)| (lease.id.as_str(), held.len())).collect::<Vec<_>>(), [("here", 1)]);
        assert_eq!(listed(true).unwrap_err().kind(), Kind::DataLoss);
    }

    #[test]
    fn a_resource_is_written_as_it_is_read() {
        let digest = Digest::sha256(b"x");
        for text in [
            &format!("content/{digest}"),
            "ingests/layer-sha256:a/b",
            "images/docker.io/library/redis:7",
            "snapshots/overlayfs/a/b c",
        ] {
            assert_eq!(text.parse::<Resource>().unwrap().to_string(), *text);
        }
        let snapshot: Resource = "snapshots/overlayfs/a/b".parse().unwrap();
        assert_eq!(snapshot, Resource { kind: ResourceKind::Snapshot("overlayfs".into()), id: "a/b".into() });
    }

    #[test]
    fn what_a_lease_cannot_hold_is_refused() {
        for text in
            ["", "content", "content/", "content/sha256:abc", "snapshots/x", "snapshots//k", "blobs/x", "images/"]
        {
            let error = text.parse::<Resource>().unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{text}");
            assert!(error.to_string().contains(text) || text.is_empty(), "{error}");
        }
    }
}
