//! Layers: a tar written entry by entry, and its compressed forms.

use std::io::Write;

use bytes::Bytes;
use windlass_core::media_type::Compression;
use windlass_core::{DiffId, Digest};

/// When everything was modified unless said otherwise, in seconds since 1970.
const MTIME: i64 = 1_700_000_000;

/// What a header's fields hold, POSIX.1-2017 `pax`, "ustar Interchange Format".
const NAME_LEN: usize = 100;
const LARGEST_ID: u64 = 0o7_777_777;

/// How what does not fit into a header is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// PAX extended headers.
    #[default]
    Pax,
    /// GNU long names and base-256 numbers; xattrs and nanoseconds are PAX all the same.
    Gnu,
}

/// A layer under construction. Modifiers such as [`Layer::mode`] concern the last entry.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    dialect: Dialect,
    items: Vec<Item>,
}

#[derive(Debug, Clone)]
enum Item {
    Entry(Entry),
    Raw(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Entry {
    kind: tar::EntryType,
    path: String,
    link: String,
    mode: u32,
    owner: (u64, u64),
    mtime: (i64, u32),
    device: (u32, u32),
    xattrs: Vec<(String, Vec<u8>)>,
    data: Vec<u8>,
}

/// A layer with its bytes.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The compressed bytes.
    pub bytes: Bytes,
    /// How they are compressed.
    pub compression: Compression,
    /// The digest of the tar.
    pub diff_id: DiffId,
}

impl Layer {
    /// Makes an empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how what does not fit into a header is written.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    fn entry(mut self, kind: tar::EntryType, path: &str, mode: u32) -> Self {
        self.items.push(Item::Entry(Entry {
            kind,
            path: path.to_owned(),
            link: String::new(),
            mode,
            owner: (0, 0),
            mtime: (MTIME, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            data: Vec::new(),
        }));
        self
    }

    /// Changes the last entry.
    fn last(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        match self.items.last_mut() {
            Some(Item::Entry(entry)) => change(entry),
            _ => panic!("there is no entry to be changed"),
        }
        self
    }

    /// Adds a directory.
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(tar::EntryType::Directory, path, mode)
    }

    /// Adds a file with mode 0644.
    pub fn file(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref().to_vec();
        self.entry(tar::EntryType::Regular, path, 0o644).last(|entry| entry.data = data)
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, 0o777).last(|entry| target.clone_into(&mut entry.link))
    }

    /// Adds another name of a file.
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, 0o644).last(|entry| target.clone_into(&mut entry.link))
    }

    /// Adds a character device.
    pub fn device(self, path: &str, major: u32, minor: u32) -> Self {
        self.entry(tar::EntryType::Char, path, 0o666).last(|entry| entry.device = (major, minor))
    }

    /// Adds a block device.
    pub fn block_device(self, path: &str, major: u32, minor: u32) -> Self {
        self.entry(tar::EntryType::Block, path, 0o660).last(|entry| entry.device = (major, minor))
    }

    /// Adds a fifo.
    pub fn fifo(self, path: &str) -> Self {
        self.entry(tar::EntryType::Fifo, path, 0o644)
    }

    /// Removes what lower layers have at the path.
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let separator = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{separator}.wh.{name}"), b"")
    }

    /// Removes what lower layers have in the directory.
    pub fn opaque(self, directory: &str) -> Self {
        let separator = if directory.is_empty() { "" } else { "/" };
        self.file(&format!("{directory}{separator}.wh..wh..opq"), b"")
    }

    /// Adds an entry as it is: the header with its own checksum, right or wrong, and data that is padded to blocks.
    pub fn raw_entry(mut self, header: &tar::Header, data: &[u8]) -> Self {
        let mut raw = header.as_bytes().to_vec();
        raw.extend_from_slice(data);
        raw.resize(raw.len().next_multiple_of(512), 0);
        self.items.push(Item::Raw(raw));
        self
    }

    /// Adds bytes as they are.
    pub fn raw_bytes(mut self, bytes: &[u8]) -> Self {
        self.items.push(Item::Raw(bytes.to_vec()));
        self
    }

    /// Gives the last entry permissions, with the bits for setuid, setgid and sticky.
    pub fn mode(self, mode: u32) -> Self {
        self.last(|entry| entry.mode = mode)
    }

    /// Gives the last entry an owner.
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.last(|entry| entry.owner = (uid, gid))
    }

    /// Gives the last entry a time of modification, in seconds since 1970 and nanoseconds.
    pub fn mtime(self, seconds: i64, nanoseconds: u32) -> Self {
        self.last(|entry| entry.mtime = (seconds, nanoseconds))
    }

    /// Gives the last entry an extended attribute.
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref().to_vec();
        self.last(|entry| entry.xattrs.push((name.to_owned(), value)))
    }

    /// Returns the tar.
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = Vec::new();
        for item in &self.items {
            match item {
                Item::Entry(entry) => entry.write(self.dialect, &mut tar),
                Item::Raw(raw) => tar.extend_from_slice(raw),
            }
        }
        // Two blocks of zeros end an archive.
        tar.resize(tar.len() + 1024, 0);
        tar
    }

    /// Returns the layer compressed.
    pub fn encode(&self, compression: Compression) -> Encoded {
        let tar = self.tar();
        let diff_id = DiffId(Digest::sha256(&tar));
        Encoded { bytes: compress(&tar, compression), compression, diff_id }
    }
}

