//! What is in the database. `docs/format/store.md` says the same in prose.
//!
//! ```text
//! meta.redb
//! ├── meta            "format"                                → 1
//! ├── namespaces      namespace                               → Namespace { labels, created_at }
//! ├── images          namespace \0 name                       → image::Image
//! ├── containers      namespace \0 id                         → container::Container
//! ├── contents        namespace \0 digest                     → content::Info
//! ├── snapshots       namespace \0 snapshotter \0 key         → Snapshot { inner, info }
//! ├── children        namespace \0 snapshotter \0 parent \0 key → present
//! ├── leases          namespace \0 id                         → lease::Lease
//! ├── resources       namespace \0 lease \0 node              → present: what a lease holds
//! └── links           namespace \0 node                       → Links: what a record refers to
//!
//! node: content/<digest> │ snapshot/<snapshotter>/<key> │ ingest/<ref> │ image/<name> │ container/<id>
//! ```
//!
//! Keys are text, ordered bytewise; no part can contain NUL. Values are one version byte (1) and JSON. Bytes on disk are
//! shared between namespaces, and so are the snapshots of the snapshotters behind: a blob or a snapshot may go when no
//! namespace has a record of it, which is asked of each namespace in turn (there are few).

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use windlass_core::container::Container;
use windlass_core::content;
use windlass_core::image::Image;
use windlass_core::lease::Lease;
use windlass_core::snapshot::{self, Key};
use windlass_core::{Labels, timestamp};

use super::{Links, Present, Records};

/// The version of all of this.
pub(crate) const FORMAT: u32 = 1;

/// Facts about the database itself.
pub(crate) static META: Records<u32> = Records::new("meta");
/// Namespaces.
pub(crate) static NAMESPACES: Records<NamespaceRecord> = Records::new("namespaces");
/// Images.
pub(crate) static IMAGES: Records<Image> = Records::new("images");
/// Containers.
pub(crate) static CONTAINERS: Records<Container> = Records::new("containers");
/// Blobs.
pub(crate) static CONTENTS: Records<content::Info> = Records::new("contents");
/// Snapshots.
pub(crate) static SNAPSHOTS: Records<SnapshotRecord> = Records::new("snapshots");
/// Which snapshots stand on which.
pub(crate) static CHILDREN: Records<Present> = Records::new("children");
/// Leases.
pub(crate) static LEASES: Records<Lease> = Records::new("leases");
/// What leases hold.
pub(crate) static RESOURCES: Records<Present> = Records::new("resources");
/// What records refer to.
pub(crate) static LINKS: Records<Links> = Records::new("links");

/// Every table.
pub(super) const TABLES: [&str; 10] = [
    META.table(),
    NAMESPACES.table(),
    IMAGES.table(),
    CONTAINERS.table(),
    CONTENTS.table(),
    SNAPSHOTS.table(),
    CHILDREN.table(),
    LEASES.table(),
    RESOURCES.table(),
    LINKS.table(),
];

/// The record of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamespaceRecord {
    #[serde(default)]
    pub(crate) labels: Labels,
    #[serde(with = "timestamp")]
    pub(crate) created_at: SystemTime,
}

/// The record of a snapshot: what the namespace says of it, and what the snapshotter behind calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) inner: Key,
    #[serde(flatten)]
    pub(crate) info: snapshot::Info,
}
