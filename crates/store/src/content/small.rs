//! Small blobs: those that are committed before anything of them came to the disk.
//!
//! There is nothing of them that could be continued, so they do not take the detour of an ingest's directory with its
//! files, of which each would have to be made and removed again. Their bytes are verified, written to a file in
//! `content/small` and moved to their place from there. What is left there belongs to nobody: it goes when the store is
//! opened.
//!
//! A thread does that for all who commit at the same time. What a file costs is mostly its sync, and one sync of the
//! filesystem costs less than those of a few new files: each writes the file's data, its inode, its directory and the
//! inode of that, and waits for the disk.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;
use windlass_core::content::Expected;
use windlass_core::digest::Algorithm;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Digest, Error, Result};

use super::Blobs;
use super::commit::{Verdict, wrong_digest, wrong_size};
use crate::blocking::{blocking, wait_for_turns};
use crate::db::again;
use crate::disk::{Disk, File, How};
use crate::precedence::{Precedence, REST};

/// The mode of a committed blob.
const MODE: u32 = 0o444;
/// How many blobs are brought to their places together at most. Much of what a batch saves comes with the first few, and
/// one that has everybody in it leaves nobody to go on while it waits for the disk.
const MOST: usize = 32;
/// From how many on one sync of the filesystem costs clearly less than one of each file, when nobody else writes.
const LEAST: usize = 4;
/// How many bytes a disk writes in about the time that the sync of a new file takes. A sync of the filesystem waits for
/// everything that anybody has written.
const WORTH: u64 = 1 << 20;

/// Brings small blobs to their places. Dropping it waits for what was handed to the thread.
pub(crate) struct SmallBlobs {
    places: Arc<Places>,
    queue: Option<Sender<Waiting>>,
    thread: Option<JoinHandle<()>>,
}

/// A blob that is to come to its place.
struct Waiting {
    digest: Digest,
    bytes: Bytes,
    reply: oneshot::Sender<Outcome>,
}

/// What the thread made of a blob.
enum Outcome {
    Done(Result<()>),
    /// Nothing: a sync of the filesystem would take longer than one of each file, and those do not wait for each other.
    Apart,
}

/// Where small blobs come from and go to.
struct Places {
    disk: Disk,
    /// Where their files are written.
    directory: PathBuf,
    /// The name of the next one.
    next: AtomicU64,
    blobs: Blobs,
    precedence: Precedence,
}

impl SmallBlobs {
    /// Removes what a process left that is gone, and starts the thread. Blocking.
    pub(super) fn open(disk: &Disk, content: &Path, blobs: &Blobs, precedence: Precedence) -> Result<Self> {
        let (directory, next) = (content.join("small"), AtomicU64::new(0));
        let (disk, blobs) = (disk.clone(), blobs.clone());
        let places = Arc::new(Places { disk, directory, next, blobs, precedence });
        places.clear()?;
        let (queue, queued) = channel();
        let run = {
            let places = places.clone();
            move || {
                wait_for_turns();
                places.run(&queued);
            }
        };
        let thread = std::thread::Builder::new()
            .name("windlass-small".to_owned())
            .spawn(run)
            .attempt(|| "start the thread of small blobs".to_owned())?;
        Ok(Self { places, queue: Some(queue), thread: Some(thread) })
    }

    /// Makes verified bytes durable and moves them to their place. That they came there is made durable by
    /// [`Blobs::barrier`].
    ///
    /// # Errors
    /// The disk's. There is nothing of the bytes on it then that anybody would take for a blob.
    pub(super) async fn place(&self, digest: Digest, bytes: Bytes) -> Result<()> {
        let gone = || Error::internal("the thread of small blobs is gone");
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        // One entry per waiting caller: the queue is as long as there are callers.
        queue.send(Waiting { digest: digest.clone(), bytes: bytes.clone(), reply }).map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())? {
            Outcome::Done(placed) => placed,
            Outcome::Apart => {
                let places = self.places.clone();
                blocking(move || places.place(&digest, &bytes)).await
            }
        }
    }
}

impl Drop for SmallBlobs {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of small blobs panicked");
        }
    }
}