/// Compresses as layers are compressed.
fn compress(tar: &[u8], compression: Compression) -> Bytes {
    let compressed = match compression {
        Compression::None => Ok(tar.to_vec()),
        Compression::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            gzip.write_all(tar).and_then(|()| gzip.finish())
        }
        Compression::Zstd => zstd::stream::encode_all(tar, 3),
    };
    match compressed {
        Ok(compressed) => compressed.into(),
        Err(error) => panic!("compressing in memory cannot fail: {error}"),
    }
}

impl Entry {
    fn write(&self, dialect: Dialect, tar: &mut Vec<u8>) {
        let directory = self.kind == tar::EntryType::Directory && !self.path.ends_with('/');
        let path = format!("{}{}", self.path, if directory { "/" } else { "" });
        let mut pax: Vec<(String, Vec<u8>)> = Vec::new();
        let gnu = dialect == Dialect::Gnu;
        for (key, text, letter) in [("path", &path, b'L'), ("linkpath", &self.link, b'K')] {
            if text.len() <= NAME_LEN && text.is_ascii() {
                continue;
            }
            if gnu && text.len() > NAME_LEN {
                write_long_name(letter, text, tar);
            } else if !gnu {
                pax.push((key.to_owned(), text.clone().into_bytes()));
            }
        }
        for (key, id) in [("uid", self.owner.0), ("gid", self.owner.1)] {
            if !gnu && id > LARGEST_ID {
                pax.push((key.to_owned(), id.to_string().into_bytes()));
            }
        }
        let (seconds, nanoseconds) = self.mtime;
        if nanoseconds != 0 || seconds < 0 {
            pax.push(("mtime".to_owned(), decimal(seconds, nanoseconds).into_bytes()));
        }
        for (name, value) in &self.xattrs {
            pax.push((format!("SCHILY.xattr.{name}"), value.clone()));
        }
        if !pax.is_empty() {
            write_pax(&pax, tar);
        }
        self.write_header(&path, gnu, tar);
        tar.extend_from_slice(&self.data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }

    fn write_header(&self, path: &str, gnu: bool, tar: &mut Vec<u8>) {
        let mut header = if gnu { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        fill(&mut header.as_old_mut().name, path);
        fill(&mut header.as_old_mut().linkname, &self.link);
        let id = |id: u64| if gnu || id <= LARGEST_ID { id } else { 0 };
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(id(self.owner.0));
        header.set_gid(id(self.owner.1));
        header.set_mtime(u64::try_from(self.mtime.0).unwrap_or(0));
        header.set_size(self.data.len() as u64);
        if matches!(self.kind, tar::EntryType::Char | tar::EntryType::Block) {
            let set = header.set_device_major(self.device.0).and_then(|()| header.set_device_minor(self.device.1));
            assert!(set.is_ok(), "a header of this format has fields for devices");
        }
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
    }
}

/// Puts as much of a text into a field as fits.
fn fill(field: &mut [u8], text: &str) {
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
}

/// PAX gives times as decimal fractions; those before 1970 count down.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    // -2 s + 0.25 s is written -1.75.
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
}

fn write_pax(records: &[(String, Vec<u8>)], tar: &mut Vec<u8>) {
    let mut body = Vec::new();
    for (key, value) in records {
        // The length counts itself: it grows until it fits.
        let rest = 3 + key.len() + value.len();
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    write_meta(tar::Header::new_ustar(), "PaxHeaders/entry", b'x', &body, tar);
}

/// GNU tar, `tar.h`: the name in an entry of its own before the one it belongs to.
fn write_long_name(kind: u8, text: &str, tar: &mut Vec<u8>) {
    let body = [text.as_bytes(), b"\0"].concat();
    write_meta(tar::Header::new_gnu(), "././@LongLink", kind, &body, tar);
}

/// Writes an entry that says something of the next one.
fn write_meta(mut header: tar::Header, name: &str, kind: u8, body: &[u8], tar: &mut Vec<u8>) {
    fill(&mut header.as_old_mut().name, name);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(body.len() as u64);
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(body);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_asked_for_is_read_back() {
        let long = format!("{}/name", "long".repeat(60));
        for dialect in [Dialect::Pax, Dialect::Gnu] {
            let layer = Layer::new()
                .dialect(dialect)
                .file(&long, b"data")
                .owner(4_000_000_000, 5)
                .mtime(1_600_000_000, 123_456_789)
                .xattr("user.x", b"a=\0b")
                .symlink("link", &long)
                .device("null", 1, 3);
            let tar = layer.tar();
            let mut archive = tar::Archive::new(&tar[..]);
            let mut entries = archive.entries().unwrap();
            let mut file = entries.next().unwrap().unwrap();
            assert_eq!(file.path().unwrap().to_str(), Some(long.as_str()));
            let pax: Vec<(String, Vec<u8>)> = file
                .pax_extensions()
                .unwrap()
                .unwrap()
                .map(|record| {
                    let record = record.unwrap();
                    (record.key().unwrap().to_owned(), record.value_bytes().to_owned())
                })
                .collect();
            assert!(pax.contains(&("SCHILY.xattr.user.x".into(), b"a=\0b".to_vec())), "{pax:?}");
            assert!(pax.contains(&("mtime".into(), b"1600000000.123456789".to_vec())), "{pax:?}");
            assert_eq!(pax.contains(&("uid".into(), b"4000000000".to_vec())), dialect == Dialect::Pax);
            if dialect == Dialect::Gnu {
                assert_eq!(file.header().uid().unwrap(), 4_000_000_000);
            }
            let mut data = String::new();
            file.read_to_string(&mut data).unwrap();
            assert_eq!(data, "data");
            let link = entries.next().unwrap().unwrap();
            assert_eq!(link.link_name().unwrap().unwrap().to_str(), Some(long.as_str()));
            let device = entries.next().unwrap().unwrap();
            assert_eq!(device.header().device_minor().unwrap(), Some(3));
            assert!(entries.next().is_none());
        }
    }

    #[test]
    fn times_before_1970_count_down() {
        assert_eq!(decimal(-2, 250_000_000), "-1.750000000");
        assert_eq!(decimal(-1, 250_000_000), "-0.750000000");
        assert_eq!(decimal(-1, 0), "-1.000000000");
        assert_eq!(decimal(0, 5), "0.000000005");
    }
}
