//! Images: a name, the descriptor it points at, and labels.

use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::error::Result;
use crate::field::FieldMask;
use crate::filter::{Fields, Filter};
pub use crate::gc::Deletion;
use crate::label::Labels;
use crate::text::{self, checked_text};
use crate::{Listing, timestamp};

checked_text! {
    /// The name that an image is recorded under: up to 1024 bytes without control characters.
    Name, "image name", text::validate
}

impl Name {
    /// The longest one, in bytes.
    pub const MAX_LEN: usize = text::MAX_LEN;
}

/// The record of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The name.
    pub name: Name,
    /// What the name points at, with its annotations.
    pub target: Descriptor,
    /// The labels.
    #[serde(default)]
    pub labels: Labels,
    /// When the record was created; the store sets it.
    #[serde(with = "timestamp")]
    pub created_at: SystemTime,
    /// When the record changed last; the store sets it.
    #[serde(with = "timestamp")]
    pub updated_at: SystemTime,
}

impl Image {
    /// Makes a record for a store to create.
    pub fn new(name: Name, target: Descriptor) -> Self {
        let now = SystemTime::now();
        Self { name, target, labels: Labels::new(), created_at: now, updated_at: now }
    }
}

impl Fields for Image {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => Some(self.name.to_string()),
            ["target", "digest"] => Some(self.target.digest.to_string()),
            ["target", "mediatype"] => Some(self.target.media_type.to_string()),
            ["labels", key @ ..] => self.labels.field(key),
            ["annotations", key @ ..] => self.target.annotations.get(&key.join(".")).cloned(),
            _ => None,
        }
    }
}

/// The records of images, as seen from one namespace.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns an image by its name.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, name: &Name) -> Result<Image>;

    /// Lists the images that match any of the filters, by name.
    fn list(&self, filters: &[Filter]) -> Listing<Image>;

    /// Creates a record.
    ///
    /// # Errors
    /// `AlreadyExists`.
    async fn create(&self, image: &Image) -> Result<Image>;

    /// Changes a record: target and labels with an empty mask, otherwise `target`, `labels`, `labels.<key>`,
    /// `annotations` or `annotations.<key>` (of the target) as named.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when the mask names anything else.
    async fn update(&self, image: &Image, mask: &FieldMask) -> Result<Image>;

    /// Deletes a record.
    ///
    /// # Errors
    /// `NotFound`.
    async fn delete(&self, name: &Name, deletion: Deletion) -> Result<()>;
}

/// Conveniences over any [`Store`].
#[async_trait]
pub trait StoreExt: Store {
    /// Creates the record or, when the name is taken, points it at the new target.
    async fn put(&self, image: &Image) -> Result<Image> {
        match self.create(image).await {
            Err(error) if error.is(crate::Kind::AlreadyExists) => self.update(image, &FieldMask::all()).await,
            created => created,
        }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
