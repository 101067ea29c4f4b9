//! A disk for tests on which the nth operation fails.
//!
//! Syncs are not carried out: the machine the test runs on keeps its power.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::real::Real;
use super::{Backend, Disk, How, Look, OpenFile, OpenFilesystem};

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The nth operation fails with EIO, and the ones after it do not.
    Broken,
    /// The nth operation that needs room fails with ENOSPC, and so do the ones after it.
    Full,
    /// As [`Failure::Full`], after half of what the nth wanted to write.
    HalfWritten,
}

/// An operation that failed as planned.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) operation: &'static str,
    pub(crate) path: PathBuf,
}

/// Which operations count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Room,
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    plan: Option<(Failure, usize)>,
    counted: usize,
    failed: Vec<Failed>,
    unwritten: u64,
}

/// A disk that fails.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faulty(Arc<Mutex<State>>);

impl Faulty {
    pub(crate) fn disk(&self) -> Disk {
        Disk::new(self.clone())
    }

    /// Lets the nth operation from now on fail, counted from 1.
    pub(crate) fn fail(&self, failure: Failure, nth: usize) {
        let mut state = self.0.lock().unwrap();
        *state = State { plan: Some((failure, nth)), unwritten: state.unwritten, ..State::default() };
    }

    /// Lets everything succeed again, and says what has failed.
    pub(crate) fn mend(&self) -> Vec<Failed> {
        let mut state = self.0.lock().unwrap();
        let unwritten = state.unwritten;
        std::mem::replace(&mut *state, State { unwritten, ..State::default() }).failed
    }

    /// Lets the machine have so many bytes that are not on a disk yet; none before.
    pub(crate) fn has_unwritten(&self, bytes: u64) {
        self.0.lock().unwrap().unwritten = bytes;
    }

    /// Fails when it is time to. A write gets to know that it has to stop halfway.
    fn attempt(&self, operation: &'static str, path: &Path, needs: Needs) -> io::Result<Step> {
        let mut state = self.0.lock().unwrap();
        let Some((failure, nth)) = state.plan else { return Ok(Step::Whole) };
        if failure != Failure::Broken && needs == Needs::Nothing {
            return Ok(Step::Whole);
        }
        state.counted += 1;
        if state.counted < nth || failure == Failure::Broken && state.counted > nth {
            return Ok(Step::Whole);
        }
        state.failed.push(Failed { operation, path: path.to_owned() });
        match failure {
            Failure::HalfWritten if state.counted == nth && operation == "write" => Ok(Step::Half),
            Failure::Broken => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }
}

/// How much of an operation is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Whole,
    Half,
}

impl Backend for Faulty {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.attempt("create", path, Needs::Room)?;
        Real.create_dir(path, mode)
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn OpenFile>> {
        let needs = if matches!(how, How::Read | How::Write) { Needs::Nothing } else { Needs::Room };
        self.attempt("open", path, needs)?;
        let file = Real.open(path, how)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt("rename", from, Needs::Room)?;
        Real.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.attempt("remove", path, Needs::Nothing)?;
        Real.remove_file(path)
    }

    /// Fails at any entry.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = Vec::new();
        Real.list(path, &mut |name| names.push(path.join(name)))?;
        for name in names {
            self.remove_file(&name)?;
        }
        self.attempt("remove", path, Needs::Nothing)?;
        Real.remove_dir_all(path)
    }

    fn list(&self, path: &Path, visit: &mut dyn FnMut(&str)) -> io::Result<()> {
        self.attempt("list", path, Needs::Nothing)?;
        Real.list(path, visit)
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        self.attempt("look at", path, Needs::Nothing)?;
        Real.look(path)
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.attempt("change the mode of", path, Needs::Nothing)?;
        Real.set_mode(path, mode)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.attempt("sync", path, Needs::Room).map(drop)
    }

    fn filesystem(&self, path: &Path) -> io::Result<Arc<dyn OpenFilesystem>> {
        self.attempt("open", path, Needs::Nothing)?;
        Ok(Arc::new(FaultyFilesystem { disk: self.clone(), path: path.to_owned() }))
    }

    fn unwritten(&self) -> Option<u64> {
        Some(self.0.lock().unwrap().unwritten)
    }

    fn boot(&self) -> Option<String> {
        Real.boot()
    }
}

#[derive(Debug)]
struct FaultyFilesystem {
    disk: Faulty,
    path: PathBuf,
}

impl OpenFilesystem for FaultyFilesystem {
    fn sync(&self) -> io::Result<()> {
        self.disk.attempt("sync", &self.path, Needs::Room).map(drop)
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: Faulty,
    path: PathBuf,
    file: Arc<dyn OpenFile>,
}

impl OpenFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.attempt("read", &self.path, Needs::Nothing)?;
        self.file.read_at(buffer, offset)
    }

    fn read_more_at(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize> {
        self.disk.attempt("read", &self.path, Needs::Nothing)?;
        self.file.read_more_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.disk.attempt("write", &self.path, Needs::Room)? {
            Step::Half if bytes.len() > 1 => self.file.write_at(&bytes[..bytes.len() / 2], offset),
            Step::Half => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Step::Whole => self.file.write_at(bytes, offset),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let grows = length > self.file.look()?.length;
        self.disk.attempt("set the length of", &self.path, if grows { Needs::Room } else { Needs::Nothing })?;
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.attempt("sync", &self.path, Needs::Room).map(drop)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.attempt("sync", &self.path, Needs::Room).map(drop)
    }

    fn look(&self) -> io::Result<Look> {
        self.disk.attempt("look at", &self.path, Needs::Nothing)?;
        self.file.look()
    }

    fn start_writeback(&self, _offset: u64, _length: u64) {}
}
