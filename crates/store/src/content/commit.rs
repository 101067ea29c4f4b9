//! The commit: what was written becomes a blob with a record.

use std::time::SystemTime;

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, Info, IngestRef};
use windlass_core::{Digest, Error, Result};

use super::depot::Old;
use super::ingests::{Start, Unborn};
use super::open_refs::Held;
use super::sink::Sink;
use super::small;
use super::view::Content;
use crate::blocking::blocking;
use crate::db::schema::CONTENTS;

/// How many bytes are hashed without leaving the thread: about as long as it takes to go to another one.
const HASHED_HERE: usize = 64 << 10;

/// The commit of an ingest.
pub(super) struct Finish {
    pub(super) content: Content,
    pub(super) ingest: IngestRef,
    pub(super) declared: Expected,
    pub(super) commit: Commit,
}

/// What came of verifying an ingest.
pub(super) enum Verdict {
    Good(Digest, u64),
    /// Its bytes cannot become right.
    Bad(Error),
}

impl Finish {
    /// Turns the ingest into a blob.
    pub(super) async fn run(self, start: Start, buffer: Bytes, held: Held) -> Result<Info> {
        match start {
            Start::Sink(sink) => self.large(sink, buffer, held).await,
            Start::Unborn(unborn) => self.small(*unborn, buffer, held).await,
        }
    }

    /// Turns an ingest that is on the disk into a blob. The durable order:
    ///
    /// 1. verify size and digest  2. fsync `ingest/<id>/data`  3. rename it to `blobs/<algorithm>/<hex>`  4. fsync that
    ///    directory, on the database's thread right before  5. commit the record, with the lease's edge  6. remove
    ///    `ingest/<id>`
    ///
    /// A crash before 3 leaves a resumable ingest; between 3 and 5 an unrecorded blob, which the next writer that expects it
    /// adopts or the sweep removes; between 5 and 6 an empty ingest that the next writer of the ref, or the sweep, removes.
    ///
    /// Where blobs are elsewhere, 3 and 4 are: copy it into the other store, and wait until that has committed it. What is left
    /// in between is a resumable ingest, and one there.
    async fn large(self, sink: Box<Sink>, buffer: Bytes, held: Held) -> Result<Info> {
        let expected = self.expected();
        let (data, verdict) = blocking(move || Ok((sink.file().clone(), verify(sink, &buffer, &expected)?))).await?;
        let (digest, size) = match verdict {
            Verdict::Good(digest, size) => (digest, size),
            Verdict::Bad(error) => {
                self.give_up(held).await?;
                return Err(error);
            }
        };
        self.faults("commit: synced").await;
        // From here on alone with the digest: what is moved into place is neither collected nor moved by another.
        let _turn = self.content.shared.turns.take(digest.to_string()).await;
        if self.is_here(&digest, size).await? {
            self.give_up(held).await?;
            return Err(self.content.already_exists(&digest));
        }
        self.content.shared.depot.place(data, &digest, self.old(&digest)).await?;
        let info = self.record(digest, size).await?;
        self.discard(held).await?;
        Ok(info)
    }

    /// Turns content of which nothing is on the disk yet into a blob. The durable order:
    ///
    /// 1. verify size and digest  2. write `small/<n>` and fsync it, or the filesystem when others do the same  3. to 5. as
    ///    above
    ///
    /// A crash before 3 leaves a file in `small` that goes when the store is opened.
    async fn small(self, unborn: Unborn, buffer: Bytes, held: Held) -> Result<Info> {
        let (expected, is_short) = (self.expected(), buffer.len() <= HASHED_HERE);
        let verify = move || {
            let verdict = small::verify(&buffer, &expected);
            (buffer, verdict)
        };
        let (buffer, verdict) = if is_short { verify() } else { blocking(|| Ok(verify())).await? };
        let (digest, size) = match verdict {
            Verdict::Good(digest, size) => (digest, size),
            Verdict::Bad(error) => {
                self.content.release(&self.ingest).await?;
                return Err(error);
            }
        };
        let turn = self.content.shared.turns.take(digest.to_string()).await;
        if self.is_here(&digest, size).await? {
            self.content.release(&self.ingest).await?;
            return Err(self.content.already_exists(&digest));
        }
        if self.content.shared.depot.place_small(buffer.clone(), &digest, self.old(&digest)).await.is_ok() {
            return self.record(digest, size).await;
        }
        // The disk is full, or worse: an ingest keeps what it can, and says what is wrong. The lease does not hold it, because a
        // commit of the database that fails is worse than an ingest that is kept for a day.
        drop(turn);
        let (sink, _) = blocking(move || unborn.open()).await?;
        self.large(sink, buffer, held).await
    }

