//! The disk below the store: every operation on files and directories that the store does, in one place.
//!
//! The rest of the crate uses [`Disk`] and [`File`], whose errors name the path. What is behind them is a [`Backend`]:
//! the operating system, or in a test one that keeps a log of the operations or lets one of them fail. Not here: the
//! lock of the root, which is about processes and not about bytes.

#[cfg(test)]
pub(crate) mod cut;
#[cfg(test)]
pub(crate) mod fault;
#[cfg(test)]
pub(crate) mod log;
mod real;

use std::fmt;
use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use windlass_core::error::IoResultExt;
use windlass_core::{Durability, Error, Kind, Result};

/// How many parts one write has at most: what the kernel takes (`IOV_MAX`).
pub(crate) const MOST_PARTS: usize = 1024;

/// What carries operations out. All of it blocks.
pub(crate) trait Backend: fmt::Debug + Send + Sync {
    /// Makes a directory in one that exists.
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Opens a file.
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn OpenFile>>;
    /// Opens a file to read it if the system can do so without waiting for the disk; none when that is not known.
    fn open_at_once(&self, _path: &Path) -> Option<Arc<dyn OpenFile>> {
        None
    }
    /// Moves a file, in place of one that may be there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Visits the names in a directory, in no order.
    fn list(&self, path: &Path, visit: &mut dyn FnMut(&str)) -> io::Result<()>;
    /// Says what is known of a file or directory.
    fn look(&self, path: &Path) -> io::Result<Look>;
    /// Changes the permissions of a file.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Makes durable which entries a directory has.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens the filesystem that a directory is on.
    fn filesystem(&self, path: &Path) -> io::Result<Arc<dyn OpenFilesystem>>;
    /// Returns how many bytes the machine has in memory that are not on a disk yet, where that is known.
    fn unwritten(&self) -> Option<u64>;
    /// Returns the identity of the running boot, where there is one: within it, what was written is still there.
    fn boot(&self) -> Option<String>;
}

/// An open file of a [`Backend`].
pub(crate) trait OpenFile: fmt::Debug + Send + Sync {
    /// Reads into the buffer and tells how much; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads into what the buffer has room for behind its end, and tells how much; 0 at the end.
    fn read_more_at(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize>;
    /// Reads into the buffer what is in memory, and tells how much; `WouldBlock` when nothing there is, or when that is not known.
    fn read_at_once(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Writes a part of the bytes and tells how much.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Writes some of the bytes of parts that follow each other and tells how much.
    fn write_parts_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        parts.iter().find(|part| !part.is_empty()).map_or(Ok(0), |part| self.write_at(part, offset))
    }
    /// Cuts the file, or extends it with zeros, for which there is room then.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Keeps room for the file to grow by so many bytes, as far as there is some. Whoever cuts it gives that up.
    fn keep_room(&self, _length: u64) {}
    /// Makes data and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes data, length and everything said about the file durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Says what is known of the file.
    fn look(&self) -> io::Result<Look>;
    /// Opens it once more, for whoever reads it by itself; none where that cannot be done.
    fn duplicate(&self) -> Option<fs::File> {
        None
    }
    /// Starts to write a range back, without waiting. This only hurries what a sync makes sure of.
    fn start_writeback(&self, offset: u64, length: u64);
    /// Changes what [`Look::modified_at`] says. Nothing that matters is told from that.
    fn set_modified(&self, _at: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

/// A filesystem of a [`Backend`] as a whole.
pub(crate) trait OpenFilesystem: fmt::Debug + Send + Sync {
    /// Makes everything durable that is on it. Fails also when something that was written since it was opened could not be
    /// brought to the disk, whoever wrote it.
    fn sync(&self) -> io::Result<()>;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// To read what is there.
    Read,
    /// To read and write what is there.
    Write,
    /// To read and write, made with that mode when missing.
    Create(u32),
    /// To read and write, made with that mode; it must not be there.
    CreateNew(u32),
    /// To read and write, made with that mode, without what may be there.
    Replace(u32),
}

/// What is known of a file or directory without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) length: u64,
    pub(crate) mode: u32,
    pub(crate) modified_at: SystemTime,
}

/// The disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    backend: Arc<dyn Backend>,
    /// Whether syncs are carried out.
    durability: Durability,
}

impl Disk {
    /// Returns the disk that the operating system offers.
    pub(crate) fn real() -> Self {
        Self::new(real::Real)
    }

    fn new(backend: impl Backend + 'static) -> Self {
        Self { backend: Arc::new(backend), durability: Durability::Synced }
    }

