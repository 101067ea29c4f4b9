//! The file of the database, as redb wants it.
//!
//! It takes no locks: the lock of the root is what keeps others away.

use std::io;

use redb::StorageBackend;

use crate::disk::File;

/// Whether syncs reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Full,
    /// Not: for a file that nobody looks at before it is synced as a whole.
    Deferred,
}

/// The file of a database.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    file: File,
    durability: Durability,
}

impl DatabaseFile {
    pub(super) fn new(file: File, durability: Durability) -> Self {
        Self { file, durability }
    }
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.look().map_err(io::Error::other)?.length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset).map_err(io::Error::other)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length).map_err(io::Error::other)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.durability {
            Durability::Full => self.file.sync_data().map_err(io::Error::other),
            Durability::Deferred => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset).map_err(io::Error::other)
    }
}
