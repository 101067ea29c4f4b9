//! Writing tar archives: ustar headers, with PAX records for what does not fit into them.
//!
//! POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Extended Header". The same entries make the same bytes: nothing
//! is written that nobody said, such as names of users or times of access. Sparse files are written out with their holes as
//! zeros, because few readers of layers know anything else.

use std::io::{self, Write};

use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

use super::{BLOCK, Device, Entry, Kind, Timestamp};

/// How long the name and the target of a link in a header are.
const NAME_LEN: usize = 100;
/// The largest number in a field of eight bytes, an octal digit each, with a NUL.
const SMALL: u64 = 0o7_777_777;
/// The largest number in a field of twelve bytes.
const LARGE: u64 = 0o77_777_777_777;

/// The name of the entry that carries PAX records, which no reader looks at.
const RECORDS_NAME: &[u8] = b"PaxHeaders.0/entry";

/// Writes an archive into a writer, entry by entry.
///
/// ```
/// use windlass_archive::tar::{Entry, Kind, Writer};
///
/// let mut tar = Writer::new(Vec::new());
/// let kind = Kind::Regular { size: 5, sparse: false };
/// tar.entry(&Entry { path: b"greeting".to_vec(), mode: 0o644, ..Entry::new(kind) }).unwrap();
/// tar.data(b"hello").unwrap();
/// assert_eq!(tar.finish().unwrap().len(), 4 * 512);
/// ```
#[derive(Debug)]
pub struct Writer<W> {
    into: W,
    /// How many bytes of the current entry are still to come.
    missing: u64,
    /// How many zeros come after them.
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(into: W) -> Self {
        Self { into, missing: 0, padding: 0 }
    }

    /// Begins an entry. The name of a directory gets its slash. Of a regular file all bytes have to follow.
    ///
    /// # Errors
    /// `Internal` when bytes of the entry before are missing; those of the writer behind.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end()?;
        let header = Header::of(entry);
        if !header.records.is_empty() {
            let length = header.records.len() as u64;
            self.put(&special(length))?;
            self.put(&header.records)?;
            self.put(zeros(padding(length)))?;
        }
        self.put(&header.block)?;
        self.missing = header.size;
        self.padding = padding(header.size);
        Ok(())
    }

    /// Writes bytes of the current entry.
    ///
    /// # Errors
    /// `Internal` for more than its size; those of the writer behind.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.missing = self
            .missing
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Error::internal("an entry of an archive got more bytes than its size"))?;
        self.put(bytes)
    }

    /// Ends the archive and returns the writer behind.
    ///
    /// # Errors
    /// As [`Writer::entry`].
    pub fn finish(mut self) -> Result<W> {
        self.end()?;
        self.put(zeros(BLOCK))?;
        self.put(zeros(BLOCK))?;
        Ok(self.into)
    }

    /// Returns the writer behind.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.into
    }

    fn end(&mut self) -> Result<()> {
        if self.missing > 0 {
            return Err(Error::internal(format!("an entry of an archive lacks {} bytes", self.missing)));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(zeros(padding))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        // An error that a writer of ours brought along keeps its kind.
        self.into.write_all(bytes).map_err(|error| match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => Error::io("write an archive", error),
        })
    }
}

