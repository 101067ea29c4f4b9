//! A database opened without touching its file: what redb writes (opening writes already) goes to memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use windlass_core::Result;
use windlass_core::error::IoResultExt;

use crate::db;

/// How much is kept in memory when some of it is written.
const PAGE: u64 = 4096;

/// Opens a copy of a database.
///
/// # Errors
/// `DataLoss` for a damaged file; `NotFound`.
pub(super) fn open(path: &Path) -> Result<redb::Database> {
    let file = File::open(path).attempt(|| format!("open {}", path.display()))?;
    let length = file.metadata().attempt(|| format!("look at {}", path.display()))?.len();
    if length == 0 {
        return Err(db::damage::damaged("it is empty"));
    }
    let copy = Copy { file, written: Mutex::new(Written { length, original: length, pages: BTreeMap::new() }) };
    db::open_with(copy)
}

/// A file, and what was written over it.
#[derive(Debug)]
struct Copy {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    /// How much of the file is still behind.
    original: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Copy {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the file; what lies behind its end is zero.
    fn original(&self, written: &Written, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let left = usize::try_from(written.original.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(out.len());
        match out.get_mut(..length) {
            Some(out) => self.file.read_exact_at(out, offset),
            None => Ok(()),
        }
    }
}

/// Splits a range at the borders of pages: page, offset within it, range of the whole.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE).unwrap_or_default();
        let take = (usize::try_from(PAGE).unwrap_or_default() - within).min(length - done);
        let range = done..done + take;
        done += take;
        Some((at / PAGE, within, range))
    })
}

impl StorageBackend for Copy {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.saturating_add(out.len() as u64) > written.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.original(&written, offset, out)?;
        for (page, within, range) in pieces(offset, out.len()) {
            if let Some(page) = written.pages.get(&page)
                && let (Some(from), Some(to)) = (page.get(within..within + range.len()), out.get_mut(range))
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written();
        written.original = written.original.min(length);
        if length < written.length {
            let whole = length / PAGE;
            written.pages.retain(|page, _| *page <= whole);
            let within = usize::try_from(length % PAGE).unwrap_or_default();
            if let Some(rest) = written.pages.get_mut(&whole).and_then(|page| page.get_mut(within..)) {
                rest.fill(0);
            }
        }
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        for (number, within, range) in pieces(offset, data.len()) {
            if !written.pages.contains_key(&number) {
                let mut page = vec![0; usize::try_from(PAGE).unwrap_or_default()];
                self.original(&written, number * PAGE, &mut page)?;
                written.pages.insert(number, page);
            }
            let to = written.pages.get_mut(&number).and_then(|page| page.get_mut(within..within + range.len()));
            if let (Some(to), Some(from)) = (to, data.get(range)) {
                to.copy_from_slice(from);
            }
        }
        written.length = written.length.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![1; 6000]).unwrap();
        let written = Written { length: 6000, original: 6000, pages: BTreeMap::new() };
        let copy = Copy { file: File::open(&path).unwrap(), written: Mutex::new(written) };
        copy.write(4000, &[2; 200]).unwrap();
        copy.set_len(9000).unwrap();
        let mut read = vec![9; 9000];
        copy.read(0, &mut read).unwrap();
        let mut expected = vec![1; 6000];
        expected[4000..4200].fill(2);
        expected.resize(9000, 0);
        assert_eq!(read, expected);
        copy.set_len(4100).unwrap();
        copy.set_len(6000).unwrap();
        copy.read(0, &mut read[..6000]).unwrap();
        expected[4100..].fill(0);
        assert_eq!(read[..6000], expected[..6000]);
        assert!(copy.read(5999, &mut [0; 2]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), vec![1; 6000]);
    }
}
