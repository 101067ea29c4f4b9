//! Containers, as metadata: what a container is made of and refers to, and nothing of its running state.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::any::Any;
use crate::error::Result;
use crate::field::FieldMask;
use crate::filter::{Fields, Filter};
use crate::image;
use crate::label::Labels;
use crate::snapshot::Key;
use crate::{Listing, timestamp};

/// The record of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The identity.
    pub id: String,
    /// The labels.
    #[serde(default)]
    pub labels: Labels,
    /// The image it was made of.
    pub image: Option<image::Name>,
    /// The runtime that runs it.
    pub runtime: Runtime,
    /// The specification for the runtime.
    pub spec: Option<Any>,
    /// The snapshotter that has its root filesystem.
    pub snapshotter: Option<String>,
    /// The snapshot that is its root filesystem.
    pub snapshot_key: Option<Key>,
    /// The sandbox it belongs to.
    pub sandbox_id: Option<String>,
    /// Whatever clients want to keep with it.
    #[serde(default)]
    pub extensions: BTreeMap<String, Any>,
    /// When it was created; the store sets it.
    #[serde(with = "timestamp")]
    pub created_at: SystemTime,
    /// When the record changed last; the store sets it.
    #[serde(with = "timestamp")]
    pub updated_at: SystemTime,
}

/// The runtime of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The name, such as `io.containerd.runc.v2`.
    pub name: String,
    /// Options of the runtime.
    pub options: Option<Any>,
}

impl Fields for Container {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.id.clone()),
            ["runtime", "name"] => Some(self.runtime.name.clone()),
            ["image"] => self.image.as_ref().map(ToString::to_string),
            ["labels", key @ ..] => self.labels.field(key),
            _ => None,
        }
    }
}

/// The records of containers, as seen from one namespace.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns a container.
    async fn get(&self, id: &str) -> Result<Container>;

    /// Lists the containers that match any of the filters.
    fn list(&self, filters: &[Filter]) -> Listing<Container>;

    /// Creates a record.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for an identity out of the rule.
    async fn create(&self, container: &Container) -> Result<Container>;

    /// Changes a record: everything that can be changed with an empty mask, otherwise the fields named.
    async fn update(&self, container: &Container, mask: &FieldMask) -> Result<Container>;

    /// Deletes a record.
    async fn delete(&self, id: &str) -> Result<()>;
}
