//! Leases: they keep what is being built alive until something recorded refers to it.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::filter::{Fields, Filter};
use crate::gc::Deletion;
use crate::label::Labels;
use crate::text::checked_text;
use crate::{identifier, timestamp};

/// How long a lease lasts unless said otherwise, as containerd's clients have it.
pub const DEFAULT_EXPIRY: Duration = Duration::from_hours(24);

checked_text! {
    /// The identity of a lease; [`identifier`] has the rule.
    Id, "lease", identifier::validate
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

/// Something a lease holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Which one.
    pub id: String,
}

/// What is said when a lease is created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The identity; a new one is made up when absent.
    pub id: Option<Id>,
    /// When it ends by itself, from now; never when absent.
    pub expiry: Option<Duration>,
    /// The labels.
    pub labels: Labels,
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
    async fn resources(&self, id: &Id) -> Result<Vec<Resource>>;
}
