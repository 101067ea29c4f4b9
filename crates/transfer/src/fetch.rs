//! Fetching: small documents from a remote into the content store, whole and verified; and what every fetch needs.
//! Large blobs are downloads.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use windlass_core::claim::Claims;
use windlass_core::content::{self, Commit, ProviderExt, Writer};
use windlass_core::document::{ImageConfig, Root};
use windlass_core::field::FieldMask;
use windlass_core::progress::{State, Task, Tracker};
use windlass_core::remote::{ByteRange, Fetcher, Trouble};
use windlass_core::room::Room;
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, Leased, Namespace, Result, ResultExt};

use crate::documents;
use crate::inlined::Inlined;
use crate::parts::Parts;

/// How often a blob is tried again without a byte of progress in between.
const MAX_IDLE_RETRIES: u32 = 4;
/// How much has to come of a blob from a place that was too slow, for it not to count as a failure, in bytes.
const ENOUGH: u64 = 1 << 20;
/// The wait before the first retry; it doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest wait that somebody who is asked can ask for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// The code of a document that has more bytes than are accepted.
const TOO_LARGE: &str = "too-large";
/// How long to wait before asking again whether another writer is done.
pub(crate) const POLL: Duration = Duration::from_millis(100);
/// How often it is tried to discard an ingest that is still held.
const DISCARD_TRIES: u32 = 5;

/// What a fetch needs: where from, where to, whom to tell. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetch {
    pub(crate) content: Arc<dyn content::Store>,
    pub(crate) fetcher: Arc<dyn Fetcher>,
    pub(crate) progress: Tracker,
    pub(crate) room: Arc<dyn Room>,
    /// Labels of every new blob: where it came from.
    pub(crate) labels: Labels,
    /// How large blobs are split.
    pub(crate) parts: Parts,
    pub(crate) claims: Claims,
    pub(crate) namespace: Namespace,
    /// Who fetches, for others who wait.
    pub(crate) by: Arc<str>,
}

impl Fetch {
    /// Makes what brings content under a lease; `by` is what others are told who wait for it.
    pub(crate) fn new(
        leased: &Leased,
        fetcher: Arc<dyn Fetcher>,
        labels: Labels,
        by: String,
        progress: &Tracker,
    ) -> Self {
        Self {
            content: leased.content.clone(),
            fetcher: Arc::new(Inlined(fetcher)),
            progress: progress.clone(),
            room: leased.room.clone(),
            labels,
            parts: Parts::default(),
            claims: leased.claims.clone(),
            namespace: leased.scope.namespace.clone(),
            by: by.into(),
        }
    }

