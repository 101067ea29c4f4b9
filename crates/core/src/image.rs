//! Images: a name, the descriptor it points at, and labels.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::field::FieldMask;
use crate::filter::{Fields, Filter};
pub use crate::gc::Deletion;
use crate::label::Labels;
use crate::{Listing, timestamp};

/// The name that an image is recorded under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > Self::MAX_LEN || text.chars().any(char::is_control) {
            return Err(Error::invalid_argument(format!(
                "image name {text:?} must have 1 to {} bytes and no control characters",
                Self::MAX_LEN
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
