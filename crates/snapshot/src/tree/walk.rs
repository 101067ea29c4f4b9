//! The walk over a tree: entry after entry, into a directory when the caller says so.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, Stat};
use windlass_core::error::{IoResultExt as _, Result};

use super::descent::{Descent, Handle};

/// How much of a listing is read at once, in bytes.
const LISTING: usize = 16 << 10;

/// A walk over a tree.
pub(crate) struct Walk {
    descent: Descent,
    listing: Listing,
    above: Vec<Listing>,
    buffer: Vec<MaybeUninit<u8>>,
}

/// The next thing there is in the current directory.
pub(crate) enum Step {
    /// An entry; directories are not entered by themselves.
    Entry { name: CString, kind: FileType },
    /// There are no more.
    End,
}

/// How far the listing of a directory has been read.
#[derive(Default)]
struct Listing {
    names: IntoIter<(CString, FileType)>,
    /// Where to read on; only needed when the directory was closed meanwhile.
    position: u64,
    complete: bool,
}

impl Walk {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        Ok(Self {
            descent: Descent::open(root)?,
            listing: Listing::default(),
            above: Vec::new(),
            buffer: vec![MaybeUninit::uninit(); LISTING],
        })
    }

    /// Returns the current directory.
    pub(crate) fn current(&self) -> BorrowedFd<'_> {
        self.descent.current()
    }

    /// Returns the path of the current directory or of an entry in it, for a message.
    pub(crate) fn path(&self, name: Option<&CStr>) -> PathBuf {
        self.descent.path(name)
    }

    /// Returns the next entry of the current directory.
    pub(crate) fn next(&mut self) -> Result<Step> {
        loop {
            if let Some((name, kind)) = self.listing.names.next() {
                let kind =
                    if kind == FileType::Unknown { FileType::from_raw_mode(self.stat(&name)?.st_mode) } else { kind };
                return Ok(Step::Entry { name, kind });
            }
            if self.listing.complete {
                return Ok(Step::End);
            }
            self.read()?;
        }
    }

    /// Returns the properties of an entry of the current directory; of a symlink, its own.
    pub(crate) fn stat(&self, name: &CStr) -> Result<Stat> {
        rustix::fs::statat(self.current(), name, AtFlags::SYMLINK_NOFOLLOW)
            .attempt(|| format!("look at {}", self.path(Some(name)).display()))
    }

    /// Goes into a directory.
    pub(crate) fn enter(&mut self, name: &CStr) -> Result<()> {
        self.descent.enter(name)?;
        self.above.push(std::mem::take(&mut self.listing));
        Ok(())
    }

    /// Goes back up and returns the name of the directory that was left; `None` at the root.
    pub(crate) fn leave(&mut self) -> Result<Option<CString>> {
        let Some((name, handle)) = self.descent.leave()? else { return Ok(None) };
        self.listing = self.above.pop().unwrap_or_default();
        if handle == Handle::Reopened {
            rustix::fs::seek(self.current(), SeekFrom::Start(self.listing.position))
                .attempt(|| format!("list {}", self.path(None).display()))?;
        }
        Ok(Some(name))
    }

    /// Tells whether the filesystem says of what type the entries of a listing are.
    pub(crate) fn types_are_listed(&mut self) -> Result<bool> {
        self.read()?;
        Ok(self.listing.names.as_slice().iter().all(|(_, kind)| *kind != FileType::Unknown))
    }

    /// Reads one piece of the listing.
    fn read(&mut self) -> Result<()> {
        let mut names = Vec::new();
        let mut raw = RawDir::new(self.descent.current(), &mut self.buffer);
        loop {
            let Some(entry) = raw.next() else {
                self.listing.complete = true;
                break;
            };
            let entry = entry.attempt(|| format!("list {}", self.descent.path(None).display()))?;
            self.listing.position = entry.next_entry_cookie();
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
            if raw.is_buffer_empty() {
                break;
            }
        }
        self.listing.names = names.into_iter();
        Ok(())
    }
}