    /// Returns the same disk, on which syncs are carried out or not.
    pub(crate) fn with(&self, durability: Durability) -> Self {
        Self { backend: self.backend.clone(), durability }
    }

    /// Returns the identity of the running boot, where there is one: within it, what was written is still there.
    pub(crate) fn boot(&self) -> Option<String> {
        self.backend.boot()
    }

    /// Makes a directory in one that exists, and tells whether it was missing.
    pub(crate) fn create_dir(&self, path: &Path, mode: u32) -> Result<bool> {
        match self.backend.create_dir(path, mode) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::io(format!("create {}", path.display()), error)),
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, depending on how it is opened.
    pub(crate) fn open(&self, path: &Path, how: How) -> Result<File> {
        let verb = match how {
            How::Read | How::Write | How::Create(_) => "open",
            How::CreateNew(_) | How::Replace(_) => "create",
        };
        let inner = self.backend.open(path, how).attempt(|| format!("{verb} {}", path.display()))?;
        Ok(File { path: path.into(), inner, durability: self.durability })
    }

    /// Opens a file to read it, without waiting for the disk: none when that cannot be done.
    pub(crate) fn open_at_once(&self, path: &Path) -> Option<File> {
        let inner = self.backend.open_at_once(path)?;
        Some(File { path: path.into(), inner, durability: self.durability })
    }

    /// Reads a small file, at most so many bytes of it; `None` when it is missing.
    pub(crate) fn read(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        let Some(file) = found(self.open(path, How::Read))? else { return Ok(None) };
        let length = usize::try_from(file.look()?.length).unwrap_or(limit).min(limit);
        let mut bytes = vec![0; length];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// Moves a file, in place of one that may be there.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.backend.rename(from, to).attempt(|| format!("rename {} to {}", from.display(), to.display()))
    }

    /// Removes a file and tells whether there was one.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<bool> {
        let removed = self.backend.remove_file(path).attempt(|| format!("remove {}", path.display()));
        found(removed).map(|removed| removed.is_some())
    }

    /// Removes a directory with everything in it and tells whether there was one.
    pub(crate) fn remove_dir_all(&self, path: &Path) -> Result<bool> {
        let removed = self.backend.remove_dir_all(path).attempt(|| format!("remove {}", path.display()));
        found(removed).map(|removed| removed.is_some())
    }

    /// Visits the names in a directory, in no order.
    pub(crate) fn list(&self, path: &Path, mut visit: impl FnMut(&str)) -> Result<()> {
        self.backend.list(path, &mut visit).attempt(|| format!("list {}", path.display()))
    }

    /// Says what is known of a file or directory; `None` when it is missing.
    pub(crate) fn look(&self, path: &Path) -> Result<Option<Look>> {
        found(self.backend.look(path).attempt(|| format!("look at {}", path.display())))
    }

    /// Changes the permissions of a file.
    pub(crate) fn set_mode(&self, path: &Path, mode: u32) -> Result<()> {
        self.backend.set_mode(path, mode).attempt(|| format!("change the mode of {}", path.display()))
    }

    /// Makes durable which entries a directory has.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<()> {
        match self.durability {
            Durability::Synced => self.backend.sync_dir(path).attempt(|| format!("sync {}", path.display())),
            Durability::Unsynced => Ok(()),
        }
    }

    /// Opens the filesystem that a directory is on.
    pub(crate) fn filesystem(&self, path: &Path) -> Result<Filesystem> {
        let inner = self.backend.filesystem(path).attempt(|| format!("open {}", path.display()))?;
        Ok(Filesystem { path: path.into(), inner })
    }

    /// Returns how many bytes the machine has in memory that are not on a disk yet, where that is known.
    pub(crate) fn unwritten(&self) -> Option<u64> {
        self.backend.unwritten()
    }

    /// Tells whether syncs are carried out.
    pub(crate) fn is_synced(&self) -> bool {
        self.durability == Durability::Synced
    }
}

/// A filesystem as a whole.
#[derive(Debug)]
pub(crate) struct Filesystem {
    path: PathBuf,
    inner: Arc<dyn OpenFilesystem>,
}

impl Filesystem {
    /// Makes everything durable that is on it, however the disk is used.
    ///
    /// # Errors
    /// Also what happened to anybody's writes since it was opened.
    pub(crate) fn sync(&self) -> Result<()> {
        self.inner.sync().attempt(|| format!("sync the filesystem of {}", self.path.display()))
    }
}

/// An open file. Cheap to clone; a clone is the same file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    path: PathBuf,
    inner: Arc<dyn OpenFile>,
    durability: Durability,
}

