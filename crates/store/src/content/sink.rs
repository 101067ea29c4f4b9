//! The blocking end of an ingest: appends to its data file and hashes what it appends.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use windlass_core::content::{Expected, Ranges};
use windlass_core::digest::Algorithm;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Digest, Error, Result};

use super::edge::Edge;
use super::running::RunningHash;
use super::state::State;
use super::writeback::Writeback;
use crate::disk::{Disk, File, How};

/// How much is read at once when data is hashed again.
const READ: usize = 1 << 20;
/// How many bytes are added between two saves of the hash: what a resume hashes again at most, beside what was waiting for it.
const CHECKPOINT: u64 = 16 << 20;
/// From how many bytes on it is worth another thread to hash them.
const BESIDE: u64 = 1 << 20;
/// The mode of data that is being written.
const INGEST_MODE: u32 = 0o600;
/// The mode of a committed blob.
const BLOB_MODE: u32 = 0o444;

/// The data of an open ingest. Everything here blocks.
pub(super) struct Sink {
    disk: Disk,
    directory: PathBuf,
    file: File,
    declared: Expected,
    boot: Option<Arc<str>>,
    /// Of what is in the file up to the first gap; of less only after an open without a usable state.
    hash: RunningHash,
    /// How many bytes are in the file, up to the first gap.
    offset: u64,
    /// Which bytes are in the file, when it has been written at several places.
    here: Option<Ranges>,
    /// How many were hashed, or about to be, when the state was saved last.
    saved: u64,
    /// Whether more ranges are there than were saved.
    dirty: bool,
    writeback: Writeback,
    /// Whoever reads behind.
    edge: Option<Arc<Edge>>,
}

impl Sink {
    /// Opens the data of an ingest, new or as it was left.
    pub(super) fn open(
        disk: Disk,
        directory: &Path,
        declared: Expected,
        left: &State,
        boot: Option<Arc<str>>,
    ) -> Result<Self> {
        let path = directory.join("data");
        unseal(&disk, &path)?;
        let file = disk.open(&path, How::Create(INGEST_MODE))?;
        let length = file.look()?.length;
        let here = left.here(length);
        let offset = here.as_ref().map_or(length, Ranges::prefix);
        let algorithm = declared.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let (hasher, hashed) = left.hash(boot.as_deref(), algorithm, offset).unwrap_or_else(|| (algorithm.hasher(), 0));
        let (directory, writeback) = (directory.to_owned(), Writeback::from(offset));
        let (hash, saved, dirty, edge) = (RunningHash::new(hasher, hashed), hashed, false, None);
        let sink = Self { disk, directory, file, declared, boot, hash, offset, here, saved, dirty, writeback, edge };
        sink.state().write(&sink.disk, &sink.directory)?;
        Ok(sink)
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns when bytes were written last.
    pub(super) fn updated_at(&self) -> Result<SystemTime> {
        Ok(self.file.look()?.modified_at)
    }

    /// Says when bytes were accepted last, which the file would not tell: they are written later, by a coarser clock.
    pub(super) fn set_updated_at(&self, at: SystemTime) {
        if let Err(error) = self.file.set_modified(at) {
            tracing::debug!(%error, "when an ingest was written last is not exact");
        }
    }

    /// Returns the file that the data is in.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Lets readers know how far the data got from now on.
    pub(super) fn follow(&mut self, edge: Option<Arc<Edge>>) {
        self.edge = edge;
    }

    /// Tells where the first gap is, when the data has been written at several places and is not whole.
    pub(super) fn gap(&self) -> Option<u64> {
        self.here.as_ref().and(Some(self.offset)).filter(|offset| self.declared.size != Some(*offset))
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// As [`Sink::append_parts`].
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.append_parts(&[Bytes::copy_from_slice(bytes)].into())
    }

    /// Appends parts that follow each other, and hashes them: beside the write and behind it, when that is worth another thread.
    /// What is behind the first gap is given up before.
    ///
    /// # Errors
    /// `ResourceExhausted` when the disk is full: what went in before stays, and [`Sink::offset`] tells how much.
    pub(super) fn append_parts(&mut self, parts: &Arc<[Bytes]>) -> Result<()> {
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if length == 0 {
            return Ok(());
        }
        self.catch_up()?;
        let before = self.offset;
        if length < BESIDE && !self.hash.is_behind() {
            let result = self.write_parts(parts, length);
            self.hash.add(parts, self.offset - before);
            return result;
        }
        self.hash.add_behind(parts.clone());
        let result = self.write_parts(parts, length);
        if result.is_err() {
            // What did get into the file of them is hashed again from there.
            self.hash.cut(self.offset);
        }
        result
    }

    /// Appends bytes of another file.
    ///
    /// # Errors
    /// As [`Sink::append_parts`]; those of reading; `Unavailable` when the file ends before `range` does.
    pub(super) fn append_file(&mut self, file: &std::fs::File, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let wanted = usize::try_from(range.end - at).unwrap_or(READ).min(READ);
            // Memory that nobody has to clear before.
            let mut part = Vec::with_capacity(wanted);
            rustix::io::pread(file, spare_capacity(&mut part), at)
                .map_err(io::Error::from)
                .attempt(|| format!("read at {at} of the file that is ingested"))?;
            if part.is_empty() {
                let end = range.end;
                return Err(Error::unavailable(format!("the file that is ingested ended at {at}, before {end}"))
                    .coded("truncated"));
            }
            at += part.len() as u64;
            self.append_parts(&[part.into()].into())?;
        }
        Ok(())
    }

