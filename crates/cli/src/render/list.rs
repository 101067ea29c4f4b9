//! Lists that are printed while they are read: memory does not grow with their length.

use std::borrow::Cow;
use std::io::{BufWriter, Stdout, Write};

use comfy_table::{CellAlignment, ColumnConstraint, Table, Width, presets};
use serde::Serialize;

use super::{Format, printable, to_json};
use crate::failure::{Failure, Outcome};

/// How many rows are laid out together; columns get no narrower from one such part to the next.
const ROWS: usize = 512;

/// A list of records with `N` columns. One that is dropped before its end, because of an error, is closed all the same:
/// what was printed is a whole table or array of what there was until then.
pub(crate) struct List<const N: usize> {
    format: Format,
    header: [String; N],
    rows: Vec<[String; N]>,
    widths: [usize; N],
    printed: usize,
    closed: bool,
    out: BufWriter<Stdout>,
}

impl<const N: usize> List<N> {
    pub(super) fn new(format: Format, header: [&str; N]) -> Self {
        let widths = header.map(str::len);
        let out = BufWriter::new(std::io::stdout());
        Self { format, header: header.map(str::to_owned), rows: Vec::new(), widths, printed: 0, closed: false, out }
    }

    /// Adds a record: its fields in JSON, otherwise the cells of a row.
    pub(crate) fn push<T: Serialize>(&mut self, record: &T, cells: impl FnOnce(&T) -> [String; N]) -> Outcome {
        match self.format {
            Format::Json => {
                let separator = if self.printed == 0 { "[\n  " } else { ",\n  " };
                let json = to_json(record, false)?;
                self.printed += 1;
                write!(self.out, "{separator}{json}").map_err(Failure::output)
            }
            Format::Table => {
                self.rows.push(cells(record).map(shown));
                if self.rows.len() >= ROWS { self.print_rows() } else { Ok(()) }
            }
        }
    }

    /// Prints what is left. A list without records is a header alone, or an empty array.
    pub(crate) fn finish(mut self) -> Outcome {
        self.close()
    }

    fn close(&mut self) -> Outcome {
        self.closed = true;
        match self.format {
            Format::Json if self.printed == 0 => writeln!(self.out, "[]").map_err(Failure::output)?,
            Format::Json => writeln!(self.out, "\n]").map_err(Failure::output)?,
            Format::Table => self.print_rows()?,
        }
        self.out.flush().map_err(Failure::output)
    }

    fn print_rows(&mut self) -> Outcome {
        if self.rows.is_empty() && self.printed > 0 {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let rows = std::mem::take(&mut self.rows);
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if self.printed == 0 {
            table.set_header(self.header.iter());
        }
        self.printed += 1;
        for row in rows {
            table.add_row(row);
        }
        for (column, width) in table.column_iter_mut().zip(self.widths) {
            let width = u16::try_from(width.saturating_add(2)).unwrap_or(u16::MAX);
            column.set_padding((0, 2));
            column.set_cell_alignment(CellAlignment::Left);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim_end()).map_err(Failure::output)?;
        }
        Ok(())
    }
}

/// Returns a cell without control characters.
fn shown(cell: String) -> String {
    let changed = match printable(&cell) {
        Cow::Owned(text) => Some(text),
        Cow::Borrowed(_) => None,
    };
    changed.unwrap_or(cell)
}

impl<const N: usize> Drop for List<N> {
    fn drop(&mut self) {
        if !self.closed {
            // The error that brought this about is the one to be told.
            let _ = self.close();
        }
    }
}

/// A list of names: one a line, or an array.
pub(crate) struct Names(List<1>);

impl Names {
    pub(super) fn new(format: Format) -> Self {
        let mut list = List::new(format, [""]);
        // No header.
        list.printed = usize::from(format == Format::Table);
        Self(list)
    }

    /// Adds a name.
    pub(crate) fn push<T: Serialize + ToString>(&mut self, name: &T) -> Outcome {
        match self.0.format {
            Format::Json => self.0.push(name, |_| Default::default()),
            Format::Table => writeln!(self.0.out, "{}", printable(&name.to_string())).map_err(Failure::output),
        }
    }

    /// Prints what is left.
    pub(crate) fn finish(self) -> Outcome {
        self.0.finish()
    }
}
