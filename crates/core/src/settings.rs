//! A text of TOML, read key by key: whoever asks for a key says what it has to be, and what nobody asked for is known in the
//! end. Every complaint names file, line and key. Files are opened elsewhere.
//!
//! ```
//! use windlass_core::settings::{Source, Table};
//!
//! let source = Source::new("a.toml".as_ref(), "speed = 3\nspead = 4\n".to_owned());
//! let file = source.parse().unwrap();
//! let mut table = Table::root(&source, file.get_ref());
//! assert_eq!(table.value("speed").unwrap().number::<u8>().unwrap(), 3);
//! let unknown = table.rest();
//! assert_eq!((unknown[0].place.as_str(), unknown[0].nearest.as_deref()), ("a.toml:2", Some("speed")));
//! ```

mod nearest;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use nearest::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};

/// Where a text is from, to say where something stands.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

/// A key that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// File and line.
    pub place: String,
    /// The key with those of the tables that it is in.
    pub key: String,
    /// What was probably meant.
    pub nearest: Option<String>,
    /// What could have been meant.
    pub known: Vec<&'static str>,
}

impl Source {
    /// Takes a text; `path` is where it is from.
    pub fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text }
    }

    /// Reads the table that the file is.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no TOML, with the line.
    pub fn parse(&self) -> Result<Spanned<DeTable<'_>>> {
        DeTable::parse(&self.text).map_err(|error| {
            let at = error.span().unwrap_or_default();
            Error::invalid_argument(format!("{}: {}", self.place(&at), error.message()))
        })
    }

    fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        format!("{}:{}", self.path.display(), before.matches('\n').count() + 1)
    }
}

/// A table that is being read.
#[derive(Debug)]
pub struct Table<'d> {
    source: &'d Source,
    entries: &'d DeTable<'d>,
    /// The keys of the tables that it is in, each with a dot behind it.
    prefix: String,
    known: Vec<&'static str>,
}

impl<'d> Table<'d> {
    /// Reads the table that a whole text is.
    pub fn root(source: &'d Source, table: &'d DeTable<'d>) -> Self {
        Self { source, entries: table, prefix: String::new(), known: Vec::new() }
    }

    /// Asks for a key.
    pub fn value(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.known.push(key);
        self.entries.get(key).map(|value| self.at(key, value))
    }

    /// Asks for a key that is a table.
    pub fn table(&mut self, key: &'static str) -> Result<Option<Self>> {
        self.value(key).map(Value::table).transpose()
    }

    /// Returns every entry in the order of the text, for a table whose keys are names that the user chose.
    pub fn entries(self) -> Vec<(&'d str, Value<'d>)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().map(|(key, value)| (&**key.get_ref(), self.at(key.get_ref(), value))).collect()
    }

    fn at(&self, key: &str, value: &'d Spanned<DeValue<'d>>) -> Value<'d> {
        Value { source: self.source, key: format!("{}{}", self.prefix, quoted(key)), given: value }
    }

    /// Returns the keys that nobody asked for.
    pub fn rest(self) -> Vec<Unknown> {
        let mut unknown = Vec::new();
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&&**key.get_ref())) {
            let nearest = nearest(key.get_ref(), self.known.iter().copied());
            unknown.push(Unknown {
                place: self.source.place(&key.span()),
                key: format!("{}{}", self.prefix, quoted(key.get_ref())),
                nearest: nearest.map(|name| format!("{}{name}", self.prefix)),
                known: self.known.clone(),
            });
        }
        unknown
    }
}

/// Writes a key as it stands in a path of keys.
fn quoted(key: &str) -> String {
    if key.contains('.') { format!("{key:?}") } else { key.to_owned() }
}

/// A value of a key.
#[derive(Debug)]
pub struct Value<'d> {
    source: &'d Source,
    key: String,
    given: &'d Spanned<DeValue<'d>>,
}

impl<'d> Value<'d> {
    /// Returns file and line.
    pub fn place(&self) -> String {
        self.source.place(&self.given.span())
    }

