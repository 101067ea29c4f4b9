//! Content: bytes addressed by their digest, and the ingests that bring them.
//!
//! Two descriptions are kept apart: a [`Status`] describes a write in progress, an [`Info`] a committed blob.
//!
//! The life of an ingest: [`Ingester::writer`] opens it atomically on an [`IngestRef`] (a second opener is refused),
//! bytes are written, and [`Writer::commit`] turns it into a blob if its digest and size are the expected ones. A
//! writer that is dropped leaves the ingest behind; the next opener of the same ref continues at its offset.
//!
//! An ingest whose size was declared need not be written in order ([`Writer::sparse`]), and can be read while it is written
//! ([`Writer::tail`]).

mod copy;
mod ranges;

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::field::FieldMask;
use crate::filter::{Fields, Filter};
use crate::label::Labels;
use crate::text::{self, checked_text};
use crate::{Listing, timestamp};

pub use copy::{OneWay, Source, copy, copy_telling};
pub use ranges::Ranges;

/// How long after the last write an ingest is kept that no lease holds, as containerd has it.
pub const ABANDONED_AFTER: Duration = Duration::from_hours(24);

/// The prefix of the labels of a manifest that name the layers whose blobs were not kept: a number follows, the digest is
/// the value. They are here as snapshots only, and can be fetched again.
pub const DROPPED_LABEL: &str = "windlass.dev/dropped.";

checked_text! {
    /// The key of an ongoing ingest, chosen by whoever writes: up to 1024 bytes without control characters.
    IngestRef, "ingest ref", text::validate
}

impl IngestRef {
    /// The longest one, in bytes.
    pub const MAX_LEN: usize = text::MAX_LEN;

    pub(crate) fn for_content(role: &str, digest: &Digest) -> Self {
        Self(format!("{role}-{digest}"))
    }
}

/// What is known of the content before it arrives; whatever is given is enforced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The digest that the content must have.
    pub digest: Option<Digest>,
    /// The size in bytes that the content must have.
    pub size: Option<u64>,
}

impl From<&Descriptor> for Expected {
    fn from(descriptor: &Descriptor) -> Self {
        Self { digest: Some(descriptor.digest.clone()), size: Some(descriptor.size) }
    }
}

/// A committed blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The digest that the blob is addressed by.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// When the namespace got the blob.
    #[serde(with = "timestamp")]
    pub created_at: SystemTime,
    /// When the record changed last.
    #[serde(with = "timestamp")]
    pub updated_at: SystemTime,
    /// The labels of the record, among them those that tell garbage collection what the blob refers to.
    #[serde(default)]
    pub labels: Labels,
}

impl Fields for Info {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["digest"] => Some(self.digest.to_string()),
            ["size"] => Some(self.size.to_string()),
            ["labels", key @ ..] => self.labels.field(key),
            _ => None,
        }
    }
}

/// A write in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The key of the ingest.
    #[serde(rename = "ref")]
    pub ingest: IngestRef,
    /// How many bytes are there, up to the first gap: the next write goes here.
    pub offset: u64,
    /// How many bytes there will be, if that was declared.
    pub total: Option<u64>,
    /// The digest that was declared.
    pub expected: Option<Digest>,
    /// When the ingest began.
    #[serde(with = "timestamp")]
    pub started_at: SystemTime,
    /// When bytes were written last.
    #[serde(with = "timestamp")]
    pub updated_at: SystemTime,
}

impl Fields for Status {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["ref"] => Some(self.ingest.to_string()),
            _ => None,
        }
    }
}

/// Where in a file some bytes are: from `begin` on.
#[derive(Debug, Clone)]
pub struct InFile {
    /// The file, open for reading.
    pub file: Arc<File>,
    /// Where in the file they begin.
    pub begin: u64,
}

/// A blob opened for reading at any offset, by any number of readers.
#[async_trait]
pub trait ReaderAt: Send + Sync {
    /// Returns the size in bytes.
    fn size(&self) -> u64;

    /// Returns where the bytes are, when a file has them one after the other: whoever wants them may read them there.
    fn in_file(&self) -> Option<InFile> {
        None
    }

    /// Reads up to `length` bytes at `offset`; fewer only at the end, none past it.
    ///
    /// # Cancel safety
    /// A read that is dropped has no effect.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;
}

/// Where content can be read.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Opens a blob by its digest; the other properties of the descriptor are hints.
    ///
    /// # Errors
    /// `NotFound` when the blob is not here.
    async fn reader(&self, descriptor: &Descriptor) -> Result<Box<dyn ReaderAt>>;
}

/// Where content can be brought.
#[async_trait]
pub trait Ingester: Send + Sync {
    /// Opens the ingest of that ref, new or where it was left, and locks the ref until the writer is gone.
    ///
    /// # Errors
    /// `Unavailable` when another writer holds the ref. `AlreadyExists` when the expected digest is here already.
    /// `FailedPrecondition` when an ingest in progress under that ref was declared with another digest or size.
    ///
    /// # Cancel safety
    /// A call that is dropped may leave an empty ingest, which the next opener continues.
    async fn writer(&self, ingest: &IngestRef, expected: Expected) -> Result<Box<dyn Writer>>;
}

