//! A blob of a daemon, opened for reading at any offset.
//!
//! Every read is a call of its own, until two of them follow each other: then a call asks for [`WINDOW`] bytes at once, a
//! task takes them, and the reads that follow are answered from there. A reader keeps a window at most, and an idle one holds
//! up nobody else on the connection.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::{Mutex, mpsc};
use tonic::Streaming;
use windlass_core::content::ReaderAt;
use windlass_core::{Digest, Error, Result, ResultExt as _};
use windlass_proto::containerd::services::content::v1 as wire;

use super::remote::Remote;
use crate::error::{Answer as _, from_status};
use crate::{scope, wire as messages};

/// How many bytes are asked for ahead of the reads that follow each other.
const WINDOW: u64 = 4 << 20;

/// An open blob of a daemon. It is the daemon's to keep: what is deleted there cannot be read on.
pub(super) struct Reader {
    remote: Remote,
    digest: Digest,
    size: u64,
    ahead: Mutex<Ahead>,
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
        Self { remote, digest, size, ahead: Mutex::default() }
    }

    async fn call(&self, offset: u64, size: u64) -> Result<Streaming<wire::ReadContentResponse>> {
        let digest = self.digest.to_string();
        let (offset, size) = (messages::size_number(offset), messages::size_number(size));
        let request = scope::request(&self.remote.scope, wire::ReadContentRequest { digest, offset, size })?;
        self.remote.client.clone().read(request).await.answer()
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

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let attempt = || format!("read blob {} at {offset}", self.digest);
        // Whoever reads beside somebody else does not read on.
        let Ok(mut ahead) = self.ahead.try_lock() else {
            return self.read_once(offset, length).await.context(attempt);
        };
        if offset == ahead.next && offset > 0 {
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
