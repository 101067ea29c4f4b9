//! Plugins: the parts that a daemon is assembled of, and what became of each when it started.
//!
//! Kinds and ids are containerd's, because clients look for them: whoever wants to know which snapshotters there are asks
//! for plugins of the kind [`SNAPSHOTTER`]. How plugins are made is the daemon's own affair and is not here.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::filter::{Fields, Filter};
use crate::platform::Platform;

/// The kind of content stores.
pub const CONTENT: &str = "io.containerd.content.v1";
/// The kind of snapshotters.
pub const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";
/// The kind of what applies and compares layers.
pub const DIFFER: &str = "io.containerd.differ.v1";

/// A part of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// What kind of part it is, such as `io.containerd.snapshotter.v1`.
    pub kind: String,
    /// Which one of its kind it is, such as `overlayfs`.
    pub id: String,
    /// What it needs: kinds, or single plugins as [`Plugin::uri`] names them.
    pub requires: Vec<String>,
    /// The platforms that it is for.
    pub platforms: Vec<Platform>,
    /// What others may want to know of it, such as the directory `root`.
    pub exports: BTreeMap<String, String>,
    /// What it can do beyond the minimum, such as `rebase`.
    pub capabilities: Vec<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a plugin when it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Ready,
    /// It was left out on purpose.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It could not be started.
    Failed {
        /// The class of the error.
        kind: Kind,
        /// The error, for people.
        error: String,
    },
}

impl Outcome {
    /// Makes the outcome of an error.
    pub fn failed(error: &Error) -> Self {
        let text = match error.hint_text() {
            Some(hint) => format!("{error} (hint: {hint})"),
            None => error.to_string(),
        };
        Self::Failed { kind: error.kind(), error: text }
    }

    /// Returns the error that clients see, `None` for what works. What was left out on purpose says `skip plugin`, by which
    /// containerd's clients tell it from what failed.
    pub fn error(&self) -> Option<Error> {
        match self {
            Self::Ready => None,
            Self::Skipped { reason } => Some(Error::unimplemented(format!("skip plugin: {reason}"))),
            Self::Failed { kind, error } => Some(Error::new(*kind, error)),
        }
    }
}

impl Plugin {
    /// Returns the name of the plugin among all: `KIND.ID`, as containerd's configuration has it.
    ///
    /// ```
    /// use windlass_core::plugin::{Outcome, Plugin, SNAPSHOTTER};
    ///
    /// let plugin = Plugin::new(SNAPSHOTTER, "overlayfs");
    /// assert_eq!(plugin.uri(), "io.containerd.snapshotter.v1.overlayfs");
    /// assert_eq!(plugin.outcome, Outcome::Ready);
    /// ```
    pub fn uri(&self) -> String {
        format!("{}.{}", self.kind, self.id)
    }

    /// Makes a plugin that works and of which nothing more is known.
    pub fn new(kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            id: id.into(),
            requires: Vec::new(),
            platforms: Vec::new(),
            exports: BTreeMap::new(),
            capabilities: Vec::new(),
            outcome: Outcome::Ready,
        }
    }

    /// Tells whether it works.
    pub fn is_ready(&self) -> bool {
        self.outcome == Outcome::Ready
    }
}

/// Filters see `type` and `id`, as containerd's do.
impl Fields for Plugin {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["type"] => Some(self.kind.clone()),
            ["id"] => Some(self.id.clone()),
            _ => None,
        }
    }
}

/// What a daemon says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// The identity of its root: the same after a restart.
    pub uuid: String,
    /// Its process.
    pub pid: u64,
    /// The inode of its namespace of processes, by which a client knows whether `pid` means anything to it.
    pub pidns: u64,
    /// What clients did that will not work for ever.
    pub deprecations: Vec<Deprecation>,
    /// Its version.
    pub version: String,
    /// The commit it was built of; empty when nobody knows.
    pub revision: String,
}

/// Something that was used and will not work for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deprecation {
    /// What, for programs.
    pub id: String,
    /// What, and what to do instead, for people.
    pub message: String,
    /// When it was used last.
    pub last_occurrence: SystemTime,
}

/// Tells about a daemon.
#[async_trait]
pub trait Introspection: Send + Sync {
    /// Returns the plugins that match any of the filters, or all of them: those that did not start as well, in the order in
    /// which they were started.
    async fn plugins(&self, filters: &[Filter]) -> Result<Vec<Plugin>>;

    /// Returns what the daemon says about itself.
    async fn server(&self) -> Result<ServerInfo>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_says_so_in_containerds_words_and_what_failed_keeps_class_and_hint() {
        let skipped = Outcome::Skipped { reason: "disabled by configuration".into() }.error().unwrap();
        assert_eq!(
            (skipped.kind(), skipped.to_string().as_str()),
            (Kind::Unimplemented, "skip plugin: disabled by configuration")
        );
        let failed = Outcome::failed(&Error::permission_denied("no /x").hint("be root")).error().unwrap();
        assert_eq!((failed.kind(), failed.to_string().as_str()), (Kind::PermissionDenied, "no /x (hint: be root)"));
        assert!(Outcome::Ready.error().is_none());
    }

    #[test]
    fn filters_find_plugins_by_type_and_id() {
        let filter: Filter = "type==io.containerd.snapshotter.v1,id==native".parse().unwrap();
        assert!(filter.matches(&Plugin::new(SNAPSHOTTER, "native")));
        assert!(!filter.matches(&Plugin::new(SNAPSHOTTER, "overlayfs")));
        assert!(!filter.matches(&Plugin::new(CONTENT, "native")));
    }
}