    fn write_parts(&mut self, parts: &[Bytes], length: u64) -> Result<()> {
        self.give_up_islands()?;
        if self.unsaved() + length > CHECKPOINT {
            self.save();
        }
        let (written, result) = self.file.write_parts_at(parts, self.offset);
        self.offset += written;
        if let Some(edge) = &self.edge {
            edge.written(self.offset);
        }
        self.writeback.appended(&self.file, self.offset);
        result
    }

    /// Hashes the first `length` bytes of parts that were written where the hash got to.
    pub(super) fn hash(&mut self, parts: &[Bytes], length: u64) {
        self.hash.add(parts, length);
    }

    /// Hashes some more of what is in the file before `end`.
    pub(super) fn hash_on(&mut self, end: u64) -> Result<()> {
        let hashed = self.hashed();
        let wanted = usize::try_from(end.saturating_sub(hashed)).unwrap_or(READ).min(READ);
        let part: Bytes = self.file.read_new_at(wanted, hashed)?.into();
        let length = part.len() as u64;
        self.hash.add(&[part], length);
        Ok(())
    }

    /// Returns how many bytes are hashed, or about to be.
    pub(super) fn hashed(&self) -> u64 {
        self.hash.end()
    }

    /// Tells whether so much was hashed since the last save that it is time for another one.
    pub(super) fn is_due(&self) -> bool {
        self.unsaved() >= CHECKPOINT
    }

    fn unsaved(&self) -> u64 {
        self.hashed().saturating_sub(self.saved)
    }

    /// Waits until everything that was appended is hashed.
    pub(super) fn settle(&self) {
        self.hash.settle();
    }

    /// Writes down that from now on bytes may be in the file behind a gap.
    pub(super) fn open_gaps(&mut self) -> Result<()> {
        if self.here.is_some() {
            return Ok(());
        }
        self.here = Some(self.ranges());
        let written = self.state().write(&self.disk, &self.directory);
        if written.is_err() {
            self.here = None;
        }
        written
    }

    /// Returns which bytes are in the file.
    pub(super) fn ranges(&self) -> Ranges {
        self.here.clone().unwrap_or_else(|| std::iter::once(0..self.offset).collect())
    }

