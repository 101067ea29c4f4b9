//! Extended attributes: how an inode has them.
//!
//! ```text
//!   header (12)   shared references (4 each)   attributes, each filled up to 4 bytes
//!   attribute:    length of the name   number of the prefix   length of the value (2)   rest of the name   value
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::{Error, Result, damaged};

/// Names and values.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) const HEADER: usize = 12;
const UNIT: usize = 4;

/// What names begin with, and the numbers that stand for it. The longer ones come first where one begins like another.
const PREFIXES: [(u8, &[u8]); 5] = [
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
];

/// Tells whether there is a place in an image for an attribute of that name.
pub fn is_supported(name: &[u8]) -> bool {
    split(name).is_some()
}

/// Returns the number of the prefix, and the rest.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(number, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        // An access control list has no further name, everything else must.
        (rest.is_empty() == matches!(number, 2 | 3)).then_some((*number, rest))
    })
}

/// Writes attributes one after the other, in the order of their names.
pub(crate) fn encode(xattrs: &Xattrs) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in xattrs {
        let shown = String::from_utf8_lossy(name);
        let Some((number, rest)) = split(name) else {
            return Err(Error::Invalid(format!("there is no place for extended attributes such as {shown}")));
        };
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(rest.len()), u16::try_from(value.len())) else {
            return Err(Error::TooLarge(format!("the extended attribute {shown} is too long")));
        };
        bytes.extend_from_slice(&[name_len, number]);
        bytes.extend_from_slice(&value_len.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(UNIT), 0);
    }
    // The size of all of them is counted in 16 bits.
    if count_of(HEADER + bytes.len()).is_none() {
        return Err(Error::TooLarge("the extended attributes of one file are too long".to_owned()));
    }
    Ok(bytes)
}

/// Reads one attribute off the front of the bytes.
pub(crate) fn decode(bytes: &mut &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let short = || Error::Damaged("an extended attribute is cut off".to_owned());
    let Some(([name_len, number, low, high], rest)) = bytes.split_first_chunk() else { return Err(short()) };
    let value_len = usize::from(u16::from_le_bytes([*low, *high]));
    let (name, rest) = rest.split_at_checked(usize::from(*name_len)).ok_or_else(short)?;
    let (value, rest) = rest.split_at_checked(value_len).ok_or_else(short)?;
    let Some((_, prefix)) = PREFIXES.iter().find(|(known, _)| known == number) else {
        return damaged(format!("an extended attribute has the unknown prefix {number}"));
    };
    let used = 4 + name.len() + value.len();
    let filler = used.next_multiple_of(UNIT) - used;
    *bytes = rest.get(filler..).unwrap_or_default();
    Ok(([prefix, name].concat(), value.to_vec()))
}

/// The size of header and attributes in the format's unit: none is 0, the header alone 1.
pub(crate) fn count_of(size: usize) -> Option<u16> {
    match size.checked_sub(HEADER) {
        None => Some(0),
        Some(rest) => u16::try_from(rest / UNIT + 1).ok(),
    }
}

/// The size in bytes, of a number in the format's unit.
pub(crate) fn size_of(count: u16) -> usize {
    match usize::from(count) {
        0 => 0,
        units => HEADER + (units - 1) * UNIT,
    }
}

/// The sets of attributes of a tree, each once.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    all: Vec<Set>,
    numbers: HashMap<Arc<[u8]>, u32>,
    bytes: u64,
}

#[derive(Debug)]
struct Set {
    encoded: Arc<[u8]>,
    /// Where in the encoded bytes each attribute begins.
    starts: Vec<u32>,
}

/// The number of the empty set.
pub(crate) const NONE: u32 = u32::MAX;

impl Sets {
    /// Returns the number of a set.
    pub(crate) fn number(&mut self, xattrs: &Xattrs) -> Result<u32> {
        if xattrs.is_empty() {
            return Ok(NONE);
        }
        let encoded: Arc<[u8]> = encode(xattrs)?.into();
        if let Some(number) = self.numbers.get(&encoded) {
            return Ok(*number);
        }
        let number = u32::try_from(self.all.len()).map_err(|_| Error::TooLarge("too many attributes".to_owned()))?;
        let mut starts = Vec::with_capacity(xattrs.len());
        let mut rest = &encoded[..];
        while !rest.is_empty() {
            starts.push(u32::try_from(encoded.len() - rest.len()).unwrap_or_default());
            decode(&mut rest)?;
        }
        self.bytes += encoded.len() as u64 + 128;
        self.numbers.insert(Arc::clone(&encoded), number);
        self.all.push(Set { encoded, starts });
        Ok(number)
    }

    /// Returns the set of a number.
    pub(crate) fn get(&self, number: u32) -> Result<Xattrs> {
        let mut xattrs = Xattrs::new();
        let mut bytes = self.encoded(number);
        while !bytes.is_empty() {
            let (name, value) = decode(&mut bytes)?;
            xattrs.insert(name, value);
        }
        Ok(xattrs)
    }

    pub(crate) fn encoded(&self, number: u32) -> &[u8] {
        self.all.get(number as usize).map_or(&[], |set| &set.encoded)
    }

    pub(crate) fn starts(&self, number: u32) -> &[u32] {
        self.all.get(number as usize).map_or(&[], |set| &set.starts)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// How much memory they take, about.
    pub(crate) fn memory(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_and_are_kept_once() {
        let xattrs: Xattrs = [
            (&b"user.a"[..], &b"1"[..]),
            (b"trusted.overlay.opaque", b"y"),
            (b"security.capability", &[1; 20]),
            (b"system.posix_acl_access", &[2; 28]),
        ]
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .into();
        let mut sets = Sets::default();
        let number = sets.number(&xattrs).unwrap();
        assert_eq!(sets.number(&xattrs).unwrap(), number);
        assert_eq!(sets.get(number).unwrap(), xattrs);
        assert_eq!(sets.starts(number).len(), 4);
        assert_eq!(sets.number(&Xattrs::new()).unwrap(), NONE);
        assert!(sets.get(NONE).unwrap().is_empty());
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for (name, value) in [
            ("system.nfs4_acl", 1),
            ("user.", 1),
            ("system.posix_acl_access2", 1),
            ("other", 1),
            ("user.large", 1 << 16),
            (&*format!("user.{}", "n".repeat(256)), 1),
        ] {
            assert!(encode(&[(name.into(), vec![0; value])].into()).is_err(), "{name}");
        }
        assert!(decode(&mut &[3, 1, 0, 0, b'a'][..]).is_err());
        assert!(decode(&mut &[0, 9, 0, 0][..]).is_err());
    }
}
