//! `Write`: the server's half of the conversation that brings content.
//!
//! The first message names the ref and opens the ingest, which is locked from then on; size and digest can be declared with
//! it. Every message is then answered in turn:
//!
//! - `STAT` asks where the ingest stands.
//! - `WRITE` appends its bytes, which have to begin where the ingest ends; offset zero begins anew.
//! - [`WRITE_FILE`], of clients of ours, appends bytes of a file that the client has open.
//! - `COMMIT` appends its bytes, if any, and ends the conversation: the ingest is a blob, or the status says why not. For a client
//!   of ours it began when the record did: one that is new, with the labels that came with the commit, was also updated then.
//!
//! When the client ends the stream, or is gone, the writer is dropped at once: the ref is free, and what was written stays. So it is
//! when another call aborts the ingest of a client of others ([`Aborts`]).

use std::sync::Arc;
use std::time::SystemTime;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tonic::{Status, Streaming};
use windlass_core::content::{self, Commit, Expected, IngestRef, Store, Writer};
use windlass_core::{Digest, Error, Kind, Namespace, Result};
use windlass_proto::containerd::services::content::v1::{self as wire, WriteAction};

use super::aborts::{Abortable, Aborts};
use super::files::{Files, WRITE_FILE};
use super::{digest, digest_text, total};
use crate::error::to_status;
use crate::{time, wire as messages};

/// The answers of a conversation. A message is read when the answer to the one before has been taken.
pub(super) type Answers = stream::BoxStream<'static, Result<wire::WriteContentResponse, Status>>;

/// Which rules a client expects where containerd's differ from the contract's: [`has_contract`](crate::scope::has_contract).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    Containerd,
    Contract,
}

/// Where bytes are brought to.
pub(super) struct Place {
    pub(super) store: Arc<dyn Store>,
    pub(super) namespace: Namespace,
    pub(super) aborts: Aborts,
    /// What the client has open.
    pub(super) files: Files,
}

/// Answers the messages of a client.
pub(super) fn write(place: Place, messages: Streaming<wire::WriteContentRequest>, manners: Manners) -> Answers {
    let phase = Phase::Opening(place, manners);
    converse(messages, phase).boxed()
}

/// Where a conversation is.
enum Phase {
    Opening(Place, Manners),
    Open(Box<Session>),
    /// After a commit.
    Over,
}

fn converse(
    messages: Streaming<wire::WriteContentRequest>,
    phase: Phase,
) -> impl Stream<Item = Result<wire::WriteContentResponse, Status>> + Send {
    stream::try_unfold((messages, phase), async |(mut messages, phase)| {
        if matches!(phase, Phase::Over) {
            return Ok(None);
        }
        let next = messages.try_next();
        let next = match &phase {
            Phase::Open(session) => session.unless_aborted(next).await,
            _ => next.await,
        };
        let Some(message) = next? else { return Ok(None) };
        // When this fails the session is dropped, and with it the lock, before the client hears of it.
        let answered = answer(phase, message).await;
        let (answer, phase) = answered.map_err(|error| to_status(&error))?;
        Ok(Some((answer, (messages, phase))))
    })
}

async fn answer(phase: Phase, message: wire::WriteContentRequest) -> Result<(wire::WriteContentResponse, Phase)> {
    let session = match phase {
        Phase::Opening(place, manners) => Session::open(place, manners, &message).await?,
        Phase::Open(mut session) => {
            session.declare(&message)?;
            if !message.expected.is_empty() {
                session = session.unless_here().await?;
            }
            session
        }
        Phase::Over => return Err(Error::internal("a message came after the commit")),
    };
    session.answer(message).await
}

/// An open ingest.
struct Session {
    store: Arc<dyn Store>,
    manners: Manners,
    ingest: IngestRef,
    writer: Box<dyn Writer>,
    /// Says that the writer is no more, so it goes behind it.
    abortable: Option<Abortable>,
    files: Files,
    /// Where the ingest ends.
    offset: u64,
    started_at: SystemTime,
    /// What was declared, by any message so far.
    expected: Expected,
}