/// What is said at the commit of an ingest, beside what was said when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Digest and size that the content must have, as far as not declared before.
    pub expected: Expected,
    /// Labels of the new blob.
    pub labels: Labels,
}

/// The writing end of an ingest.
///
/// Dropping it unlocks the ref and keeps what was written.
#[async_trait]
pub trait Writer: Send + Sync {
    /// Returns where the ingest stands.
    async fn status(&mut self) -> Result<Status>;

    /// Returns the digest of the bytes that are here so far, up to the first gap: by the algorithm of the declared digest, or
    /// else SHA-256. None when this writer does not know it before the commit.
    ///
    /// What was written is hashed before the answer, so a writer that asks after every write waits for every hash.
    async fn digest(&mut self) -> Result<Option<Digest>>;

    /// Appends bytes. What a [`SparseWriter`] left behind the first gap is given up by the first write.
    ///
    /// # Errors
    /// `OutOfRange` when there would be more bytes than were declared. `ResourceExhausted` when the disk is full;
    /// what was written before stays. `FailedPrecondition` after [`Writer::sparse`].
    ///
    /// # Cancel safety
    /// A write that is dropped may have happened in part; [`Writer::status`] tells.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Appends bytes of a file, which the writer reads itself, wherever it is: they need not pass through the caller. False when
    /// this writer does not, or not as few: then nothing was done, and [`Writer::write`] takes them.
    ///
    /// # Errors
    /// As [`Writer::write`]; those of reading; `Unavailable` when the file ends before `range` does.
    ///
    /// # Cancel safety
    /// As [`Writer::write`].
    async fn write_file(&mut self, file: &Arc<File>, range: Range<u64>) -> Result<bool> {
        let _ = (file, range);
        Ok(false)
    }

    /// Cuts the ingest back to `size` bytes; what a [`SparseWriter`] left behind them is given up.
    ///
    /// # Errors
    /// `OutOfRange` when there are fewer. `FailedPrecondition` after [`Writer::sparse`].
    ///
    /// # Cancel safety
    /// A call that is dropped has happened, will happen before anybody else gets the ingest, or has not;
    /// [`Writer::status`] tells.
    async fn truncate(&mut self, size: u64) -> Result<()>;

    /// Verifies digest and size and turns the ingest into a blob, durably. Writes of the [`SparseWriter`] that are under
    /// way are waited for.
    ///
    /// # Errors
    /// `FailedPrecondition` for a wrong size, `DataLoss` for a wrong digest: the ingest is discarded in both cases,
    /// because its bytes cannot become right. `AlreadyExists` when the blob is here: the ingest is discarded too.
    /// `FailedPrecondition` for a gap that a [`SparseWriter`] left: the ingest stays, because the gap can be filled.
    ///
    /// # Cancel safety
    /// A commit that is dropped has happened or has not; [`Store::info`] tells.
    async fn commit(self: Box<Self>, commit: Commit) -> Result<Info>;

    /// Opens a reader that follows this writer: it reads what is here from the beginning to the first gap, waits at that
    /// edge for what comes, and goes on reading the same bytes after the commit. None when the size was not declared, or
    /// when nobody can read behind this writer: read the blob once it is committed.
    ///
    /// A read that reaches the edge returns what is there, at least one byte; it returns nothing only at the declared size.
    /// The bytes are unverified until the commit has succeeded. After a power cut, what is left of an ingest may have bytes
    /// that are not the ones that were written.
    ///
    /// Every read fails with `Aborted`, also one that waits, once the writer is dropped, its commit has failed (but for
    /// `AlreadyExists`), or it cuts back. After a cut another tail can be opened.
    async fn tail(&mut self) -> Result<Option<Arc<dyn ReaderAt>>> {
        Ok(None)
    }

    /// Opens the way to write at several places at once. None when size or digest were not declared, or when the ingest can
    /// only be appended to. Another call returns the same.
    ///
    /// From here on [`Status::offset`] is where the first gap begins, and [`Writer::write`] and [`Writer::truncate`] are
    /// refused with `FailedPrecondition`.
    async fn sparse(&mut self) -> Result<Option<Arc<dyn SparseWriter>>> {
        Ok(None)
    }
}

/// Writes an ingest of a declared size at several places at once. What was written survives the writer: whoever opens the
/// ingest next finds the gaps that are left.
///
/// Usable concurrently. Bytes that are here already are not written again, whatever is given for them, and a write of
/// bytes that another one is writing just now waits for it.
#[async_trait]
pub trait SparseWriter: Send + Sync {
    /// Returns what is not here yet, in order, without overlaps. What is being written is still missing.
    async fn gaps(&self) -> Result<Vec<Range<u64>>>;

    /// Writes bytes where they belong. Waits while too much was written ahead of what could be hashed, unless it brings the
    /// first byte that is missing: so that one has to be on its way, before others wait for it.
    ///
    /// # Errors
    /// `OutOfRange` beyond the declared size. `ResourceExhausted` when the disk is full; what was written before stays.
    /// `Aborted` when the writer is gone.
    ///
    /// # Cancel safety
    /// A write that is dropped may have happened in part, and counts as a gap or as written, for as much as is there.
    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<()>;

