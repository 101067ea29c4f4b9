//! Records: typed values in a table, encoded with a version in front.

use std::marker::PhantomData;
use std::ops::Bound;

use redb::ReadableTable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use windlass_core::{Error, Result};

use super::damage::MEND;
use super::{Transaction, View, failed};

/// The version of the encoding: its byte, then JSON.
const JSON: u8 = 1;

/// Builds composite keys: the parts joined by NUL, which no part can contain.
pub(crate) struct Key;

impl Key {
    /// Returns the key of one record.
    pub(crate) fn of<const N: usize>(parts: [&str; N]) -> String {
        parts.join("\0")
    }

    /// Returns what all keys that begin with the parts, and have more, begin with.
    pub(crate) fn prefix<const N: usize>(parts: [&str; N]) -> String {
        let mut prefix = parts.join("\0");
        prefix.push('\0');
        prefix
    }
}

/// The value of records that say nothing but that they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Present;

/// The records of one table.
pub(crate) struct Records<T> {
    table: &'static str,
    record: PhantomData<fn() -> T>,
}

impl<T> Records<T> {
    pub(crate) const fn new(table: &'static str) -> Self {
        Self { table, record: PhantomData }
    }

    /// Returns the name of the table.
    pub(crate) const fn table(&self) -> &'static str {
        self.table
    }

    /// Tells whether there is a record.
    pub(crate) fn contains(&self, view: &impl View, key: &str) -> Result<bool> {
        view.with_table(self.table, |table| Ok(table.get(key).map_err(failed)?.is_some()))
    }

    /// Returns up to `limit` keys with a prefix, after a key, in order.
    pub(crate) fn keys(
        &self,
        view: &impl View,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        self.visit(view, prefix, after, limit, |key, _| {
            keys.push(key.to_owned());
            Ok(())
        })?;
        Ok(keys)
    }

    /// Returns the different first parts of the keys, such as the namespaces that records are in, without reading what is
    /// between them.
    pub(crate) fn first_parts(&self, view: &impl View) -> Result<Vec<String>> {
        let mut parts: Vec<String> = Vec::new();
        loop {
            // Everything of the last part lies before it with the next character.
            let after = parts.last().map(|part| format!("{part}\u{1}"));
            let next = self.keys(view, "", after.as_deref(), 1)?;
            let Some(key) = next.first() else { return Ok(parts) };
            parts.push(key.split('\0').next().unwrap_or(key).to_owned());
        }
    }

    /// Returns how many records have a prefix.
    pub(crate) fn count(&self, view: &impl View, prefix: &str) -> Result<u64> {
        let mut count = 0;
        self.visit(view, prefix, None, usize::MAX, |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Removes a record and tells whether there was one.
    pub(crate) fn remove(&self, transaction: &Transaction, key: &str) -> Result<bool> {
        let removed = transaction.table(self.table)?.remove(key).map_err(failed)?.is_some();
        if removed {
            transaction.wrote();
        }
        Ok(removed)
    }

    /// Visits up to `limit` records with a prefix, after a key, as they lie in the table; [`decode`] reads them.
    pub(crate) fn visit(
        &self,
        view: &impl View,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        mut visit: impl FnMut(&str, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let lower = after.map_or(Bound::Included(prefix), Bound::Excluded);
        // A prefix ends with NUL, so whatever begins with it lies before the same with the next character.
        let end = prefix.strip_suffix('\0').map(|begin| format!("{begin}\u{1}"));
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        view.with_table(self.table, |table| {
            for entry in table.range::<&str>((lower, upper)).map_err(failed)?.take(limit) {
                let (key, value) = entry.map_err(failed)?;
                visit(key.value(), value.value())?;
            }
            Ok(())
        })
    }
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Returns a record.
    pub(crate) fn get(&self, view: &impl View, key: &str) -> Result<Option<T>> {
        view.with_table(self.table, |table| {
            let value = table.get(key).map_err(failed)?;
            value.map(|value| self.decode(key, value.value())).transpose()
        })
    }

    /// Returns up to `limit` records with a prefix, after a key, in the order of the keys.
    pub(crate) fn page(
        &self,
        view: &impl View,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, T)>> {
        let mut page = Vec::new();
        self.visit(view, prefix, after, limit, |key, value| {
            page.push((key.to_owned(), self.decode(key, value)?));
            Ok(())
        })?;
        Ok(page)
    }

    /// Returns all records with a prefix: only where there are few, or where all are needed.
    pub(crate) fn all(&self, view: &impl View, prefix: &str) -> Result<Vec<(String, T)>> {
        self.page(view, prefix, None, usize::MAX)
    }

    /// Visits all records with a prefix in the order of the keys; one that does not decode is an error for `visit` to judge.
    pub(crate) fn each(
        &self,
        view: &impl View,
        prefix: &str,
        mut visit: impl FnMut(&str, Result<T>) -> Result<()>,
    ) -> Result<()> {
        self.visit(view, prefix, None, usize::MAX, |key, value| visit(key, self.decode(key, value)))
    }

    /// Writes a record.
    pub(crate) fn put(&self, transaction: &Transaction, key: &str, record: &T) -> Result<()> {
        let value = encode(record).map_err(|error| error.context(self.name(key)))?;
        transaction.wrote();
        transaction.table(self.table)?.insert(key, value.as_slice()).map_err(failed)?;
        Ok(())
    }

    fn decode(&self, key: &str, value: &[u8]) -> Result<T> {
        decode(value).map_err(|error| error.context(format!("read {}", self.name(key))))
    }

    fn name(&self, key: &str) -> String {
        format!("record {:?} of {}", key.replace('\0', "/"), self.table)
    }
}

/// Encodes a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let mut value = vec![JSON];
    serde_json::to_writer(&mut value, record)
        .map_err(|error| Error::internal("a record cannot be encoded").source(error))?;
    Ok(value)
}

/// Decodes a record.
pub(crate) fn decode<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T> {
    match value.split_first() {
        Some((&JSON, json)) => serde_json::from_slice(json)
            .map_err(|error| Error::data_loss("the record is damaged").source(error).hint(MEND)),
        Some((version, _)) => {
            Err(Error::failed_precondition(format!("the record has encoding {version}, this program knows {JSON}"))
                .hint("use the version of the program that wrote it"))
        }
        None => Err(Error::data_loss("the record is empty").hint(MEND)),
    }
}