impl Session {
    async fn open(place: Place, manners: Manners, first: &wire::WriteContentRequest) -> Result<Box<Self>> {
        let Place { store, namespace, aborts, files } = place;
        if first.r#ref.is_empty() {
            return Err(Error::invalid_argument("first message must have a reference"));
        }
        let ingest: IngestRef = first.r#ref.parse()?;
        let expected = Expected { digest: digest(&first.expected)?, size: total(first.total)? };
        let mut writer = store.writer(&ingest, expected.clone()).await?;
        let content::Status { offset, total, expected: digest, started_at, .. } = writer.status().await?;
        // What was declared when the ingest began counts for an opener who says nothing.
        let expected = Expected { digest: expected.digest.or(digest), size: expected.size.or(total) };
        let abortable = (manners == Manners::Containerd).then(|| aborts.enter(namespace, ingest.clone()));
        Ok(Box::new(Self { store, manners, ingest, writer, abortable, files, offset, started_at, expected }))
    }

    /// Waits for a message, unless the ingest is aborted before.
    async fn unless_aborted<T>(&self, message: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let Some(abortable) = &self.abortable else { return message.await };
        tokio::select! {
            message = message => message,
            () = abortable.asked() => {
                Err(to_status(&Error::aborted(format!("ingest {} was aborted by another call", self.ingest))))
            }
        }
    }

    /// Takes what a later message declares.
    fn declare(&mut self, message: &wire::WriteContentRequest) -> Result<()> {
        if let Some(digest) = digest(&message.expected)? {
            self.expected.digest = Some(digest);
        }
        if let Some(total) = total(message.total)? {
            self.expected.size = Some(total);
        }
        Ok(())
    }

    /// Goes on unless the content is here already, which nobody needs to bring again.
    async fn unless_here(self: Box<Self>) -> Result<Box<Self>> {
        let Some(digest) = &self.expected.digest else { return Ok(self) };
        match self.store.info(digest).await {
            Err(error) if error.is(Kind::NotFound) => Ok(self),
            Err(error) => Err(error),
            Ok(info) => {
                let Self { store, ingest, writer, .. } = *self;
                drop(writer);
                if let Err(error) = store.abort(&ingest).await {
                    tracing::debug!(%ingest, %error, "an ingest of content that is here was not discarded");
                }
                Err(Error::already_exists(format!("blob with expected digest {} exists", info.digest)))
            }
        }
    }

    async fn answer(
        mut self: Box<Self>,
        message: wire::WriteContentRequest,
    ) -> Result<(wire::WriteContentResponse, Phase)> {
        match WriteAction::try_from(message.action) {
            Ok(WriteAction::Stat) => {
                let answer = self.stat().await?;
                Ok((answer, Phase::Open(self)))
            }
            Ok(WriteAction::Write) => {
                self.append(message).await?;
                let digest = self.digest().await?;
                Ok((self.said(WriteAction::Write, digest.as_ref(), SystemTime::now()), Phase::Open(self)))
            }
            Ok(WriteAction::Commit) => {
                let labels = messages::labels(message.labels.clone());
                self.append(message).await?;
                let answer = self.commit(labels).await?;
                Ok((answer, Phase::Over))
            }
            Err(_) if message.action == WRITE_FILE && self.manners == Manners::Contract => {
                let answer = self.append_file(&message).await?;
                Ok((answer, Phase::Open(self)))
            }
            Err(_) => Err(Error::invalid_argument(format!("{} is no action of a write", message.action))),
        }
    }

    async fn stat(&mut self) -> Result<wire::WriteContentResponse> {
        let status = self.writer.status().await?;
        self.offset = status.offset;
        let digest = self.digest().await?;
        Ok(self.said(WriteAction::Stat, digest.as_ref(), status.updated_at))
    }

    /// Returns the digest of what is here so far, where the client expects one.
    async fn digest(&mut self) -> Result<Option<Digest>> {
        match self.manners {
            Manners::Containerd => self.writer.digest().await,
            Manners::Contract => Ok(None),
        }
    }

    /// Appends the bytes of a message, where it says.
    async fn append(&mut self, message: wire::WriteContentRequest) -> Result<()> {
        self.stand_at(message.offset).await?;
        if !message.data.is_empty() {
            let length = message.data.len() as u64;
            self.writer.write(message.data).await?;
            self.offset += length;
        }
        Ok(())
    }

    /// Appends the part of a file that a message is about, where it says, if the file can be had.
    async fn append_file(&mut self, message: &wire::WriteContentRequest) -> Result<wire::WriteContentResponse> {
        self.stand_at(message.offset).await?;
        let (file, part) = self.files.find(&message.data)?;
        let length = part.end - part.start;
        let appended = match file {
            Some(file) => self.writer.write_file(&file, part).await?,
            None => false,
        };
        if !appended {
            return self.stat().await;
        }
        self.offset += length;
        let answer = self.said(WriteAction::Write, None, SystemTime::now());
        Ok(wire::WriteContentResponse { action: WRITE_FILE, ..answer })
    }

    /// Goes to where a message is to be written.
    async fn stand_at(&mut self, offset: i64) -> Result<()> {
        let at = messages::size("the offset of a write,", offset)?;
        if at != self.offset {
            if at > self.offset || at > 0 && self.manners == Manners::Containerd {
                return Err(Error::out_of_range(format!("write @{at} must occur at current offset {}", self.offset)));
            }
            self.writer.truncate(at).await?;
            self.offset = at;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, labels: windlass_core::Labels) -> Result<wire::WriteContentResponse> {
        if self.manners == Manners::Containerd {
            self.check().await?;
        }
        let Self { writer, expected, manners, ingest, started_at, .. } = *self;
        let info = writer.commit(Commit { expected, labels }).await;
        let info = info.map_err(|error| match (error.kind(), manners) {
            // The only class that containerd has for it.
            (Kind::DataLoss, Manners::Containerd) => Error::failed_precondition(error.to_string()),
            _ => error.context(format!("write {ingest}")),
        })?;
        let size = messages::size_number(info.size);
        let begun_at = match manners {
            Manners::Containerd => started_at,
            Manners::Contract => info.created_at,
        };
        Ok(wire::WriteContentResponse {
            action: WriteAction::Commit.into(),
            started_at: time::to_wire(begun_at),
            updated_at: time::to_wire(info.updated_at),
            offset: size,
            total: size,
            digest: info.digest.to_string(),
        })
    }

    /// Compares what is here with what is expected, before the commit would discard it for a difference: whoever sent the
    /// wrong expectation can send another one.
    async fn check(&mut self) -> Result<()> {
        let wrong = |what: String| Error::failed_precondition(format!("commit of ingest {}: {what}", self.ingest));
        if let Some(size) = self.expected.size.filter(|size| *size != self.offset) {
            return Err(wrong(format!("unexpected size {}, expected {size}", self.offset)));
        }
        let Some(expected) = &self.expected.digest else { return Ok(()) };
        match self.writer.digest().await? {
            Some(found) if found.algorithm() == expected.algorithm() && found != *expected => {
                Err(wrong(format!("unexpected digest {found}, expected {expected}")))
            }
            _ => Ok(()),
        }
    }

    fn said(&self, action: WriteAction, digest: Option<&Digest>, updated_at: SystemTime) -> wire::WriteContentResponse {
        wire::WriteContentResponse {
            action: action.into(),
            started_at: time::to_wire(self.started_at),
            updated_at: time::to_wire(updated_at),
            offset: messages::size_number(self.offset),
            total: messages::size_number(self.expected.size.unwrap_or_default()),
            digest: digest_text(digest),
        }
    }
}