    /// Writes parts that follow each other, as one write: it costs less than one write for each.
    ///
    /// # Errors
    /// As [`SparseWriter::write_at`].
    ///
    /// # Cancel safety
    /// As [`SparseWriter::write_at`].
    async fn write_parts_at(&self, offset: u64, parts: Vec<Bytes>) -> Result<()> {
        let mut at = offset;
        for part in parts {
            let length = part.len() as u64;
            self.write_at(at, part).await?;
            at = at.saturating_add(length);
        }
        Ok(())
    }
}

/// All of a content store, as seen from one namespace.
#[async_trait]
pub trait Store: Provider + Ingester {
    /// Returns the record of a blob.
    async fn info(&self, digest: &Digest) -> Result<Info>;

    /// Lists blobs that match any of the filters; all of them without a filter.
    fn list(&self, filters: &[Filter]) -> Listing<Info>;

    /// Changes the labels of a blob: all of them with an empty mask, otherwise the fields named.
    ///
    /// # Errors
    /// `InvalidArgument` when the mask names anything but `labels` and `labels.<key>`.
    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info>;

    /// Deletes the record of a blob; its bytes go when no namespace has a record of it.
    async fn delete(&self, digest: &Digest) -> Result<()>;

    /// Returns where an ingest stands.
    async fn status(&self, ingest: &IngestRef) -> Result<Status>;

    /// Lists the ingests that match any of the filters.
    async fn statuses(&self, filters: &[Filter]) -> Result<Vec<Status>>;

    /// Discards an ingest and what was written.
    ///
    /// # Errors
    /// `Unavailable` while a writer holds it.
    async fn abort(&self, ingest: &IngestRef) -> Result<()>;
}

/// Conveniences over any [`Provider`].
#[async_trait]
pub trait ProviderExt: Provider {
    /// Reads a whole blob of at most `limit` bytes.
    ///
    /// # Errors
    /// `ResourceExhausted` when it is larger.
    async fn read_all(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
        let reader = self.reader(descriptor).await?;
        let size = reader.size();
        if size > limit {
            return Err(Error::resource_exhausted(format!(
                "blob {} has {size} bytes, more than the {limit} that are read at once",
                descriptor.digest
            )));
        }
        let mut all = BytesMut::new();
        while (all.len() as u64) < size {
            let part = reader.read_at(all.len() as u64, 1 << 20).await?;
            if part.is_empty() {
                return Err(Error::data_loss(format!("blob {} ends before its {size} bytes", descriptor.digest)));
            }
            all.extend_from_slice(&part);
        }
        Ok(all.freeze())
    }

    /// Reads a whole blob and compares it with its digest, a part at a time.
    ///
    /// # Errors
    /// `DataLoss` when the blob is not what its digest says.
    async fn verify(&self, descriptor: &Descriptor) -> Result<()> {
        let reader = self.reader(descriptor).await?;
        let mut hasher = descriptor.digest.algorithm().hasher();
        let mut offset = 0;
        while offset < reader.size() {
            let part = reader.read_at(offset, 1 << 20).await?;
            if part.is_empty() {
                break;
            }
            hasher.update(&part);
            offset += part.len() as u64;
        }
        changed_at_rest(&descriptor.digest, &hasher.finish())
    }
}

/// The code of the error of a blob that has a record and no bytes.
pub const BLOB_MISSING: &str = "blob-missing";

/// What to do about a stored blob that is damaged. Deleting it and pulling again is not that: where another namespace has
/// it too, the same bytes are taken over.
pub const FETCH_AGAIN: &str = "`dist fsck --repair` fetches it again from where it came";

/// Compares the digest that stored bytes have with the one that they were stored under.
///
/// # Errors
/// `DataLoss` when they differ.
pub fn changed_at_rest(stored: &Digest, found: &Digest) -> Result<()> {
    if stored == found {
        return Ok(());
    }
    Err(Error::data_loss(format!("blob {stored} has changed since it was stored: its bytes have the digest {found}"))
        .hint(FETCH_AGAIN))
}

impl<P: Provider + ?Sized> ProviderExt for P {}

/// Conveniences over any [`Ingester`].
#[async_trait]
pub trait IngesterExt: Ingester {
    /// Brings bytes that are at hand; content that is here already is success.
    async fn write_blob(&self, descriptor: &Descriptor, bytes: Bytes, labels: Labels) -> Result<()> {
        let exists = |error: &Error| error.is(crate::Kind::AlreadyExists);
        let mut writer = match self.writer(&descriptor.ingest_ref(), descriptor.into()).await {
            Err(error) if exists(&error) => return Ok(()),
            opened => opened?,
        };
        writer.truncate(0).await?;
        writer.write(bytes).await?;
        match writer.commit(Commit { labels, ..Commit::default() }).await {
            Err(error) if !exists(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

impl<I: Ingester + ?Sized> IngesterExt for I {}
