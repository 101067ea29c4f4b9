//! Where the runs are: each in a directory of its own, of which the large files go at once and the rest at the end.
//!
//! A filesystem that has just lost very many files may be slow to make new ones (ext4 without a journal does not give the
//! number of a removed file away for minutes), and that would be measured in whatever runs next. Large files are few, and
//! what the room is needed for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What is removed at once: files that are larger, in bytes.
const LARGE: u64 = 256 << 10;
/// What the largest run needs, in bytes: the tools of the limit have the archives, the trees and the blobs at once.
pub(super) const NEEDED: u64 = 8 << 30;

/// The directories of the runs.
#[derive(Debug)]
pub(super) struct Room {
    directory: PathBuf,
    made: u32,
}

impl Room {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), made: 0 }
    }

    /// Makes the directory of a run. Removes those of earlier ones only when there is too little room.
    pub(super) fn place(&mut self, needed: u64) -> Result<PathBuf> {
        if self.free()? < needed && self.made > 0 {
            println!("too little room is free: earlier runs are removed now, and the next may be slower for it");
            self.remove()?;
        }
        self.made += 1;
        let place = self.directory.join(format!("run-{}", self.made));
        fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
        Ok(place)
    }

    /// Gives back what large files of a run take.
    pub(super) fn give_back(place: &Path) -> Result<()> {
        for entry in fs::read_dir(place).with_context(|| format!("list {}", place.display()))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                Self::give_back(&entry.path())?;
            } else if metadata.is_file() && metadata.len() > LARGE {
                fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
            }
        }
        Ok(())
    }

    fn free(&self) -> Result<u64> {
        fs::create_dir_all(&self.directory).with_context(|| format!("create {}", self.directory.display()))?;
        let statistics = rustix::fs::statvfs(&self.directory).context("ask how much room is free")?;
        Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
    }

    fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.directory).with_context(|| format!("remove {}", self.directory.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_go_and_small_ones_stay_until_there_is_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let mut room = Room::new(&directory.path().join("runs"));
        let place = room.place(1).unwrap();
        fs::create_dir(place.join("below")).unwrap();
        fs::write(place.join("below/large"), vec![0; 300 << 10]).unwrap();
        fs::write(place.join("below/small"), "x").unwrap();
        Room::give_back(&place).unwrap();
        assert!(!place.join("below/large").exists() && place.join("below/small").exists());

        let next = room.place(u64::MAX).unwrap();
        assert!(next.exists() && !place.exists());
    }
}
