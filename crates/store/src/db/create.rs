//! The making of an empty database, once per root: written without a sync in between, because nobody looks at the file
//! before it is whole, synced and in its place.

use std::path::Path;
use std::sync::Arc;

use windlass_core::error::IoResultExt;
use windlass_core::{Error, Kind, Result};

use super::file::DatabaseFile;
use super::schema::{FORMAT, META, TABLES};
use super::{FILE, Transaction, builder, failed};
use crate::disk::{Disk, File, How};
use crate::elsewhere;

/// The mode of the database: labels and specs may be nobody else's business.
const MODE: u32 = 0o600;

/// Makes the database of a root.
///
/// 1. write `meta.redb.new`  2. fsync it  3. fsync what the root is in  4. rename it to `meta.redb`. That it is there is made
///    durable by the first commit. A crash before 4 leaves a file that the next opener replaces.
pub(super) fn create(disk: &Disk, root: &Path, path: &Path) -> Result<()> {
    let new = root.join(format!("{FILE}.new"));
    disk.remove_file(&new)?;
    let file = disk.open(&new, How::CreateNew(MODE))?;
    fill(file.clone())?;
    file.sync_all()?;
    sync_above(disk, root)?;
    disk.rename(&new, path)
}

/// Refuses to make a database where there are blobs: one was there, and to whoever begins with an empty one everything is
/// garbage.
///
/// # Errors
/// `DataLoss`.
pub(super) fn refuse_after_a_loss(disk: &Disk, root: &Path) -> Result<()> {
    let lost = || {
        let gone = format!("the metadata database {} is gone, and there are blobs", root.join(FILE).display());
        Error::data_loss(gone).hint("`dist fsck --repair` makes a new one of what is there")
    };
    if elsewhere::is_said(disk, root)? {
        return Err(lost());
    }
    let blobs = root.join("content/blobs");
    let mut algorithms = Vec::new();
    match disk.list(&blobs, |algorithm| algorithms.push(blobs.join(algorithm))) {
        Err(error) if error.is(Kind::NotFound) => return Ok(()),
        listed => listed?,
    }
    for directory in algorithms {
        let mut found = false;
        disk.list(&directory, |_| found = true)?;
        if found {
            return Err(lost());
        }
    }
    Ok(())
}

/// Makes durable that the root is where it is, as far up as directories may have been made for it.
fn sync_above(disk: &Disk, root: &Path) -> Result<()> {
    for directory in root.canonicalize().attempt(|| format!("look at {}", root.display()))?.ancestors().skip(1) {
        match disk.sync_dir(directory) {
            // Who made a directory may read it: this one is somebody else's.
            Err(error) if error.is(Kind::PermissionDenied) => break,
            synced => synced?,
        }
    }
    Ok(())
}

fn fill(file: File) -> Result<()> {
    let database = builder().create_with_backend(DatabaseFile::being_made(file)).map_err(failed)?;
    let transaction = Transaction::begin(&database, &Arc::default())?;
    for table in TABLES {
        transaction.table(table)?;
    }
    META.put(&transaction, "format", &FORMAT)?;
    transaction.commit()
}
