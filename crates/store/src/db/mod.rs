//! The metadata database: one file, many readers, one writer thread that commits what it finds queued together.
//!
//! Readers see the last commit and are never waited for. Writers hand over a change and wait until it is durable.

mod activity;
mod barrier;
mod create;
pub(crate) mod damage;
mod file;
#[cfg(test)]
mod golden;
mod latest;
mod links;
mod listing;
mod records;
pub(crate) mod schema;
mod scope;
mod transaction;
mod writer;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableDatabase};
use windlass_core::{Error, Kind, Result, ResultExt};

pub(crate) use activity::{Activity, Count};
pub(crate) use barrier::Barrier;
use damage::{damaged, guarded};
pub(crate) use links::{Links, LinksText, Text, node, resource_node, set_links, text_of, unlink};
pub(crate) use listing::listing;
pub(crate) use records::{Key, Present, Records, decode};
pub(crate) use scope::{admit, hold, is_open_to, require_lease};
pub(crate) use transaction::{Transaction, View};
pub(crate) use writer::again;

use crate::disk::{Disk, How};
use crate::unsynced::Trust;
use file::{DatabaseFile, Failure};
use latest::{Latest, Opened};
use schema::{FORMAT, META};
use writer::Writer;

/// How much memory the database may use to keep pages in.
const CACHE: usize = 8 << 20;
/// The file formats of redb that there may be one day; a greater number is a damaged one.
const NEWEST_FILE_FORMAT: u8 = 16;
/// What the database file is called.
pub(crate) const FILE: &str = "meta.redb";

/// The open database.
pub(crate) struct Database {
    // Before `reader`: the writer thread ends first, and what is read of it is closed.
    writer: Writer,
    latest: Arc<Latest>,
    reader: Arc<redb::Database>,
    activity: Arc<Activity>,
    failure: Failure,
}

impl Database {
    /// Opens the database of a root, or makes it. Blocking.
    ///
    /// # Errors
    /// `FailedPrecondition` for a root of a newer format, `DataLoss` for a damaged file.
    pub(crate) fn open(disk: &Disk, root: &Path, trust: Trust) -> Result<Self> {
        let path = root.join(FILE);
        if disk.look(&path)?.is_none() {
            create::refuse_after_a_loss(disk, root)?;
            create::create(disk, root, &path)?;
        }
        let failure = Failure::default();
        let database = guarded(|| open_file(disk, root, &path, failure.clone(), trust));
        let database = Arc::new(database.context(|| format!("open {}", path.display()))?);
        let activity = Arc::<Activity>::default();
        let latest = Arc::<Latest>::default();
        let writer = Writer::start(database.clone(), activity.clone(), latest.clone())?;
        let this = Self { writer, reader: database, latest, activity, failure };
        check_format(&this.reader, root)?;
        Ok(this)
    }

    /// Returns what the collector wants to know of changes.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Reads the last commit. What is read inline should be a few records: this runs on the caller's thread.
    ///
    /// # Errors
    /// As [`Database::snapshot`], and those of reading.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Opened) -> Result<T>) -> Result<T> {
        self.check()?;
        self.with_reason(guarded(|| read(&*self.latest.of(&self.reader)?)))
    }

    /// Returns the last commit, to be read for as long as it is kept: for whoever reads for long.
    ///
    /// # Errors
    /// `Aborted` after the disk failed a commit: it may have reached the disk or not, so nobody may act on what the last
    /// commit was.
    pub(crate) fn snapshot(&self) -> Result<ReadTransaction> {
        self.check()?;
        self.with_reason(self.reader.begin_read().map_err(failed))
    }

    /// Carries out a change and returns when it is durable. Changes that are queued at the same time share one commit.
    ///
    /// The change may be carried out more than once, of which the last counts: it must not have effects outside of the
    /// transaction.
    ///
    /// # Errors
    /// Those of the change, of which nothing is recorded then; those of the commit.
    ///
    /// # Cancel safety
    /// A call that is dropped has happened, will happen, or fails unseen.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl Fn(&Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.write_behind(None, change).await
    }

    /// Carries out a change as [`Database::write`] does, once the barrier is passed: right before the commit, once for all
    /// changes of the commit that have the same one.
    ///
    /// # Errors
    /// Those of the barrier too.
    ///
    /// # Cancel safety
    /// As [`Database::write`].
    pub(crate) async fn write_behind<T: Send + 'static>(
        &self,
        barrier: Option<Barrier>,
        change: impl Fn(&Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check()?;
        self.with_reason(self.writer.submit(barrier, change).await)
    }

    /// Tells whoever began before the database stopped what stopped it, as those are told who come afterwards.
    fn with_reason<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match self.check() {
            Err(stopped) if error.is(Kind::Aborted) => stopped,
            _ => error,
        })
    }

    /// Fails when the disk failed the database: of a commit that was in the middle nobody knows what was recorded.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(failure) => Err(stopped().source(failure.as_str())),
        }
    }
}

