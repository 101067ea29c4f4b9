//! Namespaces: they cut across every operation and isolate records over shared bytes.

use async_trait::async_trait;

use crate::error::Result;
use crate::identifier;
use crate::label::Labels;
use crate::text::checked_text;

/// The label with which a namespace says whether others may take over what it has: `true` or `false`, as containerd has it.
pub const SHAREABLE_LABEL: &str = "containerd.io/namespace.shareable";

/// The label with which a namespace names the snapshotter to use when none is asked for, as containerd's clients have it.
pub const DEFAULT_SNAPSHOTTER_LABEL: &str = "containerd.io/defaults/snapshotter";

checked_text! {
    /// The name of a namespace; [`identifier`] has the rule.
    Namespace, "namespace", identifier::validate
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".to_owned())
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
