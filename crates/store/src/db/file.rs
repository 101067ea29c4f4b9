//! The file of the database, as redb wants it.
//!
//! It takes no locks: the lock of the root is what keeps others away.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use redb::StorageBackend;
use windlass_core::{Error, Result};

use crate::disk::{Disk, File};

/// For how many bytes of growth there is room at least, and at most: the database doubles when it grows, until it is large, and gives
/// back what it does not need when it is closed. Removing something is a write, too, and a full disk is when it has to work.
const ROOM: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 20;

/// What failed first. From then on redb reads and writes nothing more, and after a write nobody knows what of it is on the disk.
pub(super) type Failure = Arc<OnceLock<String>>;

/// The file of a database.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    file: File,
    syncs: Syncs,
    failure: Failure,
}

/// What becomes of syncs.
#[derive(Debug)]
enum Syncs {
    /// They reach the disk. The first one also makes durable that the file is in its directory: this process may have put
    /// it there, or one that died right after.
    Done { disk: Disk, directory: PathBuf, first: AtomicBool },
    /// They do not: nobody looks at the file before it is synced as a whole.
    Skipped,
}

impl DatabaseFile {
    /// Returns the file of a database in use.
    pub(super) fn in_use(file: File, disk: &Disk, directory: PathBuf, failure: Failure) -> Self {
        let this =
            Self { file, syncs: Syncs::Done { disk: disk.clone(), directory, first: AtomicBool::new(true) }, failure };
        this.keep_room();
        this
    }

    /// Returns the file of a database that is being made.
    pub(super) fn being_made(file: File) -> Self {
        Self { file, syncs: Syncs::Skipped, failure: Failure::default() }
    }

    /// Syncs the file, and the first time the directory it is in.
    fn sync(&self) -> Result<()> {
        let Syncs::Done { disk, directory, first } = &self.syncs else { return Ok(()) };
        if first.load(Ordering::Acquire) {
            disk.sync_dir(directory)?;
            first.store(false, Ordering::Release);
        }
        self.file.sync_data()
    }

    /// Keeps room to grow once more.
    fn keep_room(&self) {
        if let (Syncs::Done { .. }, Ok(look)) = (&self.syncs, self.file.look()) {
            self.file.keep_room(look.length.clamp(*ROOM.start(), *ROOM.end()));
        }
    }

    /// Remembers the first failure.
    fn noted<T>(&self, result: Result<T>) -> io::Result<T> {
        result.map_err(|error: Error| {
            self.failure.get_or_init(|| error.to_string());
            io::Error::other(error)
        })
    }
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.noted(self.file.look())?.length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noted(self.file.read_exact_at(out, offset))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.noted(self.file.set_len(length))?;
        self.keep_room();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noted(self.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted(self.file.write_all_at(data, offset))
    }
}
