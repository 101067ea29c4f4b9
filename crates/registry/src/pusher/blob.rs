//! A blob as it is written to a registry.
//!
//! The bytes are hashed before they are sent, and the last of them are sent only when the digest is right. A blob goes in
//! one request; what is left of one after a cut goes in another, from where the registry says it stands. Where the registry
//! finds a request too large, smaller chunks are tried, for all that is pushed from then on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use windlass_core::content::{Commit, Info, Status, Writer};
use windlass_core::digest::Hasher;
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, Result, ResultExt as _};

use super::upload::{Carries, Session, piecewise, received};
use super::{Shared, check_digest};
use crate::client::Answer;

/// How much is handed to the connection at once, in bytes, and how many such pieces wait for it.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;
/// From how many bytes on hashing is kept off the threads that drive the network.
const LONG: usize = 64 << 10;
/// What is tried first where a whole blob is too large for one request, and the least that is worth trying, in bytes.
const FIRST_CHUNK: u64 = 32 << 20;
const LEAST_CHUNK: u64 = 64 << 10;

/// Writes a blob.
pub(super) struct BlobWriter {
    shared: Arc<Shared>,
    descriptor: Descriptor,
    /// None when the upload is to begin again.
    session: Option<Session>,
    sending: Option<Sending>,
    rolling: Option<Rolling>,
    /// What was answered when the blob became the registry's, and by whom.
    created: Option<(String, HeaderMap)>,
    started_at: SystemTime,
}

/// A request whose body is on its way.
struct Sending {
    pieces: mpsc::Sender<Bytes>,
    request: JoinSet<Result<Answer>>,
    carries: Carries,
    begin: u64,
    length: u64,
    sent: u64,
}

/// The digest of what was sent, each byte once.
struct Rolling {
    hasher: Hasher,
    hashed: u64,
}

impl Rolling {
    fn new(digest: &Digest) -> Self {
        Self { hasher: digest.algorithm().hasher(), hashed: 0 }
    }

    /// Hashes bytes that begin there, but for those that were hashed before they were sent for the first time.
    async fn update(mut self, at: u64, bytes: &Bytes) -> Result<Self> {
        let known = usize::try_from(self.hashed.saturating_sub(at)).unwrap_or(usize::MAX);
        let new = bytes.slice(known.min(bytes.len())..);
        if new.len() < LONG {
            self.hasher.update(&new);
            self.hashed += new.len() as u64;
            return Ok(self);
        }
        let hash = tokio::task::spawn_blocking(move || {
            self.hasher.update(&new);
            self.hashed += new.len() as u64;
            self
        });
        hash.await.map_err(|e| Error::internal("hashing panicked").source(e))
    }
}

/// An upload that was cut off and may be continued.
pub(super) struct Kept {
    session: Session,
    rolling: Rolling,
}

impl Kept {
    /// Takes an upload that has just begun.
    pub(super) fn new(session: Session, digest: &Digest) -> Self {
        Self { session, rolling: Rolling::new(digest) }
    }
}

impl BlobWriter {
    pub(super) fn new(shared: Arc<Shared>, descriptor: &Descriptor, kept: Kept) -> Self {
        let Kept { session, rolling } = kept;
        Self {
            shared,
            rolling: Some(rolling),
            descriptor: descriptor.clone(),
            session: Some(session),
            sending: None,
            created: None,
            started_at: SystemTime::now(),
        }
    }

    fn object(&self) -> String {
        format!("blob {}", self.descriptor.digest)
    }

    /// Returns how many bytes were handed over, when that is certain.
    fn offset(&self) -> Option<u64> {
        match (&self.sending, &self.session) {
            (Some(sending), _) => Some(sending.begin + sending.sent),
            (None, Some(session)) if session.certain => Some(session.offset),
            _ => None,
        }
    }

    /// Finds out where the upload stands, and begins another one when it stands nowhere.
    async fn recover(&mut self) -> Result<u64> {
        if self.rolling.is_none() {
            // A write was dropped while it was hashed: what was sent is of no use without its digest.
            self.give_up().await;
        }
        if let Some(offset) = self.offset() {
            return Ok(offset);
        }
        let hashed = self.rolling.as_ref().map_or(0, |rolling| rolling.hashed);
        let found = match &self.session {
            Some(session) => self.shared.stand(session).await?,
            None => None,
        };
        // What the registry has beyond what was hashed is not ours.
        let found = found.filter(|session| session.offset <= hashed.min(self.descriptor.size));
        let session = match found {
            Some(session) => session,
            None => self.shared.start(&self.descriptor.digest).await?,
        };
        if self.rolling.is_none() {
            self.rolling = Some(Rolling::new(&self.descriptor.digest));
        }
        let offset = session.offset;
        self.session = Some(session);
        Ok(offset)
    }

