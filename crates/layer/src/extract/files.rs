//! Regular files: made, written and completed, each from beginning to end by one thread.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Result, ResultExt as _};

use super::dirs::Dir;
use super::metadata::{self, Habits, Metadata};
use super::os_error;
use crate::ahead;
use crate::path::LayerPath;

/// After how many bytes of a file the kernel is told to begin writing them to the disk, so that less is left for the
/// barrier before the snapshot's commit. Smaller files are left to the kernel: telling it costs a call a file, and the
/// disk gets them one by one.
const WRITEBACK: u64 = 8 << 20;

/// A file that an entry brings.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) parent: Arc<Dir>,
    pub(super) path: LayerPath,
    pub(super) metadata: Metadata,
    /// How files are created now; what is in the directory may change its ways later.
    pub(super) habits: Habits,
    pub(super) size: u64,
    pub(super) sparse: bool,
    /// The file, if it was made already.
    pub(super) made: Option<File>,
}

/// What is to be done about files, in this order for each of them.
#[derive(Debug)]
pub(super) enum Step {
    /// A file begins.
    Begin(Box<NewFile>),
    /// Bytes of it.
    Data { offset: u64, bytes: Bytes },
    /// It is complete.
    End,
}

/// Whoever carries out steps: has one file open at a time.
#[derive(Debug, Default)]
pub(super) struct Hand {
    writing: Option<Writing>,
}

impl Hand {
    pub(super) fn take(&mut self, step: Step) -> Result<()> {
        match (step, &mut self.writing) {
            (Step::Begin(new), writing) => *writing = Some(Writing::begin(new)?),
            (Step::Data { offset, bytes }, Some(writing)) => writing.write(offset, &bytes)?,
            (Step::End, writing) => writing.take().map_or(Ok(()), Writing::complete)?,
            (Step::Data { .. }, None) => {}
        }
        Ok(())
    }
}

/// A file being written.
#[derive(Debug)]
struct Writing {
    file: File,
    new: Box<NewFile>,
    written: u64,
    /// How far the kernel was told to write to the disk.
    started: u64,
}

impl Writing {
    fn begin(mut new: Box<NewFile>) -> Result<Self> {
        let file = match new.made.take() {
            Some(file) => file,
            None => new.create().context(|| format!("extract {}", new.path))?,
        };
        Ok(Self { file, new, written: 0, started: 0 })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = if self.new.sparse { self.file.write_all_at(bytes, offset) } else { self.file.write_all(bytes) };
        written.attempt(|| format!("write {}", self.new.path))?;
        self.written = offset + bytes.len() as u64;
        if self.written - self.started >= WRITEBACK {
            ahead::start(&self.file, self.started, self.written - self.started);
            self.started = self.written;
        }
        Ok(())
    }

    fn complete(self) -> Result<()> {
        let new = &self.new;
        if new.sparse && self.written < new.size {
            self.file.set_len(new.size).attempt(|| format!("extend {}", new.path))?;
        }
        metadata::set_new_file(self.file.as_fd(), &new.parent, &new.habits, &new.metadata)
            .context(|| format!("extract {}", new.path))
    }
}

impl NewFile {
    /// How many bytes its name and attributes take, about.
    pub(super) fn weight(&self) -> usize {
        let attributes = self.metadata.xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.path.as_bytes().len() + attributes.sum::<usize>()
    }

    /// Makes the file; another one of that name goes. That there is no directory is known.
    fn create(&self) -> Result<File> {
        let (parent, name) = (&self.parent, self.path.name());
        let mode = Mode::from_raw_mode(self.metadata.mode & 0o777);
        let attempt = |e| os_error(e, format!("create {}", self.path));
        match create_file(parent, name, mode) {
            Err(Errno::EXIST) => {
                unlinkat(&**parent, name, AtFlags::empty()).map_err(attempt)?;
                create_file(parent, name, mode).map_err(attempt)
            }
            created => created.map_err(attempt),
        }
    }
}

/// Creates a file where there is none.
pub(super) fn create_file(parent: &Dir, name: &[u8], mode: Mode) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, mode).map(File::from)
}