impl Places {
    fn clear(&self) -> Result<()> {
        let mut names = Vec::new();
        self.disk.list(&self.directory, |name| names.push(name.to_owned()))?;
        names.iter().try_for_each(|name| self.disk.remove_file(&self.directory.join(name)).map(drop))
    }

    fn run(&self, queued: &Receiver<Waiting>) {
        while let Ok(first) = queued.recv() {
            let mut batch = vec![first];
            batch.extend(queued.try_iter().take(MOST - 1));
            let outcomes = match batch.as_slice() {
                [one] => vec![Outcome::Done(self.place(&one.digest, &one.bytes))],
                several if self.is_worth_it(several.len()) => self.place_together(several),
                several => several.iter().map(|_| Outcome::Apart).collect(),
            };
            // Before those are awake whom this answers.
            let rests = batch.len() >= LEAST && self.precedence.is_needed();
            for (one, outcome) in batch.into_iter().zip(outcomes) {
                // A caller that is gone does not want to know.
                let _ = one.reply.send(outcome);
            }
            // Meanwhile others come, and share the next batch.
            if rests {
                std::thread::sleep(REST);
            }
        }
    }

    /// Tells whether one sync of the filesystem takes less than one of each file.
    fn is_worth_it(&self, files: usize) -> bool {
        let worth = WORTH.saturating_mul(files as u64);
        let is_quiet = || self.disk.unwritten().is_some_and(|unwritten| unwritten < worth);
        !self.disk.is_synced() || files >= LEAST && is_quiet()
    }

    /// Brings one blob to its place: steps 2 and 3 of its commit.
    fn place(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.path();
        let file = self.write(&path, bytes)?;
        file.sync_all().inspect_err(|_| self.give_up(&path))?;
        self.adopt(&path, digest)
    }

    /// Brings blobs to their places: the files of all, one sync, the moves of all.
    fn place_together(&self, batch: &[Waiting]) -> Vec<Outcome> {
        // Opened before the writes: it is told what became of them.
        let filesystem = self.disk.is_synced().then(|| self.disk.filesystem(&self.directory)).transpose();
        let write = |one: &Waiting| {
            let path = self.path();
            self.write(&path, &one.bytes).map(|_| path)
        };
        let written: Vec<Result<PathBuf>> = batch.iter().map(write).collect();
        let synced = filesystem.and_then(|filesystem| filesystem.map_or(Ok(()), |filesystem| filesystem.sync()));
        let adopt = |(one, written): (&Waiting, Result<PathBuf>)| {
            let path = written?;
            match &synced {
                Ok(()) => self.adopt(&path, &one.digest),
                // Whose bytes it was nobody knows.
                Err(error) => {
                    self.give_up(&path);
                    Err(again(error))
                }
            }
        };
        batch.iter().zip(written).map(adopt).map(Outcome::Done).collect()
    }

    fn path(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<File> {
        let write = || {
            let file = self.disk.open(path, How::Replace(MODE))?;
            file.write_all_at(bytes, 0)?;
            Ok(file)
        };
        write().inspect_err(|_| self.give_up(path))
    }

    fn adopt(&self, path: &Path, digest: &Digest) -> Result<()> {
        self.blobs.adopt(path, digest).inspect_err(|_| self.give_up(path))
    }

    /// Removes a file. The error that led here is the one to tell; what is left goes when the store is opened.
    fn give_up(&self, path: &Path) {
        drop(self.disk.remove_file(path));
    }
}

/// Checks size and digest of the whole content.
pub(super) fn verify(bytes: &[u8], expected: &[Expected]) -> Verdict {
    let size = bytes.len() as u64;
    if let Some(wanted) = expected.iter().filter_map(|expected| expected.size).find(|wanted| *wanted != size) {
        return Verdict::Bad(wrong_size(size, wanted));
    }
    let mut digest = None;
    for wanted in expected.iter().filter_map(|expected| expected.digest.as_ref()) {
        let found = hash(wanted.algorithm(), bytes);
        if found != *wanted {
            return Verdict::Bad(wrong_digest(&found, wanted));
        }
        digest.get_or_insert(found);
    }
    Verdict::Good(digest.unwrap_or_else(|| hash(Algorithm::Sha256, bytes)), size)
}

fn hash(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = algorithm.hasher();
    hasher.update(bytes);
    hasher.finish()
}
