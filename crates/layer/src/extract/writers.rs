//! The threads that make and write files, beside the one that reads the archive.
//!
//! The archive's thread keeps everything that depends on order: directories, links, deletions, and what takes another's
//! place. A regular file in a directory that it has open depends on nothing, and is handed to a thread here, always the
//! same one for the same directory: the kernel makes one name at a time in a directory, and files of one name are made
//! in their order. Whoever is about to use a name whose file is still on its way waits for it
//! ([`Writers::settle`]).
//!
//! Steps go over in batches, so that a thread is woken for many files at once. What waits is bounded: by the number of
//! batches, and for the bytes by the buffers that they are in.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use windlass_core::{Error, Result};

use super::files::{Hand, NewFile, Step};
use crate::writeback::Watch;

/// After how many steps a batch is handed over.
const BATCH: usize = 96;

/// How many batches may wait for a thread.
const WAITING: usize = 3;

/// How many bytes of names and attributes may be in a batch and wait behind others.
const WEIGHT: usize = 64 << 10;

/// How many names are remembered before it is looked which of them are done.
const NAMES: usize = 1024;

/// The threads of a layer.
#[derive(Debug)]
pub(super) struct Writers {
    /// None: everything happens at once, here.
    queues: Vec<Queue>,
    hand: Hand,
    /// Which queue the current file is in; there may be none.
    current: usize,
    in_file: bool,
    /// Names that are not made yet, by their hash: which queue they are in, and when it has come to them.
    names: HashMap<u64, (usize, u64), BuildHasherDefault<Hashed>>,
}

impl Writers {
    /// Starts that many threads.
    ///
    /// # Errors
    /// `ResourceExhausted` when there can be no more threads.
    pub(super) fn start(threads: usize, watch: Option<Watch>) -> Result<Self> {
        let watch = watch.map(Arc::new);
        let queues = (0..threads).map(|_| Queue::start(watch.clone())).collect::<Result<_>>()?;
        Ok(Self { queues, hand: Hand::default(), current: 0, in_file: false, names: HashMap::default() })
    }

    /// Tells whether files can be made beside the archive's thread.
    pub(super) fn are_beside(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Begins a file. One that is not made yet comes with a hash of directory and name, by which it can be waited for.
    pub(super) fn begin(&mut self, file: NewFile, name: Option<u64>) -> Result<()> {
        self.current = usize::try_from(file.parent.inode).unwrap_or(0) % self.queues.len().max(1);
        if let (Some(queue), Some(name)) = (self.queues.get(self.current), name) {
            self.names.insert(name, (self.current, queue.given + 1));
            if self.names.len() > NAMES {
                let done: Vec<u64> = self.queues.iter().map(|queue| queue.shared.lock().done).collect();
                self.names.retain(|_, (queue, number)| done.get(*queue).is_none_or(|done| *number > *done));
            }
        }
        self.in_file = true;
        self.step(Step::Begin(Box::new(file)))
    }

    /// Takes bytes of the current file, if there is one.
    pub(super) fn data(&mut self, offset: u64, bytes: Bytes) -> Result<()> {
        if self.in_file { self.step(Step::Data { offset, bytes }) } else { Ok(()) }
    }

    /// Completes the current file, if there is one.
    pub(super) fn end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.in_file) { self.step(Step::End) } else { Ok(()) }
    }

    fn step(&mut self, step: Step) -> Result<()> {
        let Some(queue) = self.queues.get_mut(self.current) else { return self.hand.take(step) };
        if let Step::Begin(file) = &step {
            queue.weight += file.weight();
        }
        queue.batch.push(step);
        if queue.weight > WEIGHT {
            queue.wait(queue.given + 1)
        } else if queue.batch.len() >= BATCH {
            queue.hand_over()
        } else {
            Ok(())
        }
    }

    /// Hands over all steps that were collected.
    ///
    /// # Errors
    /// Those of files that were handed over earlier.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.queues.iter_mut().try_for_each(Queue::hand_over)
    }

    /// Waits until the file of that name is made, if there is one on its way.
    pub(super) fn settle(&mut self, name: u64) -> Result<()> {
        match self.names.remove(&name) {
            Some((queue, number)) => self.queues.get_mut(queue).map_or(Ok(()), |queue| queue.wait(number)),
            None => Ok(()),
        }
    }

    /// Tells whether any file may not be made yet.
    pub(super) fn has_claims(&self) -> bool {
        !self.names.is_empty()
    }

    /// Waits until all files are made.
    pub(super) fn settle_all(&mut self) -> Result<()> {
        if self.has_claims() { self.wait() } else { Ok(()) }
    }

    /// Waits until all files are complete.
    pub(super) fn wait(&mut self) -> Result<()> {
        self.flush()?;
        self.names.clear();
        self.queues.iter_mut().try_for_each(|queue| queue.wait(queue.given))
    }
}

