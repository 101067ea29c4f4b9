//! Snapshots: filesystems that stand on each other.
//!
//! A snapshot begins active ([`Snapshotter::prepare`]) or as a view ([`Snapshotter::view`]), both known by a key. An
//! active one is turned into a committed one, known by a name, by [`Snapshotter::commit`]; only committed snapshots
//! are parents. A snapshot with children is not removed.
//!
//! ```text
//!   prepare(key, parent) ──► active ──commit(name)──► committed ──► parent of others
//!   view(key, parent) ─────► view                         remove: any of them, children first
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::digest::ChainId;
use crate::error::{Error, Result};
use crate::field::FieldMask;
use crate::filter::{Fields, Filter};
use crate::label::Labels;
use crate::text::{self, checked_text};
use crate::{Listing, timestamp};

/// The label of an active snapshot that says which committed snapshot it is meant to become. A snapshotter that has
/// that one already answers `AlreadyExists`, and the caller need not fill anything.
pub const TARGET_LABEL: &str = "containerd.io/snapshot.ref";

/// The label of an active snapshot that a layer is to be unpacked into, for a snapshotter to which the name of what it is meant
/// to become says nothing.
pub const UNPACK_LABEL: &str = "windlass.dev/snapshot.unpack";

/// The label of a view that is mounted for people to look at: the image that it shows.
pub const VIEW_LABEL: &str = "windlass.dev/mount.image";

/// The type of a mount that nobody can carry out: its source is a directory, into which an applier writes a layer as an
/// EROFS image, [`LAYER_IMAGE`] and [`LAYER_DATA`]. The option `lower=PATH`, as often as there are layers below and the
/// nearest first, names directories that have such images. Whoever does not know it says so, and writes nothing anywhere.
pub const EROFS_LAYER: &str = "windlass/erofs-layer";

/// The type of a mount that is not made where the others are: an EROFS image as a layer of the overlay that comes after it
/// in the list. Its options are those of EROFS, and `at=PATH`, the directory where the overlay wants to see it. Whoever
/// carries it out mounts it there while the overlay is made, where nobody else sees it: an overlay keeps what it is made of.
/// Mounting it there for everybody, and leaving it, does as well.
pub const EROFS_LOWER: &str = "windlass/erofs-lower";

/// The file that has the metadata of a layer as an EROFS image.
pub const LAYER_IMAGE: &str = "layer.erofs";

/// The file that has the bytes of the files of such a layer: an extra device of the image.
pub const LAYER_DATA: &str = "layer.data";

checked_text! {
    /// What a snapshot is called: the key of an active one or a view, the name of a committed one. Both live in one space.
    /// Up to 1024 bytes without control characters.
    Key, "snapshot key", text::validate
}

impl Key {
    /// The longest one, in bytes.
    pub const MAX_LEN: usize = text::MAX_LEN;
}

/// The name of a committed snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Key);

impl Name {
    /// Returns the name as a key, for the calls that take either.
    pub fn as_key(&self) -> &Key {
        &self.0
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self)
    }
}

impl From<&ChainId> for Name {
    fn from(chain_id: &ChainId) -> Self {
        Self(Key(chain_id.to_string()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What state a snapshot is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Writable, by key.
    Active,
    /// Read-only and never to be committed, by key.
    View,
    /// Read-only, by name.
    Committed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::View => "view",
            Self::Committed => "committed",
        })
    }
}

/// The record of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// What state it is in.
    pub state: State,
    /// Its key or name.
    pub key: Key,
    /// The committed snapshot it stands on.
    #[serde(default)]
    pub parent: Option<Name>,
    /// The labels.
    #[serde(default)]
    pub labels: Labels,
    /// When it was prepared, or committed if it is committed.
    #[serde(with = "timestamp")]
    pub created_at: SystemTime,
    /// When the record changed last.
    #[serde(with = "timestamp")]
    pub updated_at: SystemTime,
}

impl Fields for Info {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["kind"] => Some(self.state.to_string()),
            ["name"] => Some(self.key.to_string()),
            ["parent"] => self.parent.as_ref().map(ToString::to_string),
            ["labels", key @ ..] => self.labels.field(key),
            _ => None,
        }
    }
}

/// What a snapshot takes up, without its parents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Inodes.
    pub inodes: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// One mount(2), as data; a list of them is carried out in order on the same target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The type: `overlay`, `bind`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// A place below the target, empty for the target itself.
    #[serde(default)]
    pub target: String,
    /// The options, `key=value` or a flag such as `ro`.
    pub options: Vec<String>,
}

/// What a snapshotter can do beyond the trait's minimum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// A snapshot prepared without a parent can be put onto one at its commit, so that layers can be filled all at
    /// once. Such a snapshot holds a layer's own entries with whiteouts in the way of this snapshotter.
    pub rebase: bool,
}

/// What is said at the commit of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Labels of the committed snapshot, added to those it was prepared with.
    pub labels: Labels,
    /// The parent to put it onto, for a snapshotter that can [`Capabilities::rebase`].
    pub parent: Option<Name>,
}

/// Keeps filesystems that stand on each other.
#[async_trait]
pub trait Snapshotter: Send + Sync {
    /// Says what is possible beyond the minimum.
    fn capabilities(&self) -> Capabilities;

    /// Checks that snapshots that are made here can be mounted here: for those who would bring much before they find out.
    ///
    /// # Errors
    /// `FailedPrecondition` naming what the filesystem, `Unimplemented` what the kernel cannot do; `PermissionDenied` when
    /// this process may not mount.
    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Returns the record of a snapshot.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when its files are found to be gone.
    async fn stat(&self, key: &Key) -> Result<Info>;

    /// Changes the labels: all with an empty mask, otherwise `labels` or `labels.<key>` as named.
    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info>;

    /// Returns what a snapshot takes up, without its parents.
    async fn usage(&self, key: &Key) -> Result<Usage>;

    /// Returns the mounts of an active snapshot or a view.
    ///
    /// # Errors
    /// `FailedPrecondition` for a committed one: make a view of it.
    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>>;

    /// Begins a writable snapshot on a parent and returns its mounts.
    ///
    /// # Errors
    /// `AlreadyExists` when the key is taken, or when the label [`TARGET_LABEL`] names a snapshot that is here.
    /// `NotFound` without the parent, `FailedPrecondition` when the parent is not committed.
    async fn prepare(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>>;

    /// Begins a read-only snapshot on a parent and returns its mounts; otherwise as [`Snapshotter::prepare`].
    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>>;

    /// Turns an active snapshot into a committed one, durably.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken: the active snapshot stays. `FailedPrecondition` when `key` is not active,
    /// or for a parent that cannot be set.
    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()>;

    /// Removes a snapshot.
    ///
    /// # Errors
    /// `FailedPrecondition` while it has children.
    async fn remove(&self, key: &Key) -> Result<()>;

    /// Lists the snapshots that match any of the filters.
    fn walk(&self, filters: &[Filter]) -> Listing<Info>;

    /// Removes what no record refers to, such as directories left by a crash.
    async fn cleanup(&self) -> Result<()>;
}