    fn expected(&self) -> [Expected; 2] {
        [self.declared.clone(), self.commit.expected.clone()]
    }

    /// Records a blob that has come to its place: steps 4 and 5.
    async fn record(&self, digest: Digest, size: u64) -> Result<Info> {
        self.faults("commit: renamed").await;
        self.content.shared.condemned.remove(&digest);
        let now = SystemTime::now();
        let info = Info { digest, size, created_at: now, updated_at: now, labels: self.commit.labels.clone() };
        let info = self.content.record(info, Some(self.ingest.clone())).await?;
        self.faults("commit: recorded").await;
        Ok(info)
    }

    /// Tells whether the namespace has the blob, with its bytes; the lease holds it then.
    async fn is_here(&self, digest: &Digest, size: u64) -> Result<bool> {
        let key = self.content.key(digest);
        let recorded = self.content.shared.db.read(|view| CONTENTS.contains(view, &key))?;
        if !recorded || self.content.shared.condemned.has(digest) {
            return Ok(false);
        }
        Ok(self.content.shared.depot.size(digest).await? == Some(size) && self.content.hold(digest).await?)
    }

    /// Tells what is known of bytes that are in the blob's place already.
    fn old(&self, digest: &Digest) -> Old {
        if self.content.shared.condemned.has(digest) { Old::Wrong } else { Old::Right }
    }

    /// Discards the ingest, and lets the lease go of it.
    async fn give_up(&self, held: Held) -> Result<()> {
        self.content.release(&self.ingest).await?;
        self.discard(held).await
    }

    async fn discard(&self, held: Held) -> Result<()> {
        let (ingests, namespace) = (&self.content.shared.ingests, &self.content.scope.namespace);
        ingests.discard(held, namespace, &self.ingest).await.map(|_| ())
    }

    async fn faults(&self, point: &'static str) {
        self.content.shared.faults.reach(point).await;
    }
}

/// Writes the rest, checks size and digest, and makes the data durable if they are right.
fn verify(mut sink: Box<Sink>, rest: &[u8], expected: &[Expected]) -> Result<Verdict> {
    sink.append(rest)?;
    let size = sink.offset();
    for wanted in expected.iter().filter_map(|expected| expected.size) {
        if wanted != size {
            return Ok(Verdict::Bad(wrong_size(size, wanted)));
        }
    }
    let mut digest = None;
    for wanted in expected.iter().filter_map(|expected| expected.digest.as_ref()) {
        let found = sink.digest(wanted.algorithm())?;
        if found != *wanted {
            return Ok(Verdict::Bad(wrong_digest(&found, wanted)));
        }
        digest.get_or_insert(found);
    }
    let digest = match digest {
        Some(digest) => digest,
        None => sink.digest(sink.algorithm())?,
    };
    sink.seal()?;
    Ok(Verdict::Good(digest, size))
}

pub(super) fn wrong_size(size: u64, wanted: u64) -> Error {
    Error::failed_precondition(format!("the content has {size} bytes, {wanted} were expected")).coded("size-mismatch")
}

pub(super) fn wrong_digest(found: &Digest, wanted: &Digest) -> Error {
    Error::data_loss(format!("the content has digest {found}, {wanted} was expected")).coded("digest-mismatch")
}