    /// Notes which bytes are in the file.
    pub(super) fn set_ranges(&mut self, here: Ranges) {
        self.offset = here.prefix();
        self.dirty |= self.here.as_ref() != Some(&here);
        self.here = Some(here);
    }

    /// Makes the file end at the first gap.
    ///
    /// 1. what is behind the gap is forgotten  2. the data is cut  3. the data is said to be whole up to its end
    ///
    /// Whoever opens the ingest in between finds a file that is longer than what is said to be there.
    fn give_up_islands(&mut self) -> Result<()> {
        let Some(here) = &mut self.here else { return Ok(()) };
        here.remove(&(self.offset..u64::MAX));
        self.state().write(&self.disk, &self.directory)?;
        self.file.set_len(self.offset)?;
        self.here = None;
        self.writeback = Writeback::from(self.offset);
        self.state().write(&self.disk, &self.directory)?;
        (self.saved, self.dirty) = (self.hashed(), false);
        Ok(())
    }

    /// Saves how far the hash got. A state that cannot be written costs hashing again, so it is no error.
    pub(super) fn save(&mut self) {
        if self.unsaved() == 0 && !self.dirty {
            return;
        }
        match self.state().write(&self.disk, &self.directory) {
            Ok(()) => (self.saved, self.dirty) = (self.hashed(), false),
            Err(error) => tracing::debug!(%error, "the state of an ingest was not saved"),
        }
    }

    /// Cuts the data back.
    ///
    /// # Errors
    /// `OutOfRange` when there is less.
    pub(super) fn truncate(&mut self, size: u64) -> Result<()> {
        if size > self.offset {
            return Err(Error::out_of_range(format!(
                "the ingest has {} bytes and cannot be cut back to {size}",
                self.offset
            )));
        }
        if size == self.offset {
            return self.give_up_islands();
        }
        // 1. the hash is forgotten  2. the data is cut. The other way round, a saved hash could cover bytes that were
        // replaced since.
        self.hash_anew(self.hash.algorithm());
        if let Some(here) = &mut self.here {
            here.remove(&(size..u64::MAX));
        }
        self.state().write(&self.disk, &self.directory)?;
        self.file.set_len(size)?;
        self.offset = size;
        self.writeback = Writeback::from(size);
        self.give_up_islands()
    }

    /// Returns the digest of everything, by the algorithm that is asked for.
    pub(super) fn digest(&mut self, algorithm: Algorithm) -> Result<Digest> {
        if self.hash.algorithm() != algorithm {
            self.hash_anew(algorithm);
        }
        self.catch_up()?;
        Ok(self.hash.finished().finish())
    }

    fn hash_anew(&mut self, algorithm: Algorithm) {
        self.hash = RunningHash::new(algorithm.hasher(), 0);
        self.saved = 0;
    }

    /// Returns the algorithm of the running hash.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.hash.algorithm()
    }

    /// Makes the data read-only and durable.
    ///
    /// # Errors
    /// Those of the disk. When it is the sync, the data is given up: what the kernel could not write it forgets, and says so
    /// only once, so another sync would succeed without it.
    pub(super) fn seal(&mut self) -> Result<()> {
        self.disk.set_mode(self.file.path(), BLOB_MODE)?;
        let synced = self.file.sync_all();
        if synced.is_err()
            && let Err(error) = self.truncate(0).or_else(|_| self.disk.remove_file(self.file.path()).map(drop))
        {
            tracing::warn!(%error, "data that may be incomplete on the disk could not be given up");
        }
        synced
    }

    /// Hashes what is in the file and was not hashed, because the ingest was opened without a state to continue from.
    fn catch_up(&mut self) -> Result<()> {
        if self.hashed() == self.offset {
            return Ok(());
        }
        while self.hashed() < self.offset {
            self.hash_on(self.offset)?;
        }
        self.save();
        Ok(())
    }

    fn state(&self) -> State {
        let (hasher, hashed) = self.hash.within(self.offset);
        let state = State::new(&self.declared).with_hash(self.boot.as_deref(), &hasher, hashed);
        match &self.here {
            Some(here) => state.with_ranges(here),
            None => state,
        }
    }
}