impl File {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads into the buffer and tells how much; 0 at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        loop {
            match self.inner.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return self.attempt("read", read),
            }
        }
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// `DataLoss` when the file ends before.
    pub(crate) fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<()> {
        while !buffer.is_empty() {
            let read = self.read_at(buffer, offset)?;
            if read == 0 {
                return self.attempt("read", Err(io::ErrorKind::UnexpectedEof.into()));
            }
            buffer = buffer.get_mut(read..).unwrap_or_default();
            offset += read as u64;
        }
        Ok(())
    }

    /// Reads so many bytes into memory that nobody has to clear before.
    ///
    /// # Errors
    /// `DataLoss` when the file ends before.
    pub(crate) fn read_new_at(&self, length: usize, offset: u64) -> Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(length);
        while buffer.len() < length {
            let at = offset + buffer.len() as u64;
            match self.inner.read_more_at(&mut buffer, at) {
                Ok(0) => return self.attempt("read", Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return self.attempt("read", Err(error)),
                _ => {}
            }
        }
        // There may have been more room than was asked for.
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Reads so many bytes without waiting for the disk; none when not all of them are in memory.
    pub(crate) fn read_new_at_once(&self, length: usize, offset: u64) -> Option<Vec<u8>> {
        let mut buffer = vec![0; length];
        match self.inner.read_at_once(&mut buffer, offset) {
            Ok(read) if read == length => Some(buffer),
            _ => None,
        }
    }

    /// Writes parts that follow each other, and tells how many bytes of them; an error too, when that is not all.
    pub(crate) fn write_parts_at(&self, parts: &[Bytes], offset: u64) -> (u64, Result<()>) {
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        let mut written = 0;
        // What is empty is passed over.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let batch = rest.get(..rest.len().min(MOST_PARTS)).unwrap_or_default();
            match self.inner.write_parts_at(batch, offset + written) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, self.attempt("write", Err(error))),
                Ok(0) => return (written, self.attempt("write", Err(io::ErrorKind::WriteZero.into()))),
                Ok(more) => {
                    written += more as u64;
                    IoSlice::advance_slices(&mut rest, more);
                }
            }
        }
        (written, Ok(()))
    }

    /// Writes a part of the bytes and tells how much.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        loop {
            match self.inner.write_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) if !bytes.is_empty() => return self.attempt("write", Err(io::ErrorKind::WriteZero.into())),
                written => return self.attempt("write", written),
            }
        }
    }

    /// Writes all of the bytes.
    pub(crate) fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            let written = self.write_at(bytes, offset)?;
            bytes = bytes.get(written..).unwrap_or_default();
            offset += written as u64;
        }
        Ok(())
    }

    /// Cuts the file, or extends it with zeros.
    pub(crate) fn set_len(&self, length: u64) -> Result<()> {
        self.attempt("set the length of", self.inner.set_len(length))
    }

    /// Keeps room for the file to grow by so many bytes, as far as there is some: it can when the disk is full later on.
    pub(crate) fn keep_room(&self, length: u64) {
        self.inner.keep_room(length);
    }

    /// Makes data and length durable.
    pub(crate) fn sync_data(&self) -> Result<()> {
        match self.durability {
            Durability::Synced => self.attempt("sync", self.inner.sync_data()),
            Durability::Unsynced => Ok(()),
        }
    }

    /// Makes data, length and everything said about the file durable.
    pub(crate) fn sync_all(&self) -> Result<()> {
        match self.durability {
            Durability::Synced => self.attempt("sync", self.inner.sync_all()),
            Durability::Unsynced => Ok(()),
        }
    }

    /// Says what is known of the file.
    pub(crate) fn look(&self) -> Result<Look> {
        self.attempt("look at", self.inner.look())
    }

    /// Opens it once more, for whoever reads it by itself; none where that cannot be done.
    pub(crate) fn duplicate(&self) -> Option<fs::File> {
        self.inner.duplicate()
    }

    /// Starts to write a range back, without waiting. This only hurries what a sync makes sure of.
    pub(crate) fn start_writeback(&self, offset: u64, length: u64) {
        if self.durability == Durability::Synced {
            self.inner.start_writeback(offset, length);
        }
    }

    /// Changes what [`File::look`] says of when the file was modified. Nothing that matters is told from that.
    pub(crate) fn set_modified(&self, at: SystemTime) -> Result<()> {
        self.attempt("set the time of", self.inner.set_modified(at))
    }

    fn attempt<T>(&self, verb: &str, result: io::Result<T>) -> Result<T> {
        result.attempt(|| format!("{verb} {}", self.path.display()))
    }
}

/// Makes a value of what may be missing.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
