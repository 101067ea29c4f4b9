//! The making of an empty database, once per root: written without a sync in between, because nobody looks at the file
//! before it is whole, synced and in its place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use redb::StorageBackend;
use windlass_core::error::IoResultExt;
use windlass_core::{Error, Result};

use super::schema::{FORMAT, META, TABLES};
use super::{FILE, Transaction, builder, failed};

/// The mode of the database: labels and specs may be nobody else's business.
const MODE: u32 = 0o600;

/// Makes the database of a root.
///
/// 1. write `meta.redb.new`  2. fsync it  3. rename it to `meta.redb`  4. fsync the root. A crash before 3 leaves a file
///    that the next opener replaces.
pub(super) fn create(root: &Path, path: &Path) -> Result<()> {
    let new = root.join(format!("{FILE}.new"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io(format!("remove {}", new.display()), error));
        }
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&new)
        .attempt(|| format!("create {}", new.display()))?;
    fill(file.try_clone().attempt(|| format!("open {}", new.display()))?)?;
    file.sync_all().attempt(|| format!("sync {}", new.display()))?;
    std::fs::rename(&new, path).attempt(|| format!("rename {} to {}", new.display(), path.display()))?;
    File::open(root).and_then(|root| root.sync_all()).attempt(|| format!("sync {}", root.display()))
}

fn fill(file: File) -> Result<()> {
    let database = builder().create_with_backend(Unsynced(file)).map_err(failed)?;
    let transaction = Transaction::begin(&database, &Arc::default())?;
    for table in TABLES {
        transaction.table(table)?;
    }
    META.put(&transaction, "format", &FORMAT)?;
    transaction.commit()
}

/// A file that is not synced.
#[derive(Debug)]
struct Unsynced(File);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