    /// Hashes bytes before they are sent; with the last of them the digest is known.
    async fn hash(&mut self, at: u64, bytes: &Bytes) -> Result<()> {
        let rolling = self.rolling.take().ok_or_else(|| Error::aborted("the digest of what was sent is not known"))?;
        let rolling = self.rolling.insert(rolling.update(at, bytes).await?);
        if rolling.hashed < self.descriptor.size {
            return Ok(());
        }
        let found = rolling.hasher.clone().finish();
        if found == self.descriptor.digest {
            return Ok(());
        }
        self.give_up().await;
        Err(Error::data_loss(format!("what was read of {} has the digest {found}", self.object()))
            .coded("source-mismatch")
            .hint("it is damaged where it was read from; nothing was left at the registry"))
    }

    /// Sends no more, and has the registry forget the upload.
    async fn give_up(&mut self) {
        self.sending = None;
        if let Some(session) = self.session.take() {
            self.shared.cancel(session, &self.descriptor.digest).await;
        }
    }

    /// Begins the request that takes what comes next.
    fn begin(&mut self, at: u64) -> Result<()> {
        let session = self.session.as_ref().ok_or_else(|| Error::aborted("the upload has ended"))?;
        let left = self.descriptor.size - at;
        let most = self.shared.most().map_or(u64::MAX, |most| most.max(session.minimum));
        let length = left.min(most);
        let carries = if at == 0 && length == left { Carries::Whole } else { Carries::Chunk { begin: at, length } };
        let (pieces, body) = piecewise(length, AHEAD);
        let (shared, session, digest) = (self.shared.clone(), session.clone(), self.descriptor.digest.clone());
        let mut request = JoinSet::new();
        request.spawn(async move { shared.send_body(&session, &digest, carries, body).await });
        self.sending = Some(Sending { pieces, request, carries, begin: at, length, sent: 0 });
        Ok(())
    }

    /// Hands bytes over, as many as the request takes that is on its way; returns the rest.
    async fn hand_over(&mut self, mut bytes: Bytes) -> Result<Bytes> {
        let Some(sending) = &mut self.sending else { return Ok(bytes) };
        while !bytes.is_empty() && sending.sent < sending.length {
            let room = usize::try_from(sending.length - sending.sent).unwrap_or(usize::MAX);
            let piece = bytes.split_to(bytes.len().min(PIECE).min(room));
            let length = piece.len() as u64;
            let early = tokio::select! {
                biased;
                ended = sending.request.join_next() => Some(ended),
                sent = sending.pieces.send(piece) => if sent.is_ok() { None } else { Some(sending.request.join_next().await) },
            };
            match early {
                None => sending.sent += length,
                Some(ended) => return Err(self.ended_early(ended.transpose()).await),
            }
        }
        Ok(bytes)
    }

    /// Says why a request ended before all of it was sent.
    async fn ended_early(&mut self, ended: Result<Option<Result<Answer>>, tokio::task::JoinError>) -> Error {
        match answer_of(ended) {
            Ok(answer) if answer.response.status().is_success() => {
                self.doubt();
                Error::unavailable(format!("{} answered before all of {} was sent", answer.host, self.object()))
                    .hint("run the command again; a proxy may be in between that does not pass uploads on")
            }
            Ok(answer) => self.refused(answer).await,
            Err(error) => {
                self.doubt();
                error
            }
        }
    }

    /// Takes note that it is not known where the upload stands.
    fn doubt(&mut self) {
        self.sending = None;
        if let Some(session) = &mut self.session {
            session.certain = false;
        }
    }

    /// Says why a body was not taken, and makes ready for another try where one may help.
    async fn refused(&mut self, answer: Answer) -> Error {
        let length = self.sending.as_ref().map_or(0, |sending| sending.length);
        let not_taken = self.shared.not_taken(&self.object(), answer).await;
        self.doubt();
        if not_taken.lost || not_taken.too_large {
            self.session = None;
        }
        if !not_taken.too_large {
            return not_taken.error;
        }
        let smaller = (length / 4).min(FIRST_CHUNK);
        if smaller < LEAST_CHUNK {
            return not_taken.error;
        }
        self.shared.most.store(smaller, Ordering::Relaxed);
        Error::unavailable(format!("{}; trying with requests of {smaller} bytes", not_taken.error))
    }

    /// Waits for the answer to a request whose body was sent.
    async fn finish(&mut self) -> Result<()> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let answer = match answer_of(sending.request.join_next().await.transpose()) {
            Ok(answer) => answer,
            Err(error) => {
                self.doubt();
                return Err(error);
            }
        };
        if !answer.response.status().is_success() {
            return Err(self.refused(answer).await);
        }
        let (carries, end) = (sending.carries, sending.begin + sending.length);
        self.sending = None;
        if carries == Carries::Whole {
            self.created = Some((answer.host, answer.response.headers().clone()));
            return Ok(());
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        (session.offset, session.certain) = (end, true);
        session.follow(&answer)?;
        match received(answer.response.headers()) {
            Some(there) if there != end && end > 1 => {
                session.certain = false;
                Err(Error::unavailable(format!("{} took {there} of {end} bytes of {}", answer.host, self.object())))
            }
            _ => Ok(()),
        }
    }

