//! The client's half of `Write`: an ingest of a daemon.
//!
//! Messages are sent without waiting for the answers to those before, as many as [`WINDOW`] and [`MESSAGES`] allow. A task
//! takes the answers, so that the conversation comes to its end in good order when the writer is dropped: what was sent is
//! written, and the ref is free.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::mpsc;
use prost::Message as _;
use tonic::Streaming;
use windlass_core::content::{Commit, Expected, Info, IngestRef, Status, Store as _, Writer};
use windlass_core::{Digest, Error, Kind, Result, ResultExt as _};
use windlass_proto::containerd::services::content::v1::{self as wire, WriteAction};

use super::files::{self, WRITE_FILE};
use super::remote::Remote;
use super::writers::{Conversation, Listed, Progress};
use super::{CHUNK, digest, digest_text, total};
use crate::error::from_status;
use crate::{scope, time, wire as messages};

/// How many bytes may be on their way, unanswered.
const WINDOW: u64 = 8 << 20;
/// How many messages may be on their way, unanswered.
const MESSAGES: u64 = 256;
/// How many bytes of a file a message is about.
const FILE_PART: u64 = 2 << 20;

/// A writer of one ingest of a daemon.
pub(super) struct RemoteWriter {
    remote: Remote,
    ingest: IngestRef,
    /// What was declared by this opener.
    declared: Expected,
    /// How many bytes there may be, by whoever declared it.
    total: Option<u64>,
    /// Where the ingest ends when the daemon has done what was sent.
    offset: u64,
    /// Whether the daemon follows the contract where containerd does not.
    contract: bool,
    /// Whether the daemon reads files that this process has open; none before it was asked.
    reads_files: Option<bool>,
    /// The file that it reads: open for as long as it is asked to.
    file: Option<Arc<File>>,
    messages: mpsc::UnboundedSender<wire::WriteContentRequest>,
    conversation: Arc<Conversation>,
}

impl RemoteWriter {
    pub(super) async fn open(remote: Remote, ingest: IngestRef, declared: Expected) -> Result<Self> {
        let (messages, outbound) = mpsc::unbounded();
        let first = wire::WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: ingest.to_string(),
            total: messages::size_number(declared.size.unwrap_or_default()),
            expected: digest_text(declared.digest.as_ref()),
            ..wire::WriteContentRequest::default()
        };
        let _ = messages.unbounded_send(first);
        let mut request = scope::request(&remote.scope, outbound)?;
        scope::say_contract(request.metadata_mut());
        let response = remote.client.clone().write(request).await.map_err(|status| from_status(&status))?;
        let contract = scope::has_contract(response.metadata());
        let mut answers = response.into_inner();
        let first =
            answers.message().await.map_err(|status| from_status(&status))?.ok_or_else(|| unanswered(&ingest))?;
        let offset = messages::size("the offset of an ingest,", first.offset)?;
        let total = total(first.total)?.or(declared.size);
        let conversation = Conversation::begin(first);
        let listed = remote.writers.list(remote.scope.namespace.clone(), ingest.clone(), conversation.clone());
        tokio::spawn(listen(answers, conversation.clone(), listed));
        let (reads_files, file) = (Some(false).filter(|_| !contract), None);
        Ok(Self { remote, ingest, declared, total, offset, contract, reads_files, file, messages, conversation })
    }

    /// Sends a message; when the conversation has ended nobody takes it, which the next wait tells.
    fn send(&self, message: wire::WriteContentRequest) -> u64 {
        let number = self.conversation.send_one();
        let _ = self.messages.unbounded_send(message);
        number
    }

    fn message(&self, action: impl Into<i32>, data: Bytes) -> wire::WriteContentRequest {
        wire::WriteContentRequest {
            action: action.into(),
            offset: messages::size_number(self.offset),
            data,
            ..wire::WriteContentRequest::default()
        }
    }

    /// Waits until something holds of the progress.
    ///
    /// # Errors
    /// How the conversation ended before.
    async fn until(&self, holds: impl Fn(&Progress) -> bool) -> Result<Progress> {
        let progress = self.conversation.until(&holds).await;
        match &progress.end {
            Some(Err(status)) => Err(from_status(status)),
            Some(Ok(())) if !holds(&progress) => Err(unanswered(&self.ingest)),
            _ => Ok(progress),
        }
    }

    /// Waits until everything that was sent is answered.
    async fn flush(&self) -> Result<Progress> {
        let sent = self.conversation.sent();
        self.until(|progress| progress.answered >= sent).await
    }

    /// Waits until so much has been done of what was sent that there is room for more.
    async fn make_room(&self, length: u64) -> Result<()> {
        let (sent, end) = (self.conversation.sent(), self.offset.saturating_add(length));
        let room = |progress: &Progress| {
            let done = u64::try_from(progress.last.offset).unwrap_or_default();
            // What is larger than the window goes alone.
            progress.answered >= sent || end.saturating_sub(done) <= WINDOW && sent - progress.answered < MESSAGES
        };
        self.until(room).await.map(drop)
    }

    fn check_room(&self, more: u64) -> Result<()> {
        let after = self.offset.saturating_add(more);
        match self.total.filter(|total| after > *total) {
            Some(total) => Err(Error::out_of_range(format!(
                "ingest {} would have {after} bytes, {total} are declared",
                self.ingest
            ))),
            None => Ok(()),
        }
    }

    /// Returns the error that a daemon which does not follow the contract means by a refused commit, and discards the ingest,
    /// whose bytes will not become right.
    async fn refused(&self, error: Error, expected: &Expected) -> Error {
        if self.contract || !error.is(Kind::FailedPrecondition) {
            return error;
        }
        if let Err(kept) = self.remote.discard(&self.ingest).await
            && !kept.is(Kind::NotFound)
        {
            return error.context(format!("ingest {} stays behind ({kept})", self.ingest));
        }
        let sizes = [expected.size, self.declared.size];
        let right = sizes.into_iter().flatten().all(|size| size == self.offset);
        if right { Error::data_loss(error.to_string()) } else { error }
    }
}