/// Hashes are good as they are.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A thread, and what is on its way to it.
#[derive(Debug)]
struct Queue {
    batch: Vec<Step>,
    /// How many bytes of names and attributes are in it.
    weight: usize,
    /// None when no more will come.
    batches: Option<SyncSender<Vec<Step>>>,
    shared: Arc<Shared>,
    /// How many batches were handed over.
    given: u64,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    fn start(watch: Option<Arc<Watch>>) -> Result<Self> {
        let (batches, waiting) = mpsc::sync_channel(WAITING);
        let shared = Arc::new(Shared::default());
        let work = Work { waiting, shared: Arc::clone(&shared), watch };
        let thread = thread::Builder::new()
            .name("layer-write".to_owned())
            .spawn(move || work.run())
            .map_err(|e| Error::resource_exhausted("start thread layer-write").source(e))?;
        let batch = Vec::with_capacity(BATCH);
        Ok(Self { batch, weight: 0, batches: Some(batches), shared, given: 0, thread: Some(thread) })
    }

    fn hand_over(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return self.check();
        }
        self.weight = 0;
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        if let Some(batches) = &self.batches
            && batches.send(batch).is_ok()
        {
            self.given += 1;
        }
        self.check()
    }

    /// Waits until that many batches are done.
    fn wait(&mut self, batches: u64) -> Result<()> {
        if batches > self.given {
            self.hand_over()?;
        }
        let mut state = self.shared.lock();
        while state.done < batches && !state.over {
            state.awaited = true;
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.check()
    }

    fn check(&self) -> Result<()> {
        if !self.shared.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let error = self.shared.lock().error.take();
        Err(error.unwrap_or_else(|| Error::internal("a thread that writes files of the layer has stopped")))
    }
}

impl Drop for Queue {
    /// Nothing is written any more once it is dropped.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic was told by its message.
            let _ = thread.join();
        }
    }
}

/// What a thread and those who wait for it know of each other.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    failed: AtomicBool,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// How many batches are done.
    done: u64,
    awaited: bool,
    error: Option<Error>,
    /// The thread has ended.
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: Option<Error>) {
        let mut state = self.lock();
        if state.error.is_none() {
            state.error = error;
        }
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// The thread's side.
struct Work {
    waiting: Receiver<Vec<Step>>,
    shared: Arc<Shared>,
    watch: Option<Arc<Watch>>,
}

impl Work {
    fn run(self) {
        let mut hand = Hand::default();
        while let Ok(batch) = self.waiting.recv() {
            // After a failure batches are only taken, so that nobody waits for room.
            if !self.shared.failed.load(Ordering::Relaxed)
                && let Err(error) = self.batch(&mut hand, batch)
            {
                self.shared.fail(Some(error));
            }
            let mut state = self.shared.lock();
            state.done += 1;
            if std::mem::take(&mut state.awaited) {
                self.shared.changed.notify_all();
            }
        }
    }

    fn batch(&self, hand: &mut Hand, batch: Vec<Step>) -> Result<()> {
        let (mut files, mut written) = (0, 0);
        for step in batch {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            match &step {
                Step::Begin(_) => files += 1,
                Step::Data { bytes, .. } => written += bytes.len() as u64,
                Step::End => {}
            }
            hand.take(step)?;
        }
        if let Some(watch) = &self.watch {
            watch.wrote(files, written);
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.fail(None);
        }
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
    }
}
