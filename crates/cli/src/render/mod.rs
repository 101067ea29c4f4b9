//! Data for standard output: tables for people, JSON for programs.
//!
//! A table is for reading and may change; JSON is an interface, described in `docs/commands.md`.

mod human;
mod list;

use std::borrow::Cow;
use std::io::Write;

use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;

pub(crate) use human::{age, count, digest, labels, quoted, size, until};
pub(crate) use list::{List, Names};

use crate::failure::{Failure, Outcome};

/// What data looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Without doc comments, which would make a page of the help of every command.
    Table,
    Json,
}

/// Standard output, in a format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// The format.
    pub(crate) format: Format,
}

impl Output {
    /// Tells whether data is for programs.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints one record: an object in JSON, otherwise what `table` makes of it.
    pub(crate) fn record<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> Outcome {
        match self.format {
            Format::Json => line(&to_json(value, true)?),
            Format::Table => line(table(value).trim_end()),
        }
    }

    /// Begins a list of names or keys, printed as they come: one a line, or an array.
    pub(crate) fn names(self) -> Names {
        Names::new(self.format)
    }

    /// Prints one name.
    pub(crate) fn name<T: Serialize + ToString>(self, name: &T) -> Outcome {
        match self.format {
            Format::Json => line(&to_json(name, false)?),
            Format::Table => line(&printable(&name.to_string())),
        }
    }

    /// Begins a list of records, printed as they come.
    pub(crate) fn list<const N: usize>(self, header: [&str; N]) -> List<N> {
        List::new(self.format, header)
    }
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::output)
}

/// Writes bytes to standard output as they are, without holding up the tasks of this thread.
pub(crate) async fn write_bytes(bytes: Bytes) -> Outcome {
    let write = move || {
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes).and_then(|()| out.flush())
    };
    let written = tokio::task::spawn_blocking(write).await;
    written.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(Failure::output)
}

/// Aligns names and values.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = fields.iter().map(|(name, value)| format!("{name:width$}  {}", printable(value)));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Returns text without control characters: what comes off the wire must not drive the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let visible = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(visible).collect())
}

fn to_json<T: Serialize>(value: &T, pretty: bool) -> Outcome<String> {
    let json = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    json.map_err(|error| windlass_core::Error::internal("encode JSON").source(error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("plain text"), "plain text");
        assert_eq!(printable("\u{1b}[2Jx\n"), "\\u{1b}[2Jx\\n");
    }

    #[test]
    fn fields_are_aligned() {
        let text = fields(&[("name", "x".into()), ("downloaded", "1 B".into())]);
        assert_eq!(text, "name        x\ndownloaded  1 B\n");
    }
}