/// Takes the answers of a daemon until it has ended the conversation.
async fn listen(mut answers: Streaming<wire::WriteContentResponse>, conversation: Arc<Conversation>, listed: Listed) {
    let end = loop {
        match answers.message().await {
            Ok(Some(answer)) => conversation.answered(answer),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    listed.end(end);
}

fn unanswered(ingest: &IngestRef) -> Error {
    Error::unavailable(format!("the daemon ended the write of ingest {ingest} without an answer"))
        .hint("open the ingest again: it continues")
}

#[async_trait]
impl Writer for RemoteWriter {
    async fn status(&mut self) -> Result<Status> {
        // The conversation does not tell which digest was declared.
        if !self.contract || self.declared.digest.is_none() {
            self.flush().await?;
            match self.remote.told_status(&self.ingest).await {
                // containerd writes no ingest for bytes that it still has, and the conversation stands at their end.
                Err(error) if error.is(Kind::NotFound) && !self.contract => {}
                told => {
                    let told = told?;
                    let expected = told.expected.or_else(|| self.declared.digest.clone());
                    return Ok(Status { total: told.total.or(self.total), expected, ..told });
                }
            }
        }
        if self.conversation.sent() > 1 {
            self.send(self.message(WriteAction::Stat, Bytes::new()));
        }
        let last = self.flush().await?.last;
        Ok(Status {
            ingest: self.ingest.clone(),
            offset: messages::size("the offset of an ingest,", last.offset)?,
            total: total(last.total)?,
            expected: self.declared.digest.clone(),
            started_at: time::from_wire(last.started_at)?,
            updated_at: time::from_wire(last.updated_at)?,
        })
    }

    async fn digest(&mut self) -> Result<Option<Digest>> {
        if self.contract {
            return Ok(None);
        }
        self.send(self.message(WriteAction::Stat, Bytes::new()));
        digest(&self.flush().await?.last.digest)
    }

    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.check_room(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(CHUNK));
            let length = part.len() as u64;
            self.make_room(length).await?;
            self.send(self.message(WriteAction::Write, part));
            self.offset += length;
        }
        Ok(())
    }

    async fn write_file(&mut self, file: &Arc<File>, range: Range<u64>) -> Result<bool> {
        let length = range.end.saturating_sub(range.start);
        if self.reads_files == Some(false) || length < CHUNK as u64 {
            return Ok(false);
        }
        let Some(mut part) = files::describe(file) else { return Ok(false) };
        self.check_room(length)?;
        self.file = Some(file.clone());
        part.begin = range.start;
        while part.begin < range.end {
            // None of them is too short to be read there.
            let rest = range.end - part.begin;
            part.length = if rest < FILE_PART + CHUNK as u64 { rest } else { FILE_PART };
            self.make_room(part.length).await?;
            self.send(self.message(WRITE_FILE, part.encode_to_vec().into()));
            if self.reads_files.is_none() {
                let reads = self.flush().await?.last.action == WRITE_FILE;
                self.reads_files = Some(reads);
                if !reads {
                    return Ok(false);
                }
            }
            self.offset += part.length;
            part.begin += part.length;
        }
        Ok(true)
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        if size > self.offset {
            return Err(Error::out_of_range(format!(
                "ingest {} has {} bytes and cannot be cut back to {size}",
                self.ingest, self.offset
            )));
        }
        if size == self.offset {
            return Ok(());
        }
        if size > 0 && !self.contract {
            return Err(Error::unimplemented(format!(
                "the daemon cannot cut ingest {} back to {size} bytes, only to none",
                self.ingest
            ))
            .hint("cut it back to nothing, or discard it, and bring all of it"));
        }
        self.flush().await?;
        self.offset = size;
        self.send(self.message(WriteAction::Write, Bytes::new()));
        self.flush().await.map(drop)
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<Info> {
        let attempt = || format!("commit ingest {}", self.ingest);
        if !self.contract {
            // What went wrong before is not taken for a refused commit.
            self.flush().await.context(attempt)?;
        }
        let Commit { expected, labels } = commit;
        let last = self.send(wire::WriteContentRequest {
            total: messages::size_number(expected.size.unwrap_or_default()),
            expected: digest_text(expected.digest.as_ref()),
            labels: messages::label_map(labels.clone()),
            ..self.message(WriteAction::Commit, Bytes::new())
        });
        let answer = match self.until(|progress| progress.answered >= last).await {
            Ok(progress) => progress.last,
            Err(error) => return Err(self.refused(error, &expected).await),
        };
        let digest = digest(&answer.digest)?.ok_or_else(|| unanswered(&self.ingest))?;
        if self.contract && answer.started_at == answer.updated_at {
            // A new record, of which the client has said the rest itself.
            let (size, at) =
                (messages::size("the size of a blob,", answer.offset)?, time::from_wire(answer.updated_at)?);
            return Ok(Info { digest, size, created_at: at, updated_at: at, labels });
        }
        match self.remote.info(&digest).await {
            // It was committed, and collected since: nothing refers to it.
            Err(error) if error.is(Kind::NotFound) => {
                let now = SystemTime::now();
                Ok(Info { digest, size: self.offset, created_at: now, updated_at: now, labels })
            }
            info => info.context(attempt),
        }
    }
}

impl Drop for RemoteWriter {
    /// Ends the conversation; the daemon does what was sent, and the ref is free.
    fn drop(&mut self) {
        self.conversation.leave();
        self.messages.close_channel();
    }
}