impl<W: Write> Writer<W> {
    /// Copies all bytes of the current entry from a reader.
    ///
    /// # Errors
    /// `Aborted` when there are fewer bytes: whoever reads names the file. As [`Writer::data`].
    pub fn data_from(&mut self, from: &mut dyn io::Read) -> Result<()> {
        let mut buffer = vec![0; 128 << 10];
        while self.missing > 0 {
            let wanted = usize::try_from(self.missing).unwrap_or(usize::MAX).min(buffer.len());
            let room = buffer.get_mut(..wanted).unwrap_or_default();
            let length = from.read(room).attempt(|| "read".to_owned())?;
            if length == 0 {
                return Err(Error::aborted(format!("there are {} bytes less than there were", self.missing)));
            }
            self.data(buffer.get(..length).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// What comes before the bytes of an entry.
struct Header {
    block: [u8; BLOCK],
    records: Vec<u8>,
    size: u64,
}

impl Header {
    fn of(entry: &Entry) -> Self {
        let mut block = Block::default();
        let mut records = Records::default();
        let (letter, size, target, device) = described(&entry.kind);
        let mut path = entry.path.clone();
        if entry.kind == Kind::Directory && path.last() != Some(&b'/') {
            path.push(b'/');
        }
        for (key, field, text) in [("path", 0, &path[..]), ("linkpath", 157, target)] {
            if !fits(text) {
                records.add(key.as_bytes(), text);
            }
            block.text(field, NAME_LEN, text);
        }
        block.number(100, 8, u64::from(entry.mode & 0o7777));
        for (key, field, id) in [("uid", 108, entry.uid), ("gid", 116, entry.gid)] {
            if u64::from(id) > SMALL {
                records.add(key.as_bytes(), id.to_string().as_bytes());
            }
            block.number(field, 8, u64::from(id).min(SMALL));
        }
        if size > LARGE {
            records.add(b"size", size.to_string().as_bytes());
        }
        block.number(124, 12, size.min(LARGE));
        let seconds = u64::try_from(entry.mtime.seconds).ok().filter(|seconds| *seconds <= LARGE);
        if entry.mtime.nanoseconds != 0 || seconds.is_none() {
            records.add(b"mtime", decimal(entry.mtime).as_bytes());
        }
        block.number(136, 12, seconds.unwrap_or(0));
        for (name, value) in &entry.xattrs {
            records.add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if let Some(device) = device {
            block.number(329, 8, device.major.into());
            block.number(337, 8, device.minor.into());
        }
        Self { block: block.sealed(letter), records: records.0, size }
    }
}

/// Returns the letter of a kind, the size, the target of a link and the numbers of a device.
fn described(kind: &Kind) -> (u8, u64, &[u8], Option<Device>) {
    match kind {
        Kind::Regular { size, .. } => (b'0', *size, b"", None),
        Kind::Link { target } => (b'1', 0, target, None),
        Kind::Symlink { target } => (b'2', 0, target, None),
        Kind::Character(device) => (b'3', 0, b"", Some(*device)),
        Kind::Block(device) => (b'4', 0, b"", Some(*device)),
        Kind::Directory => (b'5', 0, b"", None),
        Kind::Fifo => (b'6', 0, b"", None),
    }
}

/// Tells whether a header can hold a text. One that is no UTF-8 is put there if it is short enough, because records are UTF-8.
fn fits(text: &[u8]) -> bool {
    text.len() <= NAME_LEN && (text.is_ascii() || std::str::from_utf8(text).is_err())
}

/// Returns the header of the entry that carries records of so many bytes.
fn special(length: u64) -> [u8; BLOCK] {
    let mut block = Block::default();
    block.text(0, NAME_LEN, RECORDS_NAME);
    block.number(100, 8, 0o644);
    for field in [108, 116] {
        block.number(field, 8, 0);
    }
    block.number(124, 12, length.min(LARGE));
    block.number(136, 12, 0);
    block.sealed(b'x')
}

/// A header block under construction.
struct Block([u8; BLOCK]);

impl Default for Block {
    fn default() -> Self {
        Self([0; BLOCK])
    }
}

impl Block {
    fn text(&mut self, at: usize, length: usize, text: &[u8]) {
        let field = self.0.iter_mut().skip(at).take(length);
        field.zip(text).for_each(|(place, byte)| *place = *byte);
    }

    /// Writes a number in octal digits that fill a field but for its last byte.
    fn number(&mut self, at: usize, length: usize, number: u64) {
        let digits = format!("{number:0width$o}", width = length - 1);
        self.text(at, length - 1, digits.as_bytes());
    }

    fn sealed(mut self, letter: u8) -> [u8; BLOCK] {
        self.text(156, 1, &[letter]);
        self.text(257, 8, b"ustar\x0000");
        // The sum is of the block with spaces where the sum will be.
        self.text(148, 8, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.text(148, 8, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// Records of an extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits, too.
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

/// Times before 1970 are negative as a whole: two seconds before and a quarter after is -1.75.
fn decimal(Timestamp { seconds, nanoseconds }: Timestamp) -> String {
    let (sign, seconds, nanoseconds) = match (seconds, nanoseconds) {
        (..0, 0) => ("-", seconds.unsigned_abs(), 0),
        (..0, _) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        _ => ("", seconds.unsigned_abs(), nanoseconds),
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn padding(size: u64) -> usize {
    // Below the size of a block.
    usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0)
}

fn zeros(length: usize) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    ZEROS.get(..length).unwrap_or(&ZEROS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{Event, Parser};
    use super::*;

    /// Reads an archive with our own parser.
    fn read(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
        let mut parser = Parser::new();
        let (mut all, mut input): (Vec<(Entry, Vec<u8>)>, _) = (Vec::new(), bytes);
        loop {
            match parser.next(&mut input).unwrap() {
                Event::Entry(entry) => all.push((*entry, Vec::new())),
                Event::Data { bytes, .. } => all.last_mut().unwrap().1.extend_from_slice(bytes),
                Event::EndOfEntry => {}
                Event::End => return all,
                Event::NeedInput => panic!("the archive is cut off"),
            }
        }
    }

    fn text(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![8 => b'a'..=b'z', 1 => Just(b'/'), 1 => 0xc0..=0xff_u8];
        prop::collection::vec(byte, length).prop_map(|mut name| {
            name.insert(0, b'n');
            name
        })
    }

    fn entries() -> impl Strategy<Value = (Entry, Vec<u8>)> {
        let data = prop::collection::vec(any::<u8>(), 0..1500);
        let device = (0..1u32 << 12, 0..1u32 << 20).prop_map(|(major, minor)| Device { major, minor });
        let kind = prop_oneof![
            3 => Just(Kind::Regular { size: 0, sparse: false }),
            1 => Just(Kind::Directory),
            1 => text(0..300).prop_map(|target| Kind::Symlink { target }),
            1 => text(0..300).prop_map(|target| Kind::Link { target }),
            1 => device.clone().prop_map(Kind::Character),
            1 => device.prop_map(Kind::Block),
            1 => Just(Kind::Fifo),
        ];
        let xattrs = prop::collection::btree_map(text(1..20), prop::collection::vec(any::<u8>(), 1..200), 0..3);
        let ids = (0..u32::MAX, 0..u32::MAX, 0..0o10000u32);
        let mtime = (-(1i64 << 33)..1 << 40, prop_oneof![Just(0), 0..1_000_000_000u32]);
        (kind, text(0..300), ids, mtime, xattrs, data).prop_map(
            |(mut kind, path, (uid, gid, mode), mtime, xattrs, data)| {
                if let Kind::Regular { size, .. } = &mut kind {
                    *size = data.len() as u64;
                }
                let data = if matches!(kind, Kind::Regular { .. }) { data } else { Vec::new() };
                let mtime = Timestamp { seconds: mtime.0, nanoseconds: mtime.1 };
                let xattrs = xattrs.into_iter().map(|(name, value)| ([b"user.", &name[..]].concat(), value)).collect();
                (Entry { path, kind, mode, uid, gid, mtime, xattrs }, data)
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(entries in prop::collection::vec(entries(), 0..6)) {
            let mut writer = Writer::new(Vec::new());
            for (entry, data) in &entries {
                writer.entry(entry).unwrap();
                writer.data(data).unwrap();
            }
            let bytes = writer.finish().unwrap();
            prop_assert_eq!(bytes.len() % BLOCK, 0);
            let expected: Vec<_> = entries.into_iter().map(|(mut entry, data)| {
                let is_slash = entry.path.last() == Some(&b'/');
                if entry.kind == Kind::Directory && !is_slash {
                    entry.path.push(b'/');
                }
                // A file whose name ends with a slash is a directory to every reader.
                if matches!(entry.kind, Kind::Regular { .. }) && is_slash {
                    return None;
                }
                Some((entry, data))
            }).collect();
            if expected.iter().all(Option::is_some) {
                let expected: Vec<_> = expected.into_iter().flatten().collect();
                prop_assert_eq!(read(&bytes), expected);
            }
        }
    }

    #[test]
    fn plain_entries_need_no_records() {
        let mut writer = Writer::new(Vec::new());
        let mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
        writer.entry(&Entry { path: b"etc".to_vec(), mode: 0o755, mtime, ..Entry::new(Kind::Directory) }).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len(), 3 * BLOCK);
        assert_eq!((&bytes[..5], bytes[156], &bytes[257..265]), (&b"etc/\0"[..], b'5', &b"ustar\x0000"[..]));
    }

    #[test]
    fn an_entry_that_lacks_bytes_or_has_too_many_is_refused() {
        let entry = Entry { path: b"f".to_vec(), ..Entry::new(Kind::Regular { size: 3, sparse: false }) };
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        assert!(writer.data(b"four").is_err());
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        writer.data(b"2b").unwrap();
        assert!(writer.entry(&entry).is_err());
        assert!(writer.finish().is_err());
    }

    #[test]
    fn times_before_1970_count_down() {
        let time = |seconds, nanoseconds| decimal(Timestamp { seconds, nanoseconds });
        assert_eq!([time(-2, 250_000_000), time(-1, 0), time(0, 5), time(7, 0)], ["-1.75", "-1", "0.000000005", "7"]);
    }

    #[test]
    fn others_read_it_too() {
        let mut writer = Writer::new(Vec::new());
        let path = [&b"d/".repeat(80)[..], b"file"].concat();
        let xattrs = BTreeMap::from([(b"user.x".to_vec(), b"a=\0b".to_vec())]);
        let kind = Kind::Regular { size: 4, sparse: false };
        writer.entry(&Entry { path: path.clone(), uid: 3_000_000, xattrs, ..Entry::new(kind) }).unwrap();
        writer.data(b"data").unwrap();
        let bytes = writer.finish().unwrap();
        let mut archive = ::tar::Archive::new(&bytes[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path_bytes(), &path[..]);
        let records: Vec<_> = entry.pax_extensions().unwrap().unwrap().map(Result::unwrap).collect();
        let record = |key: &str| records.iter().find(|it| it.key() == Ok(key)).map(|it| it.value_bytes().to_vec());
        assert_eq!(record("uid"), Some(b"3000000".to_vec()));
        assert_eq!(record("SCHILY.xattr.user.x"), Some(b"a=\0b".to_vec()));
    }
}
