//! Reading the records of a snapshotter that may be damaged, from a copy in memory.

use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, StorageBackend as _};
use windlass_core::error::{Error, Result};

use super::Snapshot;
use super::compare::Tables;
use crate::records::damage::guarded;
use crate::records::schema::{CHILDREN, FORMAT, IDS, META, Record, SNAPSHOTS};
use crate::records::{CURRENT_FORMAT, Failure};

/// How much is given up of what cannot be read.
const PIECE: usize = 4096;

/// What came of reading.
pub(super) enum Read {
    /// There is no file.
    Absent,
    /// The file is what it was when it was written.
    Sound(Tables),
    /// It is not; the rest is what could be read nevertheless.
    Damaged {
        /// What is wrong.
        detail: String,
        rest: Tables,
    },
}

/// Reads all tables.
pub(super) fn tables(path: &Path) -> Result<Read> {
    let bytes = match std::fs::read(path) {
        // Made, and never written.
        Ok(bytes) if bytes.is_empty() => return Ok(Read::Absent),
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Read::Absent),
        Err(error) if is_unreadable(&error) => {
            let bytes = readable(path).map_err(|error| Error::io(format!("read {}", path.display()), error))?;
            let rest = guarded(|| salvage(&open(&bytes)?)).unwrap_or_default();
            return Ok(Read::Damaged { detail: error.to_string(), rest });
        }
        Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
    };
    // What a reader without the repair sees comes first: the repair may go back to an older commit.
    let rest = guarded(|| salvage(&open(&bytes)?)).unwrap_or_default();
    match guarded(|| intact(&bytes)) {
        Ok(None) => Ok(Read::Sound(rest)),
        Ok(Some(detail)) => Ok(Read::Damaged { detail, rest }),
        Err(error) if error.is(windlass_core::Kind::FailedPrecondition) => Err(error),
        Err(error) => Ok(Read::Damaged { detail: error.to_string(), rest }),
    }
}

/// Tells whether the disk does not give back what was written.
fn is_unreadable(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn readable(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or_default()];
    pieces(&mut bytes, |piece, offset| file.read_exact_at(piece, offset))?;
    Ok(bytes)
}

/// Reads piece by piece; those that the disk does not give back are zero.
fn pieces(bytes: &mut [u8], read: impl Fn(&mut [u8], u64) -> std::io::Result<()>) -> std::io::Result<()> {
    for (number, piece) in bytes.chunks_mut(PIECE).enumerate() {
        match read(piece, (number * PIECE) as u64) {
            Err(error) if is_unreadable(&error) => piece.fill(0),
            read => read?,
        }
    }
    Ok(())
}

/// Checks every page of the file; says what is wrong.
fn intact(bytes: &[u8]) -> Result<Option<String>, Failure> {
    let mut database = open(bytes)?;
    if !database.check_integrity()? {
        return Ok(Some("its checksums do not fit".to_owned()));
    }
    let format = database.begin_read()?.open_table(META)?.get(FORMAT)?.map(|format| format.value());
    match format {
        Some(CURRENT_FORMAT) => Ok(None),
        Some(newer) if newer > CURRENT_FORMAT => Err(Error::failed_precondition(format!(
            "the records of snapshots have format {newer}, and {CURRENT_FORMAT} is the newest that is known"
        ))
        .hint("use the version of the program that wrote them, or a newer one")
        .into()),
        other => Ok(Some(format!("it has no valid format version: {other:?}"))),
    }
}

fn open(bytes: &[u8]) -> Result<Database, Failure> {
    let copy = InMemoryBackend::new();
    let fill = copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, bytes));
    fill.map_err(|error| Error::io("copy the records of snapshots", error))?;
    Ok(Database::builder().create_with_backend(copy)?)
}

/// Reads what can be read. A table that breaks off is taken as far as it goes.
fn salvage(database: &Database) -> Result<Tables, Failure> {
    let read = database.begin_read()?;
    let mut tables = Tables::default();
    // Each by itself: one that is damaged does not take the others with it.
    for part in [snapshots, children, ids] {
        drop(guarded(|| part(&read, &mut tables)));
    }
    Ok(tables)
}

fn snapshots(read: &ReadTransaction, tables: &mut Tables) -> Result<(), Failure> {
    for entry in read.open_table(SNAPSHOTS)?.iter()? {
        let (key, value) = entry?;
        match Record::decode(key.value(), value.value()) {
            Ok(Record { id, info, usage }) if info.key.as_str() == key.value() => {
                tables.records.push(Snapshot { id, info, usage });
            }
            Ok(record) => {
                let detail = format!("it is that of snapshot {}", record.info.key);
                tables.undecodable.push((key.value().to_owned(), detail));
            }
            Err(error) => tables.undecodable.push((key.value().to_owned(), error.to_string())),
        }
    }
    Ok(())
}

fn children(read: &ReadTransaction, tables: &mut Tables) -> Result<(), Failure> {
    for entry in read.open_table(CHILDREN)?.iter()? {
        let key = entry?.0;
        let (parent, child) = key.value();
        tables.children.insert((parent.to_owned(), child.to_owned()));
    }
    Ok(())
}

fn ids(read: &ReadTransaction, tables: &mut Tables) -> Result<(), Failure> {
    for entry in read.open_table(IDS)?.iter()? {
        let (id, key) = entry?;
        tables.ids.insert(id.value(), key.value().to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_does_not_give_back_is_zero_and_the_rest_is_read() {
        let read = |piece: &mut [u8], offset: u64| {
            piece.fill(7);
            match offset {
                4096 => Err(rustix::io::Errno::IO.into()),
                _ => Ok(()),
            }
        };
        let mut bytes = vec![1; 3 * PIECE];
        pieces(&mut bytes, read).unwrap();
        assert_eq!((bytes[PIECE - 1], bytes[PIECE], bytes[2 * PIECE - 1], bytes[2 * PIECE]), (7, 0, 0, 7));
        let denied = |_: &mut [u8], _| Err(ErrorKind::PermissionDenied.into());
        assert!(pieces(&mut bytes, denied).is_err());
    }
}