    /// Tells whether a blob is here.
    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool> {
        match self.content.info(digest).await {
            Ok(_) => Ok(true),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns an index or a manifest, from here or from the remote, and sees to it that its record keeps what it
    /// refers to alive.
    pub(crate) async fn root(&self, descriptor: &Descriptor) -> Result<Root> {
        let parse = |bytes: &[u8]| {
            let root = Root::parse(descriptor, bytes)?;
            let labels = root.child_labels();
            Ok((root, labels))
        };
        self.document(descriptor, parse).await
    }

    /// Returns an image config, from here or from the remote.
    pub(crate) async fn config(&self, descriptor: &Descriptor) -> Result<ImageConfig> {
        self.document(descriptor, |bytes| Ok((ImageConfig::parse(descriptor, bytes)?, Labels::new()))).await
    }

    /// Brings a small blob here, whole, verified and parsed; one that does not parse is not stored.
    async fn document<T>(&self, descriptor: &Descriptor, parse: impl Fn(&[u8]) -> Result<(T, Labels)>) -> Result<T> {
        let task = self.progress.task(descriptor.ingest_ref().as_str());
        let brought = async {
            // Opening answers whether it is here, and from then on the lease holds it.
            let stored = match self.open(descriptor, &task).await? {
                Some(writer) => return self.new_document(descriptor, &task, writer, &parse).await,
                None => self.stored(descriptor).await?,
            };
            let bytes = stored.ok_or_else(|| Error::aborted("it was deleted while it was being read"))?;
            let (parsed, labels) = parse(&bytes)?;
            self.label(&descriptor.digest, &labels).await?;
            self.progress.add_reused(descriptor.size);
            task.set(State::Exists);
            Ok(parsed)
        };
        brought.await.inspect_err(|error| task.set(State::Failed { reason: error.to_string() }))
    }

    /// Returns the bytes of a small blob that is here.
    async fn stored(&self, descriptor: &Descriptor) -> Result<Option<Bytes>> {
        match self.content.read_all(descriptor, documents::limit(descriptor)).await {
            Ok(bytes) => {
                content::changed_at_rest(&descriptor.digest, &descriptor.digest.algorithm().digest(&bytes))?;
                has_its_size(descriptor, &bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches a small blob and stores it through the ingest that was opened for it.
    async fn new_document<T>(
        &self,
        descriptor: &Descriptor,
        task: &Task,
        mut writer: Box<dyn Writer>,
        parse: impl Fn(&[u8]) -> Result<(T, Labels)>,
    ) -> Result<T> {
        let stored = async {
            let bytes = self.fetch_document(descriptor, task).await;
            let bytes = bytes.context(|| format!("fetch {}", descriptor.ingest_ref()))?;
            // What came was not what it was said to be, of whoever it came.
            let (parsed, mut labels) =
                parse(&bytes).map_err(|error| error.attempts(self.fetcher.origin(&descriptor.digest)))?;
            labels.extend(&self.labels);
            writer.truncate(0).await?;
            writer.write(bytes).await?;
            match writer.commit(Commit { labels, ..Commit::default() }).await {
                Err(error) if !error.is(Kind::AlreadyExists) => Err(error),
                _ => Ok(parsed),
            }
        };
        let stored = stored.await;
        match &stored {
            Ok(_) => task.set(State::Done),
            // What there is of a document is not worth a continuation.
            Err(_) => self.discard(descriptor).await,
        }
        stored
    }

    /// Reads a small blob from the remote, whole and verified.
    async fn fetch_document(&self, descriptor: &Descriptor, task: &Task) -> Result<Bytes> {
        let limit = accepted(descriptor)?;
        let mut patience = Patience::default();
        loop {
            task.set(State::Fetching { offset: 0, total: descriptor.size });
            match read_right(&*self.fetcher, descriptor, limit).await {
                Ok(bytes) => {
                    self.progress.add_downloaded(bytes.len() as u64);
                    return Ok(bytes);
                }
                Err(error) => patience.bear(&*self.fetcher, descriptor, task, 0, error).await?,
            }
        }
    }

    /// Adds the labels that a record lacks.
    async fn label(&self, digest: &Digest, labels: &Labels) -> Result<()> {
        let mut info = self.content.info(digest).await?;
        let missing: Vec<String> = labels
            .iter()
            .filter(|(key, value)| info.labels.get(key) != Some(value))
            .map(|(key, _)| format!("labels.{key}"))
            .collect();
        if !missing.is_empty() {
            info.labels.extend(labels);
            self.content.update(&info, &FieldMask::parse(missing.iter().map(String::as_str))?).await?;
        }
        Ok(())
    }

    /// Discards what was written of a blob, unless somebody else is writing it. A writer of this pull that was dropped a
    /// moment ago may still be putting its state down.
    pub(crate) async fn discard(&self, descriptor: &Descriptor) {
        for _ in 0..DISCARD_TRIES {
            match self.content.abort(&descriptor.ingest_ref()).await {
                Err(error) if error.is(Kind::Unavailable) => tokio::time::sleep(POLL).await,
                Err(error) if !error.is(Kind::NotFound) => {
                    tracing::warn!(%error, digest = %descriptor.digest, "an ingest was not discarded");
                    return;
                }
                _ => return,
            }
        }
    }
}

/// Returns how large a document may be that has an acceptable size.
fn accepted(descriptor: &Descriptor) -> Result<u64> {
    let limit = documents::limit(descriptor);
    if descriptor.size > limit {
        return Err(Error::resource_exhausted(format!(
            "{} {} has {} bytes, more than the {limit} that are accepted",
            descriptor.media_type, descriptor.digest, descriptor.size
        ))
        .coded(TOO_LARGE)
        .hint("it is damaged, or not meant for a container engine"));
    }
    Ok(limit)
}

/// Reads a document from a remote without keeping it, whole and verified.
pub(crate) async fn read_document(fetcher: &dyn Fetcher, descriptor: &Descriptor) -> Result<Bytes> {
    let task = Tracker::new().task(descriptor.ingest_ref().as_str());
    let mut patience = Patience::default();
    let read = async {
        let limit = accepted(descriptor)?;
        loop {
            match read_right(fetcher, descriptor, limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => patience.bear(fetcher, descriptor, &task, 0, error).await?,
            }
        }
    };
    read.await.context(|| format!("fetch {}", descriptor.ingest_ref()))
}

/// Reads a document from somebody who sends what the digest says, if there is one.
async fn read_right(fetcher: &dyn Fetcher, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
    loop {
        let read = read_remote(fetcher, descriptor, limit).await;
        match read.and_then(|bytes| verify(descriptor, &bytes).map(|()| bytes)) {
            Err(wrong)
                if wrong.is(Kind::DataLoss) || wrong.is(Kind::ResourceExhausted) && wrong.code() == TOO_LARGE =>
            {
                fetcher.pass_over(&descriptor.digest, Trouble::Wrong, wrong)?;
            }
            read => return read,
        }
    }
}

async fn read_remote(fetcher: &dyn Fetcher, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
    let mut body = fetcher.fetch(descriptor, ByteRange::default()).await?;
    let mut all = BytesMut::new();
    while let Some(part) = body.stream.next().await {
        all.extend_from_slice(&part?);
        if all.len() as u64 > limit {
            return Err(Error::resource_exhausted(format!(
                "{} {} has more than the {limit} bytes that are accepted",
                descriptor.media_type, descriptor.digest
            ))
            .coded(TOO_LARGE)
            .hint("it is damaged, or not meant for a container engine"));
        }
    }
    Ok(all.freeze())
}

fn has_its_size(descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 == descriptor.size {
        return Ok(());
    }
    let error = Error::data_loss(format!(
        "{} {} has {} bytes, its descriptor says {}",
        descriptor.media_type,
        descriptor.digest,
        bytes.len(),
        descriptor.size
    ));
    Err(error.coded("size-mismatch"))
}

pub(crate) fn verify(descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    has_its_size(descriptor, bytes)?;
    let found = descriptor.digest.algorithm().digest(bytes);
    if found != descriptor.digest {
        return Err(Error::data_loss(format!(
            "{} {} arrived with the digest {found}",
            descriptor.media_type, descriptor.digest
        ))
        .coded("digest-mismatch")
        .hint("the registry, or something between it and this machine, changes content; nothing was kept"));
    }
    Ok(())
}

/// Tells whether trying again may help.
fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::DeadlineExceeded)
}

/// How often a blob failed without enough of it coming in between.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    attempt: u32,
    /// How often it was tried again in all.
    again: u32,
    /// How much had come when it failed last.
    came: u64,
}

impl Patience {
    /// Takes note of a failure when so much has come in all; tells whether it is worth another try. It is not where whoever was
    /// asked wants to be left alone for longer than is waited.
    pub(crate) fn lasts(&mut self, came: u64, error: &Error) -> bool {
        let enough = if error.is(Kind::DeadlineExceeded) { ENOUGH } else { 1 };
        if came >= self.came.saturating_add(enough) {
            self.attempt = 0;
        }
        self.came = came;
        let too_long = error.retry_after_time().is_some_and(|wait| wait > LONGEST_WAIT);
        is_transient(error) && !too_long && self.attempt < MAX_IDLE_RETRIES
    }

    /// Waits before the next try, longer each time, and as long as whoever was asked wants.
    pub(crate) async fn back_off(&mut self, task: &Task, error: &Error) {
        task.set(State::Retrying { reason: error.to_string() });
        let pause = (FIRST_DELAY * 2u32.pow(self.attempt)).mul_f64(random());
        tokio::time::sleep(error.retry_after_time().unwrap_or_default().saturating_add(pause)).await;
        self.attempt += 1;
        self.again += 1;
    }

    /// Waits for another try after a failure, when so much has come in all; where that is not worth it, others are asked.
    ///
    /// # Errors
    /// The failure, when there are no others.
    pub(crate) async fn bear(
        &mut self,
        fetcher: &dyn Fetcher,
        descriptor: &Descriptor,
        task: &Task,
        came: u64,
        error: Error,
    ) -> Result<()> {
        if self.lasts(came, &error) {
            self.back_off(task, &error).await;
            return Ok(());
        }
        if !is_transient(&error) {
            return Err(self.told(error));
        }
        let reason = error.to_string();
        fetcher.pass_over(&descriptor.digest, Trouble::Broken, self.told(error))?;
        task.set(State::Retrying { reason });
        *self = Self { came, ..Self::default() };
        Ok(())
    }

    /// Adds to what was tried how often it was tried again.
    pub(crate) fn told(&self, error: Error) -> Error {
        let last = error.trace().len().saturating_sub(1);
        let mut at = 0;
        error.map_attempts(|attempt| {
            attempt.retries += if at == last { self.again } else { 0 };
            at += 1;
        })
    }
}

/// Returns a random number from 0 to 1, so that those who wait do not come back in step.
#[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
fn random() -> f64 {
    // A hasher's random keys are the only randomness there is without another dependency.
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn refused(seconds: u64) -> Error {
        Error::unavailable("not now").retry_after(Some(Duration::from_secs(seconds)))
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_to_be_left_alone_for_a_while_is_and_for_too_long_is_not_asked_again() {
        let (mut patience, task) = (Patience::default(), Tracker::new().task("layer"));
        for came in [1, 1, 1] {
            let began = Instant::now();
            assert!(patience.lasts(came, &refused(7)));
            patience.back_off(&task, &refused(7)).await;
            assert!((7..=9).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        }
        assert!(patience.lasts(1, &refused(60)) && !patience.lasts(1, &refused(61)));
        let began = Instant::now();
        patience.back_off(&task, &Error::unavailable("it broke")).await;
        assert!(began.elapsed() < Duration::from_secs(4));
    }
}
