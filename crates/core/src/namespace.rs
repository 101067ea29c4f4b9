//! Namespaces: they cut across every operation and isolate records over shared bytes.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::identifier;
use crate::label::Labels;

/// The name of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

impl Namespace {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for Namespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        identifier::validate("namespace", text)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Namespace {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> Self {
        namespace.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The records of namespaces. A namespace also comes into being when something is created in it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Creates a namespace.
    ///
    /// # Errors
    /// `AlreadyExists`.
    async fn create(&self, namespace: &Namespace, labels: Labels) -> Result<()>;

    /// Returns the labels of a namespace.
    async fn labels(&self, namespace: &Namespace) -> Result<Labels>;

    /// Sets a label, or removes it when the value is empty.
    async fn set_label(&self, namespace: &Namespace, key: &str, value: &str) -> Result<()>;

    /// Lists all namespaces, by name.
    async fn list(&self) -> Result<Vec<Namespace>>;

    /// Deletes an empty namespace.
    ///
    /// # Errors
    /// `FailedPrecondition` that lists what is still in it.
    async fn delete(&self, namespace: &Namespace) -> Result<()>;
}