    /// Returns the key with those of the tables that it is in.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Makes an error about the value.
    pub fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid_argument(format!("{}: {} {what}", self.place(), self.key))
    }

    fn expected(&self, kind: &str) -> Error {
        self.wrong(format_args!("is to be {kind} and is {}", name(self.given.get_ref())))
    }

    /// Returns the table that it is.
    pub fn table(self) -> Result<Table<'d>> {
        match self.given.get_ref() {
            DeValue::Table(table) => {
                Ok(Table { source: self.source, entries: table, prefix: format!("{}.", self.key), known: Vec::new() })
            }
            _ => Err(self.expected("a table")),
        }
    }

    /// Returns the string that it is.
    pub fn text(&self) -> Result<String> {
        match self.given.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            _ => Err(self.expected("a string")),
        }
    }

    /// Returns a path; one that is empty is none, as containerd has it.
    pub fn path(&self) -> Result<Option<PathBuf>> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        if !text.starts_with('/') {
            return Err(self.wrong(format_args!("is {text:?}, which does not begin with /")));
        }
        Ok(Some(text.into()))
    }

    /// Returns a whole number.
    pub fn number<T: TryFrom<i64>>(&self) -> Result<T> {
        let DeValue::Integer(number) = self.given.get_ref() else { return Err(self.expected("a number")) };
        let whole = i64::from_str_radix(number.as_str(), number.radix()).ok();
        whole
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.wrong(format_args!("is {}, which is out of range", number.as_str())))
    }

    /// Returns a number that may have a fraction.
    pub fn fraction(&self) -> Result<f64> {
        let text = match self.given.get_ref() {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => return Err(self.expected("a number")),
        };
        text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| self.expected("a number"))
    }

    /// Returns true or false.
    pub fn flag(&self) -> Result<bool> {
        match self.given.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            _ => Err(self.expected("true or false")),
        }
    }

    /// Returns a length of time, such as `100ms`.
    pub fn duration(&self) -> Result<Duration> {
        let text = self.text()?;
        humantime::parse_duration(&text)
            .map_err(|error| self.wrong(format_args!("is {text:?}, which is no length of time: {error}")))
    }

    /// Tells whether it says nothing: an empty string, list or table, 0 or false.
    pub fn is_empty(&self) -> bool {
        match self.given.get_ref() {
            DeValue::String(text) => text.is_empty(),
            DeValue::Integer(number) => number.as_str() == "0",
            DeValue::Float(_) | DeValue::Datetime(_) => false,
            DeValue::Boolean(flag) => !flag,
            DeValue::Array(items) => items.is_empty(),
            DeValue::Table(table) => table.iter().next().is_none(),
        }
    }

    /// Tells whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.given.get_ref(), DeValue::Array(_))
    }

    /// Returns the items of a list, or the value itself where one may stand for a list of one.
    pub fn one_or_list(self) -> Result<Vec<Value<'d>>> {
        if self.is_list() { self.list() } else { Ok(vec![self]) }
    }

    /// Returns the items of a list.
    pub fn list(self) -> Result<Vec<Value<'d>>> {
        match self.given.get_ref() {
            DeValue::Array(items) => Ok(items
                .iter()
                .map(|value| Value { source: self.source, key: self.key.clone(), given: value })
                .collect()),
            _ => Err(self.expected("a list")),
        }
    }

    /// Returns the strings of a list.
    pub fn texts(self) -> Result<Vec<String>> {
        self.list()?.iter().map(Value::text).collect()
    }

    /// Returns a table of strings with names that the user chose.
    pub fn map(self) -> Result<BTreeMap<String, String>> {
        self.table()?.entries().into_iter().map(|(key, value)| Ok((key.to_owned(), value.text()?))).collect()
    }

    /// Returns what one of a few words stands for.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T> {
        let text = self.text()?;
        if let Some((_, meant)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meant);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Err(self.wrong(format_args!("is {text:?}")).hint(format!("it is one of {}", known.join(", "))))
    }
}

fn name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
