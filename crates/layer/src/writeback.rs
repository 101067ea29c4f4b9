//! Writing to the disk while there is still more to extract, so that little is left for the barrier before a snapshot's
//! commit.
//!
//! Not durability: nobody waits for this or hears of its errors. Each file descriptor that a filesystem is synced by is
//! told of every error once, so the barrier, which has one of its own, is told of those that happened here.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{fstat, syncfs};
use windlass_core::Result;
use windlass_core::error::IoResultExt as _;

/// After how many bytes the filesystem is synced. Large enough that a sync has many files to put in order, small enough
/// that the last one is over soon.
const ENOUGH: u64 = 256 << 20;

/// What a file counts in addition to its bytes: the disk has its inode and its directory's entry to write, too.
const FILE: u64 = 16 << 10;

/// Syncs the filesystems that layers are extracted to, one thread for all of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Writeback(Arc<Inner>);

impl fmt::Debug for Writeback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writeback")
    }
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// How many bytes were written since the last sync began.
    written: AtomicU64,
}

#[derive(Default)]
struct State {
    places: Vec<Place>,
    next: u64,
    /// Whether there is a thread.
    runs: bool,
}

/// A directory that a layer is extracted to.
struct Place {
    number: u64,
    device: u64,
    directory: Arc<OwnedFd>,
}

/// A layer that is being extracted.
pub(crate) struct Watch {
    inner: Arc<Inner>,
    number: u64,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.number)
    }
}

impl Writeback {
    /// Begins with a layer.
    pub(crate) fn watch(&self, directory: impl AsFd) -> Result<Watch> {
        let attempt = || "keep the root of the layer open".to_owned();
        let device = fstat(&directory).attempt(attempt)?.st_dev;
        let directory = Arc::new(directory.as_fd().try_clone_to_owned().attempt(attempt)?);
        let mut state = self.0.lock();
        state.next += 1;
        let number = state.next;
        state.places.push(Place { number, device, directory });
        if !state.runs {
            let inner = Arc::clone(&self.0);
            let spawned = thread::Builder::new().name("layer-sync".to_owned()).spawn(move || inner.run());
            // Without the thread the barrier has more to do, and that is all.
            state.runs = spawned.is_ok();
        }
        Ok(Watch { inner: Arc::clone(&self.0), number })
    }
}

impl Watch {
    /// Notes what was written.
    pub(crate) fn wrote(&self, files: u64, bytes: u64) {
        let more = files * FILE + bytes;
        let before = self.inner.written.fetch_add(more, Ordering::Relaxed);
        if before < ENOUGH && before + more >= ENOUGH {
            let _state = self.inner.lock();
            self.inner.changed.notify_all();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.lock().places.retain(|place| place.number != self.number);
        self.inner.changed.notify_all();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(directories) = self.next() {
            for directory in directories {
                let _ = syncfs(&*directory);
            }
        }
    }

    /// Waits until there is enough to do; returns a directory of each filesystem, or nothing when there are no layers any
    /// more.
    fn next(&self) -> Option<Vec<Arc<OwnedFd>>> {
        let mut state = self.lock();
        loop {
            if state.places.is_empty() {
                state.runs = false;
                return None;
            }
            if self.written.load(Ordering::Relaxed) >= ENOUGH {
                self.written.store(0, Ordering::Relaxed);
                let mut devices = Vec::new();
                let one_each = state.places.iter().filter(|place| {
                    let new = !devices.contains(&place.device);
                    devices.push(place.device);
                    new
                });
                return Some(one_each.map(|place| Arc::clone(&place.directory)).collect());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> usize {
        let all = std::fs::read_dir("/proc/self/task").unwrap();
        all.filter(|task| {
            let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
            name.is_ok_and(|name| name.trim() == "layer-sync")
        })
        .count()
    }

    #[test]
    fn one_thread_serves_all_layers_and_ends_with_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        let open = || std::fs::File::open(directory.path()).unwrap();
        let writeback = Writeback::default();
        let first = writeback.watch(open()).unwrap();
        let second = writeback.watch(open()).unwrap();
        first.wrote(1, ENOUGH);
        while writeback.0.written.load(Ordering::Relaxed) != 0 {
            thread::yield_now();
        }
        assert_eq!(threads(), 1);
        drop((first, second));
        while threads() > 0 {
            thread::yield_now();
        }
        drop(writeback.watch(open()).unwrap());
    }
}
