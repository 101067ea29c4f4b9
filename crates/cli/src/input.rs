//! Standard input and files as sources of content: a file is continued where it is wanted, a pipe is read from its
//! beginning.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rustix::buffer::spare_capacity;
use windlass_core::content::{InFile, OneWay, ReaderAt, Source};
use windlass_core::error::IoResultExt;
use windlass_core::{ByteStream, Error, Result};

/// How much is read at once, in bytes.
const PART: usize = 1 << 20;

/// Returns standard input.
pub(crate) fn standard() -> Result<Box<dyn Source>> {
    let mut input = std::io::stdin().as_fd().try_clone_to_owned().map(File::from).attempt(reading)?;
    let metadata = input.metadata().attempt(reading)?;
    // What was read of a file before belongs to somebody else.
    match input.stream_position() {
        Ok(begin) if metadata.is_file() => {
            let size = metadata.len().saturating_sub(begin);
            let all: Arc<dyn ReaderAt> = Arc::new(Part { file: Arc::new(input), begin, size });
            Ok(Box::new(all))
        }
        _ => {
            let parts = stream::try_unfold((), |()| async { Ok(read().await?.map(|part| (part, ()))) });
            Ok(Box::new(OneWay::new(parts.into_stream().boxed())))
        }
    }
}

/// Returns the bytes of a file, or of standard input for `-`.
pub(crate) async fn stream(path: &Path) -> Result<ByteStream> {
    if path.as_os_str() == "-" {
        return Ok(standard()?.open(0).await?.stream);
    }
    let attempt = || format!("open {}", path.display());
    // That of a pipe takes until somebody writes.
    let name = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || File::open(name)).await;
    let opened = opened.map_err(|e| Error::internal("opening a file panicked").source(e))?.attempt(attempt)?;
    let metadata = opened.metadata().attempt(attempt)?;
    if metadata.is_dir() {
        return Err(Error::failed_precondition(format!("{} is a directory", path.display()))
            .hint(format!("`dist pull oci:{}` brings an image of an OCI layout", path.display())));
    }
    if metadata.is_file() {
        return Ok(file(opened)?.open(0).await?.stream);
    }
    let opened = Arc::new(opened);
    let parts = stream::try_unfold(opened, |opened| async move {
        let reading = opened.clone();
        let read = move || {
            let mut part = Vec::with_capacity(PART);
            (&*reading).take(PART as u64).read_to_end(&mut part).map(|_| part)
        };
        let part = blocking(read).await.attempt(|| "read the archive".to_owned())?;
        Ok((!part.is_empty()).then(|| (part.into(), opened)))
    });
    Ok(parts.boxed())
}

/// Returns a whole file.
pub(crate) fn file(file: File) -> Result<Arc<dyn ReaderAt>> {
    let size = file.metadata().attempt(|| "look at a file".to_owned())?.len();
    Ok(Arc::new(Part { file: Arc::new(file), begin: 0, size }))
}

/// A file from some place on.
struct Part {
    file: Arc<File>,
    begin: u64,
    size: u64,
}

#[async_trait]
impl ReaderAt for Part {
    fn size(&self) -> u64 {
        self.size
    }

    fn in_file(&self) -> Option<InFile> {
        Some(InFile { file: self.file.clone(), begin: self.begin })
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let (file, at) = (self.file.clone(), self.begin.saturating_add(offset));
        let read = move || {
            // Memory that nobody has to clear before.
            let mut part = Vec::with_capacity(length);
            rustix::io::pread(&*file, spare_capacity(&mut part), at)?;
            Ok(part.into())
        };
        blocking(read).await.attempt(|| format!("read at {at}"))
    }
}

/// Reads a part of standard input, `None` at its end.
async fn read() -> Result<Option<Bytes>> {
    let read = || {
        let mut part = Vec::with_capacity(PART);
        std::io::stdin().lock().take(PART as u64).read_to_end(&mut part).map(|_| part)
    };
    let part = blocking(read).await.attempt(reading)?;
    Ok((!part.is_empty()).then(|| part.into()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

fn reading() -> String {
    "read standard input".to_owned()
}
