//! The records of a PAX extended header.
//!
//! POSIX.1-2008, `pax`, "pax Extended Header": `"%d %s=%s\n"`, the number counting the whole record. Values of extended
//! attributes are binary; the length is what delimits them.

use std::collections::BTreeMap;

use windlass_core::{Error, Result};

use super::Timestamp;
use super::number::{decimal, size, time};
use super::sparse::Map;

/// What a header says of the entry that follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Records of GNU sparse files, without the prefix.
    sparse: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// How the holes of a file are written down.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sparse {
    /// In records: PAX formats 0.0 and 0.1.
    Here(Map),
    /// In blocks before the data: PAX format 1.0.
    BeforeData,
}

impl Pax {
    /// Reads the records. An empty value leaves what the header block says.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self> {
        let mut pax = Self::default();
        // Format 0.0 repeats two keys, in turn, for every stretch.
        let mut stretches: Vec<&[u8]> = Vec::new();
        while !records.is_empty() {
            let (key, value, rest) = record(records)?;
            records = rest;
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    if stretches.len().is_multiple_of(2) != (key == b"GNU.sparse.offset") || value.contains(&b',') {
                        return Err(Error::data_loss("the records of a sparse map are out of order"));
                    }
                    stretches.push(value);
                }
                _ => pax.set(key, value)?,
            }
        }
        if !stretches.is_empty() {
            pax.sparse.insert(b"map".to_vec(), stretches.join(&b','));
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.insert(name.to_vec(), value.to_vec());
        } else if value.is_empty() {
        } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            self.sparse.insert(name.to_vec(), value.to_vec());
        } else {
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(size(value)?),
                b"uid" => self.uid = Some(decimal(value)?),
                b"gid" => self.gid = Some(decimal(value)?),
                b"mtime" => self.mtime = Some(time(value)?),
                // Names of owners, other times, comments, vendors' own: nothing that a layer is extracted by.
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells whether the entry is a sparse file, and how its map is written.
    pub(super) fn sparse(&self) -> Result<Option<Sparse>> {
        let get = |key: &[u8]| self.sparse.get(key).map(Vec::as_slice);
        match (get(b"major"), get(b"minor")) {
            (Some(b"1"), Some(b"0")) => return Ok(Some(Sparse::BeforeData)),
            (Some(b"0"), Some(b"0" | b"1")) => {}
            // No version was written before 0.1; the map tells.
            (None, None) if get(b"map").is_some() => {}
            (None, None) => return Ok(None),
            (major, minor) => {
                let text = |number: Option<&[u8]>| String::from_utf8_lossy(number.unwrap_or(b"?")).into_owned();
                return Err(Error::failed_precondition(format!(
                    "sparse format {}.{} is not known",
                    text(major),
                    text(minor)
                )));
            }
        }
        Map::of_list(get(b"map").unwrap_or_default(), get(b"numblocks")).map(Sparse::Here).map(Some)
    }

    /// Returns the name of a sparse file, whose `path` record is a made-up one.
    pub(super) fn sparse_name(&self) -> Option<&Vec<u8>> {
        self.sparse.get(&b"name"[..])
    }

    /// Returns the size of a sparse file once extracted.
    pub(super) fn sparse_size(&self) -> Result<Option<u64>> {
        let found = self.sparse.get(&b"size"[..]).or_else(|| self.sparse.get(&b"realsize"[..]));
        found.map(|value| size(value)).transpose()
    }
}

/// Splits off the first record: its key, its value, and what follows.
fn record(records: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let damaged = || Error::data_loss("a record of an extended header is malformed");
    let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(damaged)?;
    let (number, _) = records.split_at_checked(space).ok_or_else(damaged)?;
    let length = usize::try_from(size(number).map_err(|_| damaged())?).map_err(|_| damaged())?;
    let (record, rest) = records.split_at_checked(length).ok_or_else(damaged)?;
    let pair = record.get(space + 1..).and_then(|pair| pair.strip_suffix(b"\n")).ok_or_else(damaged)?;
    let equals = pair.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
    let (key, value) = pair.split_at_checked(equals).ok_or_else(damaged)?;
    let value = value.get(1..).unwrap_or_default();
    let text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname" | b"GNU.sparse.name");
    if key.is_empty() || key.contains(&0) || (text && value.contains(&0)) {
        return Err(damaged());
    }
    Ok((key, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(records: &[(&str, &[u8])]) -> Vec<u8> {
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

    #[test]
    fn binary_values_keep_their_nuls_and_newlines() {
        let pax = Pax::parse(&encode(&[("SCHILY.xattr.security.capability", b"\x01\0\n=\0"), ("size", b"7")])).unwrap();
        assert_eq!(pax.xattrs[&b"security.capability"[..]], b"\x01\0\n=\0");
        assert_eq!(pax.size, Some(7));
    }

    #[test]
    fn an_empty_value_says_nothing_except_for_an_attribute() {
        let pax = Pax::parse(&encode(&[("path", b""), ("SCHILY.xattr.user.a", b"")])).unwrap();
        assert_eq!(pax.path, None);
        assert_eq!(pax.xattrs[&b"user.a"[..]], b"");
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"5 a=b"[..],
            b"99 a=b\n",
            b"7 a=b\n",
            b" a=b\n",
            b"6 ab\n\n",
            b"5 =b\n",
            b"-6 a=b\n",
            b"9 path=\0\n\n",
            b"99999999999999999999999 a=b\n",
            b"12 path=a\0b\n",
            b"0 a=b\n",
            b"2 \n",
        ] {
            assert!(Pax::parse(records).is_err(), "{:?}", String::from_utf8_lossy(records));
        }
    }

    #[test]
    fn the_pairs_of_format_0_0_become_a_map() {
        let pax = Pax::parse(&encode(&[
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"2"),
            ("GNU.sparse.offset", b"8"),
            ("GNU.sparse.numbytes", b"1"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.size", b"9"),
        ]))
        .unwrap();
        assert_eq!(pax.sparse().unwrap(), Some(Sparse::Here(Map::of_list(b"0,2,8,1", None).unwrap())));
        assert_eq!(pax.sparse_size().unwrap(), Some(9));
        assert!(Pax::parse(&encode(&[("GNU.sparse.numbytes", b"2")])).is_err());
    }
}
