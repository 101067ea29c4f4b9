//! The last commit, opened once for all who read it.
//!
//! To begin a transaction and to find a table in it takes longer than to read a record.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase as _};
use windlass_core::Result;

use super::failed;
use super::schema::TABLES;
use super::transaction::{Definition, View};

/// The table of any records.
type Table = ReadOnlyTable<&'static str, &'static [u8]>;

/// One commit, with the tables of it that were asked for.
pub(crate) struct Opened {
    commit: ReadTransaction,
    tables: [OnceLock<Table>; TABLES.len()],
}

impl Opened {
    fn new(commit: ReadTransaction) -> Self {
        Self { commit, tables: [const { OnceLock::new() }; TABLES.len()] }
    }
}

impl View for Opened {
    type Table<'a> = Table;

    fn with_table<R>(&self, table: &'static str, read: impl FnOnce(&Table) -> Result<R>) -> Result<R> {
        let Some(place) = TABLES.iter().position(|name| *name == table).and_then(|place| self.tables.get(place)) else {
            return self.commit.with_table(table, read);
        };
        if let Some(table) = place.get() {
            return read(table);
        }
        let opened = self.commit.open_table(Definition::new(table)).map_err(failed)?;
        read(place.get_or_init(|| opened))
    }
}

/// The last commit, for as long as it is the last.
#[derive(Default)]
pub(super) struct Latest(Mutex<Option<Arc<Opened>>>);

impl Latest {
    /// Returns the last commit.
    pub(super) fn of(&self, database: &redb::Database) -> Result<Arc<Opened>> {
        let mut latest = self.lock();
        if let Some(opened) = &*latest {
            return Ok(opened.clone());
        }
        // Begun while nobody can say that there is a later one: who commits says so afterwards, and waits for this.
        let opened = Arc::new(Opened::new(database.begin_read().map_err(failed)?));
        Ok(latest.insert(opened).clone())
    }

    /// Lets go of the commit, which is not the last one any more, or will not be in a moment: what it alone has can be written over.
    pub(super) fn is_over(&self) {
        let over = self.lock().take();
        drop(over);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Opened>>> {
        // It is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
