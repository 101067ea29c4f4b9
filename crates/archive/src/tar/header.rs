//! One header block, decoded.
//!
//! Field offsets: POSIX.1-2008, `pax`, "ustar Interchange Format"; GNU's variant and the old sparse map in the GNU tar
//! manual, "Basic Tar Format".

use windlass_core::{Error, Result};

use super::number::{numeric, octal, text};
use super::sparse::Map;
use super::{BLOCK, Timestamp};

/// A block of an archive.
pub(super) type Block = [u8; BLOCK];

/// The dialects that differ in how a header is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// The fields of a header block, before extended headers have their say.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) format: Format,
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: Timestamp,
    pub(super) major: i64,
    pub(super) minor: i64,
}

impl Header {
    /// Decodes a block.
    ///
    /// # Errors
    /// `DataLoss` when the checksum is wrong or a number is not one.
    pub(super) fn parse(block: &Block) -> Result<Self> {
        verify_checksum(block)?;
        let format = format(block);
        let mut header = Self {
            format,
            kind: block[156],
            name: text(&block[..100]).to_vec(),
            link: text(&block[157..257]).to_vec(),
            size: u64::try_from(numeric(&block[124..136])?).map_err(|_| Error::data_loss("a size is negative"))?,
            mode: numeric(&block[100..108])?,
            uid: numeric(&block[108..116])?,
            gid: numeric(&block[116..124])?,
            mtime: Timestamp { seconds: numeric(&block[136..148])?, nanoseconds: 0 },
            major: 0,
            minor: 0,
        };
        if format != Format::V7 {
            header.major = numeric(&block[329..337])?;
            header.minor = numeric(&block[337..345])?;
        }
        let prefix = prefix(block, format);
        if !prefix.is_empty() {
            header.name = [prefix, b"/", &header.name].concat();
        }
        Ok(header)
    }
}

/// Tells whether a block marks an end: all zero.
pub(super) fn is_zero(block: &Block) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Compares the checksum, which some old writers took over signed bytes.
fn verify_checksum(block: &Block) -> Result<()> {
    let recorded = octal(&block[148..156])?;
    let mut unsigned = 0i64;
    let mut signed = 0i64;
    for (at, byte) in block.iter().enumerate() {
        // The checksum's own field counts as spaces.
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if recorded == unsigned || recorded == signed {
        return Ok(());
    }
    Err(Error::data_loss("the checksum of a header is wrong"))
}

fn format(block: &Block) -> Format {
    match (&block[257..263], &block[263..265], &block[508..512]) {
        (b"ustar\0", _, b"tar\0") => Format::Star,
        (b"ustar\0", ..) => Format::Ustar,
        (b"ustar ", b" \0", _) => Format::Gnu,
        _ => Format::V7,
    }
}

/// Returns what stands before the name.
fn prefix(block: &Block, format: Format) -> &[u8] {
    match format {
        Format::V7 => &[],
        Format::Ustar => text(&block[345..500]),
        Format::Star => text(&block[345..476]),
        // GNU has times there. Go before 1.8 wrote a prefix all the same; it shows by not being two numbers.
        Format::Gnu => {
            let times = [&block[345..357], &block[357..369]];
            let sound = times.iter().all(|time| time.first() == Some(&0) || numeric(time).is_ok());
            let prefix = text(&block[345..500]);
            if sound || !prefix.is_ascii() { &[] } else { prefix }
        }
    }
}

/// Reads the old GNU sparse map of a header block: four places. Returns the size of the file and whether more blocks of
/// the map follow.
pub(super) fn old_sparse(block: &Block, map: &mut Map) -> Result<(u64, bool)> {
    let size = u64::try_from(numeric(&block[483..495])?).map_err(|_| Error::data_loss("a size is negative"))?;
    sparse_places(&block[386..482], map)?;
    Ok((size, block[482] != 0))
}

/// Reads a further block of an old GNU sparse map: 21 places. Returns whether more follow.
pub(super) fn old_sparse_more(block: &Block, map: &mut Map) -> Result<bool> {
    sparse_places(&block[..504], map)?;
    Ok(block[504] != 0)
}

fn sparse_places(places: &[u8], map: &mut Map) -> Result<()> {
    let (places, _) = places.as_chunks::<24>();
    for place in places {
        if place[0] == 0 {
            break;
        }
        map.push(numeric(&place[..12])?, numeric(&place[12..])?)?;
    }
    Ok(())
}
