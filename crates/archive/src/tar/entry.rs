//! What an entry is: its header block, corrected by the extended headers that came before it.

use windlass_core::{Error, Result, ResultExt};

use super::header::Header;
use super::pax::{Pax, Sparse};
use super::sparse::Map;
use super::{Device, Entry, Kind};

/// What extended headers said of the entry to come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) pax: Option<Pax>,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

/// What follows the headers of an entry in the archive.
#[derive(Debug)]
pub(super) enum Data {
    /// Nothing.
    None,
    /// `stored` bytes, which belong where the map says.
    Mapped { map: Map, stored: u64 },
    /// `stored` bytes that begin with the map of a file of `size` bytes.
    MapFirst { size: u64, stored: u64 },
}

impl Extended {
    /// Makes the entry; an old GNU sparse file comes with its map and its size.
    pub(super) fn describe(self, header: &Header, old_sparse: Option<(Map, u64)>) -> Result<(Entry, Data)> {
        let pax = self.pax.unwrap_or_default();
        let sparse = pax.sparse()?;
        let sparse_name = sparse.as_ref().and_then(|_| pax.sparse_name().cloned());
        let full = |name: Option<Vec<u8>>| name.filter(|name| !name.is_empty());
        let path = sparse_name
            .or_else(|| full(self.long_name))
            .or_else(|| pax.path.clone())
            .unwrap_or_else(|| header.name.clone());
        let attempt = format!("entry {:?}", String::from_utf8_lossy(&path));
        let target = full(self.long_link).or_else(|| pax.link.clone()).unwrap_or_else(|| header.link.clone());

        let described = match kind(header, &path, target) {
            // The record always wins: readers that disagree about a size see different archives.
            Some(Kind::Regular { size, .. }) => regular(&pax, sparse, old_sparse, pax.size.unwrap_or(size)),
            // Whatever size the others have in the header, nothing follows.
            Some(_) if sparse.is_some() => Err(Error::data_loss("something other than a file is sparse")),
            Some(Kind::Character(_)) => device(header).map(|device| (Kind::Character(device), Data::None)),
            Some(Kind::Block(_)) => device(header).map(|device| (Kind::Block(device), Data::None)),
            Some(kind) => Ok((kind, Data::None)),
            None => {
                let letter = char::from(header.kind).escape_default();
                Err(Error::failed_precondition(format!("entries of type '{letter}' are not known"))
                    .hint("build the layer without such entries"))
            }
        };
        let (kind, data) = described.context(|| attempt.clone())?;
        let id = |what: &str, number: i64| {
            u32::try_from(number).ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
                Error::failed_precondition(format!("{what} {number} is out of range")).context(attempt.clone())
            })
        };
        let entry = Entry {
            kind,
            mode: u32::try_from(header.mode & 0o7777).unwrap_or_default(),
            uid: id("user id", pax.uid.unwrap_or(header.uid))?,
            gid: id("group id", pax.gid.unwrap_or(header.gid))?,
            mtime: pax.mtime.unwrap_or(header.mtime),
            xattrs: pax.xattrs,
            path,
        };
        Ok((entry, data))
    }
}

/// Tells what the header's letter means; sizes and device numbers are looked at by the caller.
fn kind(header: &Header, path: &[u8], target: Vec<u8>) -> Option<Kind> {
    Some(match header.kind {
        // v7 had no letter for directories.
        0 if path.ends_with(b"/") => Kind::Directory,
        // '7' is a contiguous file, which POSIX tells to treat as a regular one.
        0 | b'0' | b'7' | b'S' => Kind::Regular { size: header.size, sparse: false },
        b'1' => Kind::Link { target },
        b'2' => Kind::Symlink { target },
        b'3' => Kind::Character(Device::default()),
        b'4' => Kind::Block(Device::default()),
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

fn regular(pax: &Pax, sparse: Option<Sparse>, old: Option<(Map, u64)>, stored: u64) -> Result<(Kind, Data)> {
    let map = match (old, sparse) {
        (None, None) => {
            return Ok((
                Kind::Regular { size: stored, sparse: false },
                Data::Mapped { map: Map::whole(stored), stored },
            ));
        }
        (Some((map, size)), _) => Some((map, size)),
        (None, Some(Sparse::Here(map))) => Some((map, pax.sparse_size()?.unwrap_or(stored))),
        (None, Some(Sparse::BeforeData)) => None,
    };
    let Some((map, size)) = map else {
        let size = pax.sparse_size()?.unwrap_or(stored);
        return Ok((Kind::Regular { size, sparse: true }, Data::MapFirst { size, stored }));
    };
    map.check(size, stored)?;
    Ok((Kind::Regular { size, sparse: true }, Data::Mapped { map, stored }))
}

fn device(header: &Header) -> Result<Device> {
    // Linux has 12 bits for the one and 20 for the other.
    let number = |what: &str, number: i64, bits: u32| {
        u32::try_from(number)
            .ok()
            .filter(|number| number >> bits == 0)
            .ok_or_else(|| Error::failed_precondition(format!("{what} number {number} is out of range")))
    };
    Ok(Device { major: number("major", header.major, 12)?, minor: number("minor", header.minor, 20)? })
}
