//! The tables of the database and the form of their values.
//!
//! ```text
//! snapshots   key or name            ->  version byte (1), then JSON: { id, info, usage }
//! children    (parent, key or name)  ->  ()
//! ids         id of the directory    ->  key or name
//! meta        "format"               ->  1
//!             "next id"              ->  the first id that was never recorded
//! ```

use redb::{Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use windlass_core::error::{Error, Result};
use windlass_core::snapshot::{Info, Usage};

use super::batch::Failure;

pub(crate) const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
pub(crate) const CHILDREN: TableDefinition<'_, (&str, &str), ()> = TableDefinition::new("children");
pub(crate) const IDS: TableDefinition<'_, u64, &str> = TableDefinition::new("ids");
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The key of the format number in [`META`], and the number that this code writes.
pub(crate) const FORMAT: &str = "format";
pub(crate) const CURRENT_FORMAT: u64 = 1;
/// The key in [`META`] of the first id that was never recorded.
pub(crate) const NEXT_ID: &str = "next id";

/// The version byte in front of a record.
const RECORD_VERSION: u8 = 1;

/// What is recorded of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The number of its directory.
    pub(crate) id: u64,
    /// What callers see.
    pub(crate) info: Info,
    /// What it takes up; measured when it is committed.
    pub(crate) usage: Option<Usage>,
}

impl Record {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![RECORD_VERSION];
        serde_json::to_writer(&mut bytes, self).map_err(|error| {
            Error::internal(format!("write the record of snapshot {}", self.info.key)).source(error)
        })?;
        Ok(bytes)
    }

    pub(crate) fn decode(key: &str, bytes: &[u8]) -> Result<Self> {
        match bytes {
            [RECORD_VERSION, json @ ..] => serde_json::from_slice(json)
                .map_err(|error| Error::data_loss(format!("the record of snapshot {key} is damaged")).source(error)),
            [version, ..] => Err(Error::failed_precondition(format!(
                "the record of snapshot {key} has version {version}, and {RECORD_VERSION} is the newest that is known"
            ))
            .hint("use the version of the program that wrote it, or a newer one")),
            [] => Err(Error::data_loss(format!("the record of snapshot {key} is empty"))),
        }
    }
}

/// All tables, open in a transaction that writes.
pub(crate) struct Tables<'t> {
    pub(crate) snapshots: Table<'t, &'static str, &'static [u8]>,
    pub(crate) children: Table<'t, (&'static str, &'static str), ()>,
    pub(crate) ids: Table<'t, u64, &'static str>,
    pub(crate) meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    pub(crate) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::TableError> {
        Ok(Self {
            snapshots: transaction.open_table(SNAPSHOTS)?,
            children: transaction.open_table(CHILDREN)?,
            ids: transaction.open_table(IDS)?,
            meta: transaction.open_table(META)?,
        })
    }

    /// Writes a record under its key, and its id.
    pub(crate) fn put(&mut self, record: &Record) -> Result<(), Failure> {
        let key = record.info.key.as_str();
        self.snapshots.insert(key, record.encode()?.as_slice())?;
        self.ids.insert(record.id, key)?;
        Ok(())
    }
}
