//! Group commit: changes that arrive while a transaction is being made durable go into the next one together.
//!
//! Every caller brings its change, waits for the one place where transactions are made, and takes with it whatever
//! waits there; the others then find their change made. There is no thread and no timer.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use redb::{Database, ReadTransaction, ReadableDatabase as _};
use windlass_core::error::{Error, IoResultExt as _, Result, ResultExt as _};

use super::damage::{damaged, guarded};
use super::schema::{CURRENT_FORMAT, FORMAT, META, Tables};

/// How much of the database is kept in memory, in bytes; the records of some ten thousand snapshots.
const CACHE: usize = 8 << 20;

/// Why a change was not made.
pub(crate) enum Failure {
    /// A rule forbids it. It has not touched the tables.
    Refused(Error),
    /// The database failed, and the transaction with all changes in it is given up.
    Broken(Error),
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Broken(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Classifies the errors of the database.
macro_rules! broken_by {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Broken(classify(error.into()))
            }
        })*
    };
}

broken_by!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError, redb::DatabaseError);

fn classify(error: redb::Error) -> Error {
    const WHAT: &str = "the records of snapshots";
    match error {
        redb::Error::Io(source) if matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            damaged(&source.to_string())
        }
        redb::Error::Io(source) => Error::io(format!("access {WHAT}"), source),
        redb::Error::DatabaseAlreadyOpen => Error::unavailable(format!("{WHAT} are open in another process"))
            .hint("wait for it to end, or use another root"),
        // Not `Unavailable`: trying again in this process does not help.
        redb::Error::PreviousIo => Error::aborted(format!("{WHAT} could not be written before"))
            .hint("see to the disk (is it full?), then run the command again: it continues"),
        error @ (redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::RepairAborted) => damaged(&error.to_string()),
        other => Error::unknown(format!("access {WHAT}")).source(other),
    }
}

/// The database, and the place where its transactions are made.
pub(super) struct Writer {
    path: PathBuf,
    database: OnceLock<Database>,
    waiting: Mutex<Vec<Box<dyn Change>>>,
    turn: Mutex<()>,
}

impl Writer {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let writer = Self {
            path: path.to_owned(),
            database: OnceLock::new(),
            waiting: Mutex::default(),
            turn: Mutex::default(),
        };
        if path.try_exists().attempt(|| format!("look for {}", path.display()))? {
            writer.database()?;
        }
        Ok(writer)
    }

    /// Begins to read; nothing without a database.
    pub(super) fn begin_read(&self) -> Result<Option<ReadTransaction>> {
        self.database.get().map(|database| guarded(|| Ok(database.begin_read()?))).transpose()
    }

    /// Makes a change durable, together with those of other callers. Blocks.
    ///
    /// The change must have checked everything before it touches the first table.
    pub(super) fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = sync_channel(1);
        let pending = Pending { change: Some(change), result: None, sender };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(pending));
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !batch.is_empty() {
            self.make(batch);
        }
        drop(turn);
        receiver.recv().map_err(|_| Error::internal("the change of a snapshot's record was dropped"))?
    }

    fn make(&self, mut batch: Vec<Box<dyn Change>>) {
        let made = guarded(|| self.transact(&mut batch));
        for change in batch {
            change.tell(made.as_ref().err());
        }
    }

    fn transact(&self, batch: &mut [Box<dyn Change>]) -> Result<(), Failure> {
        let mut transaction = self.database()?.begin_write()?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let mut touched = false;
        {
            let mut tables = Tables::open(&transaction)?;
            for change in batch {
                touched |= change.make(&mut tables)?;
            }
        }
        if touched {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(())
    }

    /// Returns the database, created if need be; called from one thread at a time.
    fn database(&self) -> Result<&Database> {
        if let Some(database) = self.database.get() {
            return Ok(database);
        }
        let database = guarded(|| create(&self.path)).context(|| format!("open {}", self.path.display()))?;
        Ok(self.database.get_or_init(|| database))
    }
}

/// Opens the file, made before if need be, and checks its format.
fn create(path: &Path) -> Result<Database, Failure> {
    if !path.try_exists().attempt(|| format!("look for {}", path.display()))? {
        make(path)?;
    }
    let database = Database::builder().set_cache_size(CACHE).open(path)?;
    match database.begin_read()?.open_table(META)?.get(FORMAT)?.map(|format| format.value()) {
        Some(CURRENT_FORMAT) => Ok(database),
        Some(other) => Err(Error::failed_precondition(format!(
            "the records of snapshots have format {other}, and {CURRENT_FORMAT} is the newest that is known"
        ))
        .hint("use the version of the program that wrote them, or a newer one")
        .into()),
        None => Err(damaged("they do not say their format").into()),
    }
}

/// Makes the file with all tables: its name must not be durable before its bytes are, because half a database is no
/// database.
///
/// 1. write `records.redb.new`  2. fsync it, which the database does at its commit  3. rename it to `records.redb`
/// 4. fsync the directory. A crash before 3 leaves a file that the next one replaces.
fn make(path: &Path) -> Result<(), Failure> {
    let new = path.with_extension("redb.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        removed => removed.attempt(|| format!("remove {}", new.display()))?,
    }
    let database = Database::builder().create(&new)?;
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Tables::open(&transaction)?.meta.insert(FORMAT, CURRENT_FORMAT)?;
    transaction.commit()?;
    drop(database);
    std::fs::rename(&new, path).attempt(|| format!("rename {} to {}", new.display(), path.display()))?;
    Ok(sync_entry(path)?)
}

/// Makes the name of a new file durable.
fn sync_entry(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let sync = std::fs::File::open(parent).and_then(|directory| directory.sync_all());
    sync.attempt(|| format!("sync {}", parent.display()))
}

/// A change that waits for a transaction.
trait Change: Send {
    /// Makes the change, and says whether it touched the tables.
    fn make(&mut self, tables: &mut Tables<'_>) -> Result<bool, Failure>;

    /// Tells the caller what came of it, when the transaction is over.
    fn tell(self: Box<Self>, failed: Option<&Error>);
}

struct Pending<T, F> {
    change: Option<F>,
    result: Option<Result<T>>,
    sender: SyncSender<Result<T>>,
}

impl<T: Send, F: FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send> Change for Pending<T, F> {
    fn make(&mut self, tables: &mut Tables<'_>) -> Result<bool, Failure> {
        let Some(change) = self.change.take() else { return Ok(false) };
        let result = match change(tables) {
            Err(Failure::Broken(error)) => return Err(Failure::Broken(error)),
            Err(Failure::Refused(error)) => Err(error),
            Ok(value) => Ok(value),
        };
        let touched = result.is_ok();
        self.result = Some(result);
        Ok(touched)
    }

    fn tell(self: Box<Self>, failed: Option<&Error>) {
        let result = match (self.result, failed) {
            // A refusal stands, whatever became of the others.
            (Some(Err(refused)), _) => Err(refused),
            (_, Some(error)) => {
                let again = Error::new(error.kind(), error.to_string());
                Err(match error.hint_text() {
                    Some(hint) => again.hint(hint),
                    None => again,
                })
            }
            (Some(result), None) => result,
            (None, None) => Err(Error::internal("the change of a snapshot's record was not made")),
        };
        // The caller waits for it; if it is gone, its thread has panicked and nobody is left to tell.
        drop(self.sender.send(result));
    }
}
