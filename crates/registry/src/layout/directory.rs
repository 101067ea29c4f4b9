//! Files below one directory, and nowhere else: a layout comes from anyone, and a link in it must not lead to the rest of
//! the machine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, ResolveFlags, flock, fsync, mkdirat, openat, openat2, renameat,
    unlinkat,
};
use rustix::io::Errno;
use windlass_core::error::IoResultExt as _;
use windlass_core::{ByteStream, Error, Result};

/// How much of a file is read at once, in bytes.
const CHUNK: u64 = 1 << 20;

/// Does blocking work where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::internal("reading an OCI layout panicked").source(e)))
}

/// An open directory. Its methods block.
pub(super) struct Directory {
    path: String,
    descriptor: Arc<OwnedFd>,
}

impl Directory {
    pub(super) fn open(path: &str) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let descriptor = openat(CWD, path, flags, Mode::empty())
            .attempt(|| format!("open OCI layout {path}"))
            .map_err(|error| error.hint("write oci:DIRECTORY:TAG with a directory that exists"))?;
        Ok(Self { path: path.to_owned(), descriptor: Arc::new(descriptor) })
    }

    /// Opens a directory, and makes it when it is not there; the one that it is in has to be.
    pub(super) fn make(path: &str) -> Result<Self> {
        match mkdirat(CWD, path, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path),
            Err(errno) => Err(Error::io(format!("make OCI layout {path}"), errno.into())
                .hint("the directory that it is to be in has to be there")),
        }
    }

    /// Makes a directory below this one.
    pub(super) fn make_below(&self, name: &str) -> Result<()> {
        let (parent, last) = self.parent(name)?;
        match mkdirat(&parent, last, Mode::from_raw_mode(0o777)) {
            Ok(()) => fsync(&parent).attempt(|| format!("write {}", self.path)),
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Error::io(format!("make {}/{name}", self.path), errno.into())),
        }
    }

    /// Waits until nobody else changes the directory, and keeps others from it until the result is dropped.
    pub(super) fn lock(&self) -> Result<OwnedFd> {
        // A description of its own: locks are of descriptions.
        let lock = self.open_below(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        flock(&lock, FlockOperation::LockExclusive).attempt(|| format!("lock {}", self.path))?;
        Ok(lock)
    }

    /// Tells whether a file is there.
    pub(super) fn has(&self, name: &str) -> Result<bool> {
        match self.file(name) {
            Ok(_) => Ok(true),
            Err(error) if error.is(windlass_core::Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins a file under a name that it does not keep.
    pub(super) fn create(&self, name: &str) -> Result<NewFile> {
        let what = format!("make {}/{name}", self.path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let _ = unlinkat(&*self.descriptor, name, AtFlags::empty());
        let below = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&*self.descriptor, name, flags, Mode::from_raw_mode(0o666), below).attempt(|| what)?;
        let directory = Self { path: self.path.clone(), descriptor: self.descriptor.clone() };
        Ok(NewFile { file: file.into(), directory, name: Some(name.to_owned()) })
    }

    /// Opens the directory that something below this one is in, and returns its name there.
    fn parent<'a>(&self, name: &'a str) -> Result<(OwnedFd, &'a str)> {
        let (parent, last) = name.rsplit_once('/').unwrap_or((".", name));
        Ok((self.open_below(parent, OFlags::RDONLY | OFlags::DIRECTORY)?, last))
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Opens a file. Links that stay in the directory are followed; others, and what is not a regular file, are refused.
    pub(super) fn file(&self, name: &str) -> Result<LayoutFile> {
        let what = format!("{}/{name}", self.path);
        // Without NONBLOCK, opening a named pipe would wait for its other end.
        let file: File = self.open_below(name, OFlags::RDONLY | OFlags::NONBLOCK)?.into();
        let metadata = file.metadata().attempt(|| format!("look at {what}"))?;
        if !metadata.is_file() {
            return Err(Error::invalid_argument(format!("{what} is not a regular file")));
        }
        Ok(LayoutFile { file, size: metadata.len(), path: what })
    }

    /// Reads a whole file of at most `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let LayoutFile { file, path, .. } = self.file(name)?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).attempt(|| format!("read {path}"))?;
        if bytes.len() as u64 > limit {
            return Err(Error::resource_exhausted(format!(
                "{path} is larger than the {limit} bytes that are accepted"
            ))
            .hint("it is damaged, or not meant for a container engine"));
        }
        Ok(bytes)
    }

    /// Returns the names in a directory below this one, without those that are not text.
    pub(super) fn names(&self, name: &str) -> Result<Vec<String>> {
        let attempt = || format!("list {}/{name}", self.path);
        let directory = self.open_below(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(directory.as_fd()).attempt(attempt)? {
            let entry = entry.attempt(attempt)?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    fn open_below(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        let below = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&*self.descriptor, name, flags | OFlags::CLOEXEC, Mode::empty(), below).map_err(|errno| {
            let what = format!("open {}/{name}", self.path);
            if errno == Errno::XDEV {
                return Error::invalid_argument(format!("{what}: a link leads out of the directory"))
                    .hint("only files below the directory are read");
            }
            Error::io(what, errno.into())
        })
    }
}

/// An open file of a layout.
pub(super) struct LayoutFile {
    file: File,
    size: u64,
    path: String,
}

impl LayoutFile {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the bytes from `start` to before `end`.
    pub(super) fn into_stream(self, start: u64, end: u64) -> ByteStream {
        let file = Arc::new(self);
        stream::try_unfold(start, move |at| {
            let file = file.clone();
            async move {
                if at >= end {
                    return Ok(None);
                }
                let bytes = blocking(move || file.read_at(at, (end - at).min(CHUNK))).await?;
                let next = at + bytes.len() as u64;
                Ok(Some((bytes, next)))
            }
        })
        .boxed()
    }

    fn read_at(&self, offset: u64, length: u64) -> Result<Bytes> {
        let length = usize::try_from(length).map_err(|_| Error::internal("a chunk does not fit into memory"))?;
        let mut bytes = vec![0; length];
        let read = self.file.read_at(&mut bytes, offset).attempt(|| format!("read {} at {offset}", self.path))?;
        if read == 0 {
            return Err(Error::data_loss(format!("{} became shorter while it was read", self.path)));
        }
        bytes.truncate(read);
        Ok(bytes.into())
    }
}

/// A file that is being written. It is removed unless it gets its name.
pub(super) struct NewFile {
    file: File,
    directory: Directory,
    /// What it is called until then.
    name: Option<String>,
}

impl NewFile {
    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).attempt(|| format!("write into {}", self.directory.path))
    }

    /// Gives the file its name, durably; whatever had the name is gone.
    pub(super) fn commit(mut self, name: &str) -> Result<()> {
        let attempt = || format!("write {}/{name}", self.directory.path);
        self.file.sync_data().attempt(attempt)?;
        let (parent, last) = self.directory.parent(name)?;
        let old = self.name.as_deref().unwrap_or_default();
        renameat(&*self.directory.descriptor, old, &parent, last).attempt(attempt)?;
        fsync(&parent).attempt(attempt)?;
        self.name = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // It is told from others by its name; what is left costs its space.
            let _ = unlinkat(&*self.directory.descriptor, name.as_str(), AtFlags::empty());
        }
    }
}
