//! The barrier before a snapshot is recorded as committed: one syncfs(2) serves everybody who waited for it.
//!
//! Not a queue of work: callers run the sync themselves, one at a time.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use windlass_core::error::{Error, IoResultExt as _, Result};

/// Brings everything written to one filesystem onto the disk.
///
/// The directory stays open for as long as the barrier lives: syncfs(2) reports write-back errors that happened since the
/// descriptor was opened (Linux 5.8), and one opened just before the call would have missed them.
pub(crate) struct Barrier {
    directory: OwnedFd,
    path: PathBuf,
    state: Mutex<State>,
    finished: Condvar,
    /// Nobody waits: what is written may be lost.
    is_open: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Syncs that began, and among them those that are over.
    begun: u64,
    over: u64,
    /// The last sync that failed. Data of anybody who waited for it or for an earlier one may be lost.
    failed: Option<(u64, Errno)>,
}

impl Barrier {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let directory = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .attempt(|| format!("open {}", path.display()))?;
        Ok(Self {
            directory,
            path: path.to_owned(),
            state: Mutex::default(),
            finished: Condvar::new(),
            is_open: AtomicBool::new(false),
        })
    }

    /// Returns when everything that was written before the call is on the disk. Blocks.
    ///
    /// # Errors
    /// The filesystem's, such as `ResourceExhausted`; what was written may then be lost, and writing it again is the
    /// only remedy.
    pub(crate) fn pass(&self) -> Result<()> {
        if self.is_skipped() {
            return Ok(());
        }
        self.pass_with(|| rustix::fs::syncfs(&self.directory))
            .map_err(|errno| Error::io(format!("sync the filesystem of {}", self.path.display()), errno.into()))
    }

    /// Tells whether nobody waits for the disk.
    pub(crate) fn is_skipped(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Lets everybody pass without a sync from now on.
    pub(crate) fn open_for_all(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    fn pass_with(&self, sync: impl Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
        let mut state = self.lock();
        // A sync that runs already may have gone past our data; the next one to begin has not.
        let ours = state.begun + 1;
        loop {
            if state.over >= ours {
                return match state.failed {
                    Some((number, errno)) if number >= ours => Err(errno),
                    _ => Ok(()),
                };
            }
            if state.begun > state.over {
                state = self.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.begun += 1;
            drop(state);
            let result = sync();
            state = self.lock();
            state.over = state.begun;
            if let Err(errno) = result {
                state.failed = Some((state.over, errno));
            }
            self.finished.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn barrier() -> (tempfile::TempDir, Barrier) {
        let directory = tempfile::tempdir().unwrap();
        let barrier = Barrier::open(directory.path()).unwrap();
        (directory, barrier)
    }

    #[test]
    fn whoever_comes_while_a_sync_runs_shares_the_next_one() {
        let (_directory, barrier) = barrier();
        let syncs = AtomicU32::new(0);
        let (running, is_running) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                barrier.pass_with(move || {
                    running.send(()).unwrap();
                    released.recv().unwrap();
                    Ok(())
                })
            });
            is_running.recv().unwrap();
            let later: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.pass_with(|| {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(100));
            assert_eq!(syncs.load(Ordering::SeqCst), 0, "nobody may use, or overtake, the sync that runs");
            release.send(()).unwrap();
            first.join().unwrap().unwrap();
            for caller in later {
                caller.join().unwrap().unwrap();
            }
        });
        assert_eq!(syncs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_sync_fails_everybody_who_shared_it_and_nobody_after() {
        let (_directory, barrier) = barrier();
        assert_eq!(barrier.pass_with(|| Err(Errno::IO)), Err(Errno::IO));
        assert_eq!(barrier.pass_with(|| Ok(())), Ok(()));
        barrier.pass().unwrap();
    }
}