/// The error after an error.
fn stopped() -> Error {
    // Not `Unavailable`: trying again in this process does not help.
    Error::aborted("the metadata database stopped after an error of the disk")
        .hint("see to the disk (is it full?), then run the command again: it continues")
}

fn open_file(disk: &Disk, root: &Path, path: &Path, failure: Failure, trust: Trust) -> Result<redb::Database> {
    let file = disk.open(path, How::Write)?;
    // What is called creating here would make an empty file a database.
    if file.look()?.length == 0 {
        return Err(damaged("it is empty"));
    }
    let file = DatabaseFile::in_use(file, disk, root.to_owned(), failure);
    let mut database = builder().create_with_backend(file).map_err(failed)?;
    // What syncs have kept in order need not be looked at.
    if trust == Trust::Doubt && !is_intact(&mut database)? {
        tracing::warn!(path = %path.display(), "the last changes of the database were lost");
    }
    Ok(database)
}

/// Checks that a database is of the format that is written today.
///
/// # Errors
/// `FailedPrecondition` for a newer one, `DataLoss` for none.
pub(crate) fn check_format(database: &redb::Database, root: &Path) -> Result<()> {
    match read(database, |view| META.get(view, "format"))? {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(Error::failed_precondition(format!(
            "root {} has format {newer}, this program knows up to {FORMAT}",
            root.display()
        ))
        .hint("use the version of the program that wrote it, or a newer one")),
        other => Err(damaged(&format!("{} has no valid format version: {other:?}", root.join(FILE).display()))),
    }
}

/// Opens a database that is not a file of its own. Blocking.
pub(crate) fn open_with(backend: impl redb::StorageBackend) -> Result<redb::Database> {
    guarded(|| builder().create_with_backend(backend).map_err(failed))
}

/// Checks every page of a database against its checksums and tells whether it is what was written. Blocking.
pub(crate) fn is_intact(database: &mut redb::Database) -> Result<bool> {
    guarded(|| database.check_integrity().map_err(failed))
}

/// Reads a database that is not the store's own. Blocking.
pub(crate) fn read<T>(database: &redb::Database, read: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
    guarded(|| read(&database.begin_read().map_err(failed)?))
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Classifies an error of the database.
fn failed(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => match error.downcast::<Error>() {
            // Ours, from below redb: it names the file.
            Ok(error) if error.is(Kind::DataLoss) => error.hint(damage::MEND).context("use the metadata database"),
            Ok(error) => error.context("use the metadata database"),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                damaged(&error.to_string())
            }
            Err(error) => Error::io("use the metadata database", error),
        },
        redb::Error::PreviousIo => stopped(),
        redb::Error::Corrupted(what) => damaged(&what),
        error @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::RepairAborted) => damaged(&error.to_string()),
        redb::Error::UpgradeRequired(version) if version > NEWEST_FILE_FORMAT => {
            damaged(&format!("it claims to have file format {version}"))
        }
        redb::Error::UpgradeRequired(version) => {
            Error::failed_precondition(format!("the metadata database has file format {version}"))
                .hint("use the version of the program that wrote it")
        }
        redb::Error::DatabaseAlreadyOpen => Error::unavailable("the metadata database is open in another process"),
        error => Error::internal("the metadata database failed").source(error),
    }
}
