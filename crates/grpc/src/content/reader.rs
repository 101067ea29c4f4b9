//! A blob of a daemon, opened for reading at any offset.
//!
//! Every read is a call of its own, until two of them follow each other: then the daemon is asked in which file the blob is, which is
//! read here from then on. Where that does not work a call asks for [`WINDOW`] bytes at once, a
//! task takes them, and the reads that follow are answered from there. A reader keeps a window at most, and an idle one holds
//! up nobody else on the connection.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::sync::{Mutex, OnceCell, mpsc};
use tonic::{Request, Streaming};
use windlass_core::content::{InFile, ReaderAt};
use windlass_core::error::IoResultExt as _;
use windlass_core::{Digest, Error, Result, ResultExt as _};
use windlass_proto::containerd::services::content::v1 as wire;

use super::files;
use super::remote::Remote;
use crate::error::{Answer as _, from_status};
use crate::{scope, wire as messages};

/// How many bytes are asked for ahead of the reads that follow each other.
const WINDOW: u64 = 4 << 20;
/// How many bytes are worth the call that asks in which file they are.
const WORTH_A_FILE: u64 = 1 << 20;

/// An open blob of a daemon. It is the daemon's to keep: what is deleted there cannot be read on, unless its file is open here by then.
pub(super) struct Reader {
    remote: Remote,
    digest: Digest,
    size: u64,
    ahead: Mutex<Ahead>,
    /// The file of the blob, if it can be read here, once the daemon was asked.
    file: OnceCell<Option<InFile>>,
}

/// What comes ahead of reads that follow each other.
#[derive(Default)]
struct Ahead {
    /// Where the next read has to begin to be one that follows.
    next: u64,
    /// What has come and was not read, from there on.
    left: Bytes,
    /// What else of the window comes, and how many bytes of it that is.
    coming: Option<(mpsc::UnboundedReceiver<Result<Bytes>>, u64)>,
}

impl Reader {
    pub(super) fn new(remote: Remote, digest: Digest, size: u64) -> Self {
        Self { remote, digest, size, ahead: Mutex::default(), file: OnceCell::new() }
    }

    fn request(&self, offset: u64, size: u64) -> Result<Request<wire::ReadContentRequest>> {
        let digest = self.digest.to_string();
        let (offset, size) = (messages::size_number(offset), messages::size_number(size));
        scope::request(&self.remote.scope, wire::ReadContentRequest { digest, offset, size })
    }

    async fn call(&self, offset: u64, size: u64) -> Result<Streaming<wire::ReadContentResponse>> {
        self.remote.client.clone().read(self.request(offset, size)?).await.answer()
    }

    /// Opens the file of the blob, if this process can read it.
    async fn find_file(&self) -> Option<InFile> {
        let process = self.remote.peer.process()?;
        // Who does not know what is asked for sends a byte.
        let mut request = self.request(0, 1).ok()?;
        files::ask(request.metadata_mut());
        // What is wrong with the call is wrong with the next one, too.
        let answer = self.remote.client.clone().read(request).await.ok()?;
        let Some(part) = files::offered(answer.metadata()) else {
            self.remote.peer.leave();
            return None;
        };
        let duplicated = files::duplicate(process, &part);
        // Only now may the daemon close it.
        drop(answer);
        let file = duplicated.unwrap_or_else(|error| {
            tracing::debug!(%error, "the daemon's file cannot be read from here, so its bytes are to be sent");
            self.remote.peer.leave();
            None
        });
        let file = file.filter(|_| part.length == self.size)?;
        Some(InFile { file: Arc::new(file), begin: part.begin })
    }

