//! An archive being written, member by member.

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use windlass_archive::tar::{Entry, Kind, Writer};
use windlass_core::content::{Provider, changed_at_rest};
use windlass_core::error::IoResultExt as _;
use windlass_core::progress::{State, Task};
use windlass_core::{Descriptor, Error, Result};

use super::documents::path;

/// How much of a blob is read at once, in bytes.
const PART: usize = 1 << 20;

/// An archive on its way to a writer.
pub(super) struct Archive<'a> {
    /// What is not written yet.
    tar: Writer<Vec<u8>>,
    into: &'a mut (dyn AsyncWrite + Unpin + Send),
    size: u64,
}

impl<'a> Archive<'a> {
    pub(super) fn new(into: &'a mut (dyn AsyncWrite + Unpin + Send)) -> Self {
        Self { tar: Writer::new(Vec::new()), into, size: 0 }
    }

    pub(super) async fn directory(&mut self, path: &str) -> Result<()> {
        let entry = Entry { path: path.into(), mode: 0o755, ..Entry::new(Kind::Directory) };
        self.tar.entry(&entry)?;
        self.flush().await
    }

    pub(super) async fn document(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.file(path, bytes.len() as u64)?;
        self.tar.data(bytes)?;
        self.flush().await
    }

    /// Writes a blob. Its bytes are compared with its digest while they pass.
    pub(super) async fn blob(&mut self, content: &dyn Provider, blob: &Descriptor, task: &Task) -> Result<()> {
        let reader = content.reader(blob).await?;
        let total = reader.size();
        if total != blob.size {
            return Err(Error::data_loss(format!("it has {total} bytes, and {} are said of it", blob.size)));
        }
        self.file(&path(blob), total)?;
        let mut hasher = blob.digest.algorithm().hasher();
        let mut offset = 0;
        while offset < total {
            task.set(State::Fetching { offset, total });
            let part = reader.read_at(offset, PART).await?;
            if part.is_empty() {
                return Err(Error::data_loss(format!("it ends at {offset} of its {total} bytes")));
            }
            hasher.update(&part);
            offset += part.len() as u64;
            self.tar.data(&part)?;
            self.flush().await?;
        }
        changed_at_rest(&blob.digest, &hasher.finish())
    }

    /// Ends the archive, and returns its size.
    pub(super) async fn finish(mut self) -> Result<u64> {
        let tar = std::mem::replace(&mut self.tar, Writer::new(Vec::new()));
        let rest = tar.finish()?;
        self.put(&rest).await?;
        self.into.flush().await.attempt(|| "write the archive".to_owned())?;
        Ok(self.size)
    }

    fn file(&mut self, path: &str, size: u64) -> Result<()> {
        let kind = Kind::Regular { size, sparse: false };
        self.tar.entry(&Entry { path: path.into(), mode: 0o444, ..Entry::new(kind) })
    }

    async fn flush(&mut self) -> Result<()> {
        let bytes = std::mem::take(self.tar.get_mut());
        self.put(&bytes).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.into.write_all(bytes).await.attempt(|| "write the archive".to_owned())?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}
