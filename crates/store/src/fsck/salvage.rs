//! What can still be read of a damaged database. Nothing of it is believed before it was compared with what is on the disk.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_core::Result;
use windlass_core::container::Container;
use windlass_core::content::Info;
use windlass_core::image::Image;
use windlass_core::lease::Lease;

use super::copy;
use crate::db::damage::guarded;
use crate::db::schema::{
    CONTAINERS, CONTENTS, IMAGES, LEASES, LINKS, NAMESPACES, NamespaceRecord, RESOURCES, SNAPSHOTS, SnapshotRecord,
};
use crate::db::{self, FILE, Links, Present, Records};

/// Records by key, as far as they decode.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    pub(super) namespaces: Vec<(String, NamespaceRecord)>,
    pub(super) images: Vec<(String, Image)>,
    pub(super) contents: Vec<(String, Info)>,
    pub(super) snapshots: Vec<(String, SnapshotRecord)>,
    pub(super) containers: Vec<(String, Container)>,
    pub(super) leases: Vec<(String, Lease)>,
    pub(super) resources: Vec<(String, Present)>,
    pub(super) links: Vec<(String, Links)>,
}

impl Salvaged {
    /// Returns how many records there are.
    pub(super) fn len(&self) -> usize {
        self.images.len() + self.contents.len() + self.snapshots.len() + self.containers.len() + self.leases.len()
    }
}

/// Reads what can be read in the database of a root.
pub(super) fn salvage(root: &Path) -> Salvaged {
    let Ok(database) = guarded(|| copy::open(&root.join(FILE))) else { return Salvaged::default() };
    Salvaged {
        namespaces: table(&database, &NAMESPACES),
        images: table(&database, &IMAGES),
        contents: table(&database, &CONTENTS),
        snapshots: table(&database, &SNAPSHOTS),
        containers: table(&database, &CONTAINERS),
        leases: table(&database, &LEASES),
        resources: table(&database, &RESOURCES),
        links: table(&database, &LINKS),
    }
}

/// Reads a table as far as it goes: from both ends of a hole there is no telling how to go on.
fn table<T: Serialize + DeserializeOwned>(database: &redb::Database, records: &Records<T>) -> Vec<(String, T)> {
    let mut found = Vec::new();
    let read: Result<()> = guarded(|| {
        db::read(database, |view| {
            records.each(view, "", |key, record| {
                found.extend(record.ok().map(|record| (key.to_owned(), record)));
                Ok(())
            })
        })
    });
    if let Err(error) = read {
        tracing::debug!(table = records.table(), %error, "a table was read in part");
    }
    found
}