    /// Leaves the upload to the next writer of the same blob.
    fn keep(&mut self) {
        self.doubt();
        if let (Some(session), Some(rolling)) = (self.session.take(), self.rolling.take()) {
            self.shared.kept().insert(self.descriptor.digest.clone(), Kept { session, rolling });
        }
    }

    /// Ends an upload whose bytes are all there.
    async fn end(&mut self, object: &str) -> Result<(String, HeaderMap)> {
        let session = self.session.as_ref();
        let session = session.ok_or_else(|| Error::aborted(format!("the upload of {object} has ended")))?;
        let continued = session.continued;
        let answer = match self.shared.close(session, &self.descriptor.digest).await {
            Ok(answer) => answer,
            Err(error) => {
                self.doubt();
                return Err(error);
            }
        };
        if answer.response.status().is_success() {
            return Ok((answer.host, answer.response.headers().clone()));
        }
        let error = self.refused(answer).await;
        if !continued || !error.is(Kind::DataLoss) {
            return Err(error);
        }
        // The two sides disagreed about where it went on.
        self.session = None;
        Err(Error::unavailable(format!("{error}; beginning again")))
    }

    /// Makes the blob the registry's.
    async fn close(&mut self) -> Result<()> {
        self.finish().await?;
        let (digest, object) = (self.descriptor.digest.clone(), self.object());
        let (host, headers) = match self.created.take() {
            Some(created) => created,
            None => self.end(&object).await?,
        };
        check_digest(&host, &headers, &object, &digest)?;
        let present = self.shared.has_blob(&self.descriptor).await?;
        self.shared.confirm(present, &object)
    }
}

fn answer_of(ended: Result<Option<Result<Answer>>, tokio::task::JoinError>) -> Result<Answer> {
    match ended {
        Ok(Some(answered)) => answered,
        Ok(None) => Err(Error::aborted("the request has ended")),
        Err(error) => Err(Error::internal("a request panicked").source(error)),
    }
}

#[async_trait]
impl Writer for BlobWriter {
    async fn status(&mut self) -> Result<Status> {
        let offset = self.recover().await.context(|| format!("continue the upload of {}", self.object()))?;
        Ok(Status {
            ingest: self.descriptor.ingest_ref(),
            offset,
            total: Some(self.descriptor.size),
            expected: Some(self.descriptor.digest.clone()),
            started_at: self.started_at,
            updated_at: SystemTime::now(),
        })
    }

    async fn digest(&mut self) -> Result<Option<Digest>> {
        let offset = self.recover().await?;
        let rolling = self.rolling.as_ref().filter(|rolling| rolling.hashed == offset);
        Ok(rolling.map(|rolling| rolling.hasher.clone().finish()))
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut at = self.recover().await?;
        let total = self.descriptor.size;
        if at + bytes.len() as u64 > total {
            return Err(Error::out_of_range(format!("{} has more than the {total} bytes declared", self.object())));
        }
        self.hash(at, &bytes).await?;
        let mut left = bytes;
        while !left.is_empty() {
            if self.sending.is_none() {
                self.begin(at)?;
            }
            let before = left.len();
            left = self.hand_over(left).await?;
            at += (before - left.len()) as u64;
            let full = self.sending.as_ref().is_some_and(|sending| sending.sent == sending.length);
            if full && at < total {
                self.finish().await?;
            }
        }
        Ok(())
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        let at = self.recover().await?;
        match size {
            _ if size == at => Ok(()),
            0 => {
                self.give_up().await;
                self.rolling = Some(Rolling::new(&self.descriptor.digest));
                Ok(())
            }
            _ if size > at => Err(Error::out_of_range(format!("the upload of {} has {at} bytes", self.object()))),
            _ => Err(Error::failed_precondition(format!(
                "the upload of {} cannot be cut back, but to nothing",
                self.object()
            ))),
        }
    }

    async fn commit(mut self: Box<Self>, commit: Commit) -> Result<Info> {
        let Descriptor { digest, size, .. } = self.descriptor.clone();
        let expected = commit.expected;
        let other = expected.digest.is_some_and(|other| other != digest) || expected.size.is_some_and(|it| it != size);
        let at = self.recover().await?;
        if other || at != size {
            return Err(Error::failed_precondition(format!("{} has {at} of {size} bytes", self.object())));
        }
        if let Err(error) = self.close().await {
            if matches!(error.kind(), Kind::Unavailable | Kind::DeadlineExceeded) {
                self.keep();
            }
            return Err(error);
        }
        let now = SystemTime::now();
        Ok(Info { digest, size, created_at: now, updated_at: now, labels: Labels::new() })
    }
}
