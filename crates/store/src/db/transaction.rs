//! Transactions, as one view for those who only read.

use std::cell::Cell;
use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use windlass_core::Result;

use super::{Activity, failed};

/// Every table: composite text keys, encoded values.
pub(super) type Definition = TableDefinition<'static, &'static str, &'static [u8]>;

/// Something that tables can be read in: the last commit, or a change under way.
pub(crate) trait View {
    /// A table that is open.
    type Table<'a>: ReadableTable<&'static str, &'static [u8]>
    where
        Self: 'a;

    /// Reads in a table.
    fn with_table<R>(&self, table: &'static str, read: impl FnOnce(&Self::Table<'_>) -> Result<R>) -> Result<R>;
}

impl View for ReadTransaction {
    type Table<'a> = ReadOnlyTable<&'static str, &'static [u8]>;

    fn with_table<R>(&self, table: &'static str, read: impl FnOnce(&Self::Table<'_>) -> Result<R>) -> Result<R> {
        read(&self.open_table(Definition::new(table)).map_err(failed)?)
    }
}

/// A change under way.
pub(crate) struct Transaction {
    inner: WriteTransaction,
    activity: Arc<Activity>,
    writes: Cell<u64>,
    deletions: Cell<u64>,
}

impl Transaction {
    /// Begins a change that, once committed, survives a power cut.
    pub(super) fn begin(database: &redb::Database, activity: &Arc<Activity>) -> Result<Self> {
        let mut inner = database.begin_write().map_err(failed)?;
        // Two phases: a commit slot is valid without looking at checksums, so a torn write cannot be taken for one.
        // Quick repair: opening after a crash does not walk the whole file.
        inner.set_two_phase_commit(true);
        inner.set_quick_repair(true);
        Ok(Self { inner, activity: activity.clone(), writes: Cell::new(0), deletions: Cell::new(0) })
    }

    /// Opens a table for writing; it has to be closed before it is opened again.
    pub(super) fn table(&self, table: &'static str) -> Result<Table<'_, &'static str, &'static [u8]>> {
        self.inner.open_table(Definition::new(table)).map_err(failed)
    }

    /// Notes that something was written.
    pub(super) fn wrote(&self) {
        self.writes.set(self.writes.get() + 1);
    }

    /// Returns how many writes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// Notes that something was deleted, so that there may be garbage now.
    pub(crate) fn deleted(&self) {
        self.deletions.set(self.deletions.get() + 1);
    }

    /// Returns how many deletions were noted.
    pub(super) fn deletions(&self) -> u64 {
        self.deletions.get()
    }

    /// Returns what the collector wants to know of changes.
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Makes the change durable; one without writes is given up instead, which costs nothing.
    pub(super) fn commit(self) -> Result<()> {
        if self.writes() == 0 {
            return self.abort();
        }
        self.inner.commit().map_err(failed)
    }

    /// Gives the change up.
    pub(super) fn abort(self) -> Result<()> {
        self.inner.abort().map_err(failed)
    }
}

impl View for Transaction {
    type Table<'a> = Table<'a, &'static str, &'static [u8]>;

    fn with_table<R>(&self, table: &'static str, read: impl FnOnce(&Self::Table<'_>) -> Result<R>) -> Result<R> {
        read(&self.table(table)?)
    }
}
