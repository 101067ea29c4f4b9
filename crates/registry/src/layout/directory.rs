//! Files below one directory, and nowhere else: a layout comes from anyone, and a link in it must not lead to the rest of
//! the machine.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2};
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
    descriptor: OwnedFd,
}

impl Directory {
    pub(super) fn open(path: &str) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let descriptor = openat(CWD, path, flags, Mode::empty())
            .attempt(|| format!("open OCI layout {path}"))
            .map_err(|error| error.hint("write oci:DIRECTORY:TAG with a directory that exists"))?;
        Ok(Self { path: path.to_owned(), descriptor })
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
        openat2(&self.descriptor, name, flags | OFlags::CLOEXEC, Mode::empty(), below).map_err(|errno| {
            let what = format!("open {}/{name}", self.path);
            if errno == rustix::io::Errno::XDEV {
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
