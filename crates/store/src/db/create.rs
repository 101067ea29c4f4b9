//! The making of an empty database, once per root: written without a sync in between, because nobody looks at the file
//! before it is whole, synced and in its place.

use std::path::Path;
use std::sync::Arc;

use windlass_core::Result;

use super::file::{DatabaseFile, Durability};
use super::schema::{FORMAT, META, TABLES};
use super::{FILE, Transaction, builder, failed};
use crate::disk::{Disk, File, How};

/// The mode of the database: labels and specs may be nobody else's business.
const MODE: u32 = 0o600;

/// Makes the database of a root.
///
/// 1. write `meta.redb.new`  2. fsync it  3. rename it to `meta.redb`  4. fsync the root. A crash before 3 leaves a file
///    that the next opener replaces.
pub(super) fn create(disk: &Disk, root: &Path, path: &Path) -> Result<()> {
    let new = root.join(format!("{FILE}.new"));
    disk.remove_file(&new)?;
    let file = disk.open(&new, How::CreateNew(MODE))?;
    fill(file.clone())?;
    file.sync_all()?;
    disk.rename(&new, path)?;
    disk.sync_dir(root)
}

fn fill(file: File) -> Result<()> {
    let file = DatabaseFile::new(file, Durability::Deferred);
    let database = builder().create_with_backend(file).map_err(failed)?;
    let transaction = Transaction::begin(&database, &Arc::default())?;
    for table in TABLES {
        transaction.table(table)?;
    }
    META.put(&transaction, "format", &FORMAT)?;
    transaction.commit()
}