/// Makes data writable again that a commit sealed before it was cut short.
fn unseal(disk: &Disk, path: &Path) -> Result<()> {
    match disk.look(path)? {
        Some(look) if look.mode & 0o222 == 0 => disk.set_mode(path, INGEST_MODE),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fault::{Failure, Faulty};

    fn sink(disk: &Faulty, directory: &Path) -> Sink {
        let left = State::read(&disk.disk(), directory).unwrap().unwrap_or_default();
        Sink::open(disk.disk(), directory, Expected::default(), &left, Some("boot".into())).unwrap()
    }

    #[test]
    fn data_whose_sync_failed_is_given_up_because_the_next_sync_would_not_fail() {
        let (disk, directory) = (Faulty::default(), tempfile::tempdir().unwrap());
        let mut first = sink(&disk, directory.path());
        first.append(b"hello").unwrap();
        first.save();
        // The mode is the first operation, the sync the second.
        disk.fail(Failure::Broken, 2);
        let error = first.seal().unwrap_err().to_string();
        assert_eq!(disk.mend()[0].operation, "sync");
        assert!(error.contains("data") && error.contains("os error 5"), "{error}");
        drop(first);
        let second = sink(&disk, directory.path());
        assert_eq!((second.offset(), second.hashed()), (0, 0));
    }

    #[tokio::test]
    async fn the_hash_beside_a_write_is_that_of_what_got_into_the_file() {
        let (head, tail) = (Bytes::from(vec![1; 1 << 20]), Bytes::from(vec![2; 1 << 20]));
        let all = [&head[..], &tail].concat();
        for failure in [None, Some(Failure::HalfWritten), Some(Failure::Full)] {
            let (disk, directory) = (Faulty::default(), tempfile::tempdir().unwrap());
            let mut first = sink(&disk, directory.path());
            first.append_parts(&[head.clone()].into()).unwrap();
            if let Some(failure) = failure {
                disk.fail(failure, 1);
            }
            let result = first.append_parts(&[tail.slice(..5), tail.slice(5..)].into());
            disk.mend();
            assert_eq!(result.is_err(), failure.is_some());
            let here = usize::try_from(first.offset()).unwrap();
            first.settle();
            first.save();
            drop(first);
            let mut second = sink(&disk, directory.path());
            let hashed = if failure == Some(Failure::HalfWritten) { head.len() } else { here };
            assert_eq!(second.hashed(), hashed as u64, "{failure:?}");
            second.append(&all[here..]).unwrap();
            assert_eq!(second.digest(Algorithm::Sha256).unwrap(), Digest::sha256(&all), "{failure:?}");
        }
    }

    #[test]
    fn a_write_that_stops_halfway_is_gone_on_with_there_and_its_hash_too() {
        for failure in [Failure::HalfWritten, Failure::Full] {
            let (disk, directory) = (Faulty::default(), tempfile::tempdir().unwrap());
            let mut first = sink(&disk, directory.path());
            first.append(b"hello ").unwrap();
            disk.fail(failure, 1);
            let error = first.append(b"world!").unwrap_err();
            disk.mend();
            assert!(error.is(windlass_core::Kind::ResourceExhausted) && error.hint_text().is_some(), "{error}");
            let kept = if failure == Failure::HalfWritten { 9 } else { 6 };
            assert_eq!(first.offset(), kept);
            first.save();
            drop(first);
            let mut second = sink(&disk, directory.path());
            assert_eq!((second.offset(), second.hashed()), (kept, kept));
            second.append(b"hello world!".split_at(usize::try_from(kept).unwrap()).1).unwrap();
            assert_eq!(second.digest(Algorithm::Sha256).unwrap(), Digest::sha256(b"hello world!"));
        }
    }
}
