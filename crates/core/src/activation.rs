//! Activations: mounts that are kept under a name, for those that a client cannot make by itself.
//!
//! A snapshotter's mounts are data. Most of them the kernel makes, for whoever has the right to mount; some it does not know,
//! or some need the result of others first. A [`Manager`] makes those, and hands out what is left to be mounted.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::field::FieldMask;
use crate::filter::{Fields, Filter};
use crate::label::Labels;
use crate::namespace::Namespace;
use crate::snapshot::Mount;
use crate::text::{self, checked_text};
use crate::timestamp;

checked_text! {
    /// What an activation is called in its namespace: up to 1024 bytes without control characters.
    Name, "activation", text::validate
}

/// Mounts that are kept under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The name.
    pub name: Name,
    /// What was mounted, in order.
    pub active: Vec<Active>,
    /// What is left to whoever asked: mounting these shows what the mounts were meant to show.
    pub system: Vec<Mount>,
    /// The labels.
    #[serde(default)]
    pub labels: Labels,
}

/// A mount that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// The mount.
    pub mount: Mount,
    /// When.
    #[serde(with = "timestamp")]
    pub mounted_at: SystemTime,
    /// Where: an absolute path.
    pub mount_point: String,
    /// What else whoever made it tells.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
}

impl Fields for Activation {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => Some(self.name.to_string()),
            ["labels", key @ ..] => self.labels.field(key),
            _ => None,
        }
    }
}

/// How mounts are to be activated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Labels of the activation.
    pub labels: Labels,
    /// Whether all of it is mounted, also what the caller could: what is left is a bind mount of the result.
    pub temporary: bool,
}

/// Keeps activations.
#[async_trait]
pub trait Manager: Send + Sync {
    /// Makes those of the mounts that the caller cannot, and everything that they stand on.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; `Unavailable` while somebody activates or deactivates it; `Unimplemented` when
    /// there is nothing that the caller cannot mount himself, or for a type that is not known here, naming it. Then, and when
    /// a mount fails, nothing stays.
    ///
    /// # Cancel safety
    /// A call that is dropped happens nevertheless, or fails unseen.
    async fn activate(
        &self,
        namespace: &Namespace,
        name: &Name,
        mounts: Vec<Mount>,
        options: Options,
    ) -> Result<Activation>;

    /// Unmounts what was mounted, the last first, and forgets it.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while a mount is in use: what is left of the activation stays.
    async fn deactivate(&self, namespace: &Namespace, name: &Name) -> Result<()>;

    /// Returns an activation.
    ///
    /// # Errors
    /// `NotFound`.
    async fn info(&self, namespace: &Namespace, name: &Name) -> Result<Activation>;

    /// Changes the labels: all with an empty mask, otherwise `labels` or `labels.<key>` as named.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when the mask names anything else.
    async fn update(&self, namespace: &Namespace, name: &Name, labels: &Labels, mask: &FieldMask)
    -> Result<Activation>;

    /// Lists the activations of a namespace that match any of the filters, by name.
    async fn list(&self, namespace: &Namespace, filters: &[Filter]) -> Result<Vec<Activation>>;
}
