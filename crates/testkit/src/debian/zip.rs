//! Reads what a wheel is: a zip archive, by its directory. As far as wheels go: no encryption, stored or deflated.
//!
//! The numbers are those of PKWARE's APPNOTE, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14 to 4.3.16 (its end),
//! 4.5.3 (sizes of 64 bits).

use std::fs::File;
use std::io::{BufReader, Error, Read, Result, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

const END: u32 = 0x0605_4b50;
const ENTRY: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// What a field of 32 bits has when the number is elsewhere.
const ELSEWHERE: u64 = 0xffff_ffff;

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path; that of a directory ends with a slash.
    pub(super) path: String,
    /// How many bytes it has.
    pub(super) size: u64,
    /// Its permissions.
    pub(super) mode: u32,
    compressed: u64,
    method: u16,
    local: u64,
}

/// Returns the entries of an archive, in the order of its directory.
pub(super) fn entries(file: &mut File) -> Result<Vec<Entry>> {
    let length = file.seek(SeekFrom::End(0))?;
    // The end has 22 bytes, and a comment of at most 65,535.
    let from = length.saturating_sub(22 + 65_535);
    let tail = bytes(file, from, length - from)?;
    let at = (0..tail.len().saturating_sub(21)).rev().find(|at| number(&tail, *at, 4) == Some(u64::from(END)));
    let end = at.and_then(|at| tail.get(at..)).ok_or_else(|| Error::other("this is not a zip archive"))?;
    let field = |at, size| number(end, at, size).ok_or_else(cut);
    let directory = bytes(file, field(16, 4)?, field(12, 4)?)?;
    let mut rest = directory.as_slice();
    let mut entries = Vec::new();
    for _ in 0..field(10, 2)? {
        let (entry, after) = entry(rest)?;
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}

/// Reads an entry of the directory, and returns what is behind it.
fn entry(bytes: &[u8]) -> Result<(Entry, &[u8])> {
    let field = |at, size| number(bytes, at, size).ok_or_else(cut);
    if field(0, 4)? != u64::from(ENTRY) {
        return Err(Error::other("the directory of the zip archive has something else in it"));
    }
    let length = |at| Ok::<_, Error>(usize::try_from(field(at, 2)?).unwrap_or_default());
    let (name, extra, comment) = (length(28)?, length(30)?, length(32)?);
    let (compressed, size, local) = (field(20, 4)?, field(24, 4)?, field(42, 4)?);
    if [compressed, size, local].contains(&ELSEWHERE) {
        return Err(Error::other("a zip archive with sizes of 64 bits"));
    }
    let path = bytes.get(46..46 + name).ok_or_else(cut)?;
    let path = std::str::from_utf8(path).map_err(Error::other)?.to_owned();
    // What made the archive on Unix keeps the mode in the upper half.
    let mode = u32::try_from(field(40, 2)?).unwrap_or_default() & 0o777;
    let mode = if mode & 0o111 != 0 || path.ends_with('/') { 0o755 } else { 0o644 };
    let method = u16::try_from(field(10, 2)?).unwrap_or_default();
    let after = bytes.get(46 + name + extra + comment..).ok_or_else(cut)?;
    Ok((Entry { path, size, mode, compressed, method, local }, after))
}

/// Returns a reader of an entry's content.
pub(super) fn open<'a>(file: &'a mut File, entry: &Entry) -> Result<Box<dyn Read + 'a>> {
    let header = bytes(file, entry.local, 30)?;
    let field = |at, size| number(&header, at, size).ok_or_else(cut);
    if field(0, 4)? != u64::from(LOCAL) {
        return Err(Error::other(format!("{} is not where the directory of the zip archive says", entry.path)));
    }
    file.seek(SeekFrom::Start(entry.local + 30 + field(26, 2)? + field(28, 2)?))?;
    let content = file.take(entry.compressed);
    match entry.method {
        0 => Ok(Box::new(content)),
        8 => Ok(Box::new(DeflateDecoder::new(BufReader::with_capacity(256 << 10, content)).take(entry.size))),
        other => Err(Error::other(format!("{} is compressed with method {other}", entry.path))),
    }
}

fn bytes(file: &mut File, from: u64, length: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = vec![0; usize::try_from(length).map_err(Error::other)?];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a little-endian number.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(size)?)?;
    Some(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn cut() -> Error {
    Error::other("the zip archive ends too early")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Writes an archive with Python's module.
    const WRITE: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as archive:
    archive.writestr("stored", b"as it is", zipfile.ZIP_STORED)
    archive.writestr("deflated", b"again " * 10000, zipfile.ZIP_DEFLATED)
    program = zipfile.ZipInfo("bin/program")
    program.external_attr = 0o100755 << 16
    archive.writestr(program, b"")
    archive.comment = b"a comment"
"#;

    #[test]
    fn what_python_wrote_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.zip");
        assert!(Command::new("python3").args(["-c", WRITE]).arg(&path).status().unwrap().success());
        let mut file = File::open(&path).unwrap();
        let entries = entries(&mut file).unwrap();
        let mut read = |entry: &Entry| {
            let mut content = Vec::new();
            open(&mut file, entry).unwrap().read_to_end(&mut content).unwrap();
            assert_eq!(content.len() as u64, entry.size);
            (entry.path.clone(), entry.mode, content)
        };
        let expected = [
            ("stored".to_owned(), 0o644, b"as it is".to_vec()),
            ("deflated".to_owned(), 0o644, b"again ".repeat(10_000)),
            ("bin/program".to_owned(), 0o755, Vec::new()),
        ];
        assert_eq!(entries.iter().map(&mut read).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_not_a_zip_archive_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.zip");
        for content in [&b""[..], b"PK", &[0; 100]] {
            std::fs::write(&path, content).unwrap();
            assert!(entries(&mut File::open(&path).unwrap()).is_err());
        }
    }
}