    /// Reads from the file.
    async fn read_file(&self, InFile { file, begin }: InFile, offset: u64, length: usize) -> Result<Bytes> {
        let read = move || {
            // Memory that nobody has to clear before.
            let mut part = Vec::with_capacity(length);
            while part.len() < length {
                let at = begin.saturating_add(offset).saturating_add(part.len() as u64);
                match rustix::io::pread(&*file, spare_capacity(&mut part), at) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            part.truncate(length);
            Ok(part.into())
        };
        let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        read.attempt(|| "read the daemon's file".to_owned())
    }

    fn short(&self, offset: u64) -> Error {
        Error::data_loss(format!(
            "the daemon has blob {} of {} bytes, and sends none at {offset}",
            self.digest, self.size
        ))
    }

    /// Reads by a call of its own.
    async fn read_once(&self, offset: u64, length: usize) -> Result<Bytes> {
        let mut parts = self.call(offset, length as u64).await?;
        let mut read = Parts::default();
        while read.length < length {
            let part = parts.message().await.map_err(|status| from_status(&status))?;
            read.push(part.ok_or_else(|| self.short(offset + read.length as u64))?.data, length);
        }
        Ok(read.join())
    }

    /// Reads what follows the read before.
    async fn read_on(&self, ahead: &mut Ahead, length: usize) -> Result<Bytes> {
        let mut read = Parts::default();
        while read.length < length {
            if ahead.left.is_empty() {
                ahead.left = self.next_part(ahead).await?;
                continue;
            }
            let part = ahead.left.split_to(ahead.left.len().min(length - read.length));
            ahead.next += part.len() as u64;
            read.push(part, length);
        }
        Ok(read.join())
    }

    async fn next_part(&self, ahead: &mut Ahead) -> Result<Bytes> {
        let (mut coming, rest) = if let Some(coming) = ahead.coming.take() {
            coming
        } else {
            let window = WINDOW.min(self.size.saturating_sub(ahead.next));
            let parts = self.call(ahead.next, window).await?;
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(take(parts, window, sender));
            (receiver, window)
        };
        let part = coming.recv().await.unwrap_or_else(|| Err(self.short(ahead.next)))?;
        let rest = rest.saturating_sub(part.len() as u64);
        ahead.coming = (rest > 0).then_some((coming, rest));
        Ok(part)
    }
}

impl Ahead {
    /// Tells whether nothing has come, or is to come.
    fn is_empty(&self) -> bool {
        self.left.is_empty() && self.coming.is_none()
    }
}

/// Takes the parts of a window from the connection, whether they are read or not: what is left there holds up others.
async fn take(
    mut parts: Streaming<wire::ReadContentResponse>,
    window: u64,
    sender: mpsc::UnboundedSender<Result<Bytes>>,
) {
    let mut rest = window;
    while rest > 0 {
        let part = tokio::select! {
            part = parts.message() => part,
            // The reader is gone, or reads elsewhere.
            () = sender.closed() => return,
        };
        let part = match part {
            Ok(Some(part)) => Ok(part.data),
            Ok(None) => return,
            Err(status) => Err(from_status(&status)),
        };
        // A daemon that sends more than was asked for is not listened to.
        rest = part.as_ref().map_or(0, |part| rest.saturating_sub(part.len() as u64));
        if sender.send(part).is_err() {
            return;
        }
    }
}

/// The parts of one read. One that came whole is not copied.
#[derive(Default)]
struct Parts {
    first: Bytes,
    more: BytesMut,
    length: usize,
}

impl Parts {
    /// Adds a part, as far as it is wanted.
    fn push(&mut self, mut part: Bytes, wanted: usize) {
        part.truncate(wanted - self.length);
        if self.length == 0 {
            self.length = part.len();
            self.first = part;
            return;
        }
        if self.more.is_empty() {
            self.more.reserve(wanted);
            self.more.extend_from_slice(&self.first);
        }
        self.length += part.len();
        self.more.extend_from_slice(&part);
    }

    fn join(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

#[async_trait]
impl ReaderAt for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn in_file(&self) -> Option<InFile> {
        self.file.get().cloned().flatten()
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let attempt = || format!("read blob {} at {offset}", self.digest);
        if let Some(Some(file)) = self.file.get() {
            return self.read_file(file.clone(), offset, length).await.context(attempt);
        }
        // Whoever reads beside somebody else does not read on.
        let Ok(mut ahead) = self.ahead.try_lock() else {
            return self.read_once(offset, length).await.context(attempt);
        };
        if offset == ahead.next && offset > 0 {
            let is_worth_it = ahead.is_empty() && self.size - offset >= WORTH_A_FILE;
            if is_worth_it && let Some(file) = self.file.get_or_init(|| self.find_file()).await {
                return self.read_file(file.clone(), offset, length).await.context(attempt);
            }
            let read = self.read_on(&mut ahead, length).await;
            if read.is_err() {
                *ahead = Ahead::default();
            }
            return read.context(attempt);
        }
        *ahead = Ahead { next: offset + length as u64, ..Ahead::default() };
        drop(ahead);
        self.read_once(offset, length).await.context(attempt)
    }
}
