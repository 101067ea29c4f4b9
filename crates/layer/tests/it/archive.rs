//! Archives written byte by byte, so that every field can be wrong.

use std::collections::BTreeMap;

/// An archive being written.
#[derive(Default, Clone)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

/// One header, with fields to change.
#[derive(Clone)]
pub(crate) struct Header {
    name: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: i64,
    device: (u32, u32),
    records: BTreeMap<String, Vec<u8>>,
}

pub(crate) fn entry(kind: u8, name: impl AsRef<[u8]>) -> Header {
    Header {
        name: name.as_ref().to_vec(),
        kind,
        link: Vec::new(),
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: 1_600_000_000,
        device: (0, 0),
        records: BTreeMap::new(),
    }
}

impl Header {
    pub(crate) fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        self.link = target.as_ref().to_vec();
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub(crate) fn mtime(mut self, mtime: i64) -> Self {
        self.mtime = mtime;
        self
    }

    pub(crate) fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    pub(crate) fn record(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.records.insert(key.to_owned(), value.as_ref().to_vec());
        self
    }

    pub(crate) fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.record(&format!("SCHILY.xattr.{name}"), value)
    }

    /// The header block, with a size and a right checksum.
    pub(crate) fn block(&self, size: u64) -> [u8; 512] {
        let mut block = [0; 512];
        let put = |block: &mut [u8; 512], at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(&mut block, 0, &self.name[..self.name.len().min(100)]);
        put(&mut block, 100, format!("{:07o}\0", self.mode).as_bytes());
        put(&mut block, 108, &number(self.uid.cast_signed(), 8));
        put(&mut block, 116, &number(self.gid.cast_signed(), 8));
        put(&mut block, 124, &number(size.cast_signed(), 12));
        put(&mut block, 136, &number(self.mtime, 12));
        block[156] = self.kind;
        put(&mut block, 157, &self.link[..self.link.len().min(100)]);
        put(&mut block, 257, b"ustar\x0000");
        put(&mut block, 329, format!("{:07o}\0", self.device.0).as_bytes());
        put(&mut block, 337, format!("{:07o}\0", self.device.1).as_bytes());
        sum(&mut block);
        block
    }
}

/// Writes the checksum.
pub(crate) fn sum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Octal if it fits, base-256 otherwise.
fn number(value: i64, width: usize) -> Vec<u8> {
    let octal = format!("{:0w$o}\0", value.max(0), w = width - 1);
    if value >= 0 && octal.len() == width {
        return octal.into_bytes();
    }
    let mut bytes = vec![if value < 0 { 0xff } else { 0 }; width];
    let big = value.to_be_bytes();
    let taken = width.min(8);
    bytes[width - taken..].copy_from_slice(&big[8 - taken..]);
    bytes[0] |= 0x80;
    bytes
}

pub(crate) fn records(records: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while body + length.to_string().len() != length {
            length += 1;
        }
        out.extend_from_slice(format!("{length} {key}=").as_bytes());
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(mut self, header: &Header, data: &[u8]) -> Self {
        let mut extended = header.records.clone();
        if header.name.len() > 100 {
            extended.entry("path".into()).or_insert_with(|| header.name.clone());
        }
        if header.link.len() > 100 {
            extended.entry("linkpath".into()).or_insert_with(|| header.link.clone());
        }
        if !extended.is_empty() {
            let bytes = records(&extended);
            self.0.extend(entry(b'x', "PaxHeaders/0").block(bytes.len() as u64));
            self = self.payload(&bytes);
        }
        self.0.extend(header.block(data.len() as u64));
        self.payload(data)
    }

    pub(crate) fn raw(mut self, block: &[u8; 512]) -> Self {
        self.0.extend(block);
        self
    }

    pub(crate) fn payload(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.add(&entry(b'5', name), b"")
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.add(&entry(b'0', name), data.as_bytes())
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(&entry(b'2', name).link(target), b"")
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.add(&entry(b'1', name).link(target), b"")
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}
