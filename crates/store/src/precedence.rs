//! Precedence: when those who bring many small blobs let others go first.

use std::fs;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How long whoever works for many rests between two batches.
pub(crate) const REST: Duration = Duration::from_millis(80);

/// Whether somebody goes first, whom an engine's owner knows of: someone who waits for short calls, for instance. Meanwhile small
/// blobs that many bring at the same time are placed in batches with a rest between them, unless a processor has nothing to do:
/// each blob keeps whoever brings it busy for as long as several short calls take, and those who bring it are not the owner's to
/// hold back. Nobody goes first unless that is said. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Precedence {
    /// How many have it.
    taken: Arc<AtomicUsize>,
}

/// Precedence that somebody has, until this is dropped.
#[derive(Debug)]
pub struct Taken(Precedence);

impl Precedence {
    /// Says that somebody goes first.
    #[must_use = "it is given back when this is dropped"]
    pub fn take(&self) -> Taken {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Taken(self.clone())
    }

    /// Says whether somebody goes first.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > 0
    }

    /// Says whether somebody goes first, and every processor has something to do.
    pub(crate) fn is_needed(&self) -> bool {
        self.is_taken() && all_are_busy()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says whether every processor has something to do, this thread included; not so where the kernel does not tell.
fn all_are_busy() -> bool {
    let runnable = fs::read_to_string("/proc/loadavg").ok().and_then(|text| runnable(&text));
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    runnable.is_some_and(|runnable| runnable >= processors)
}

/// Returns how many threads run or could, of the text that proc_loadavg(5) describes.
fn runnable(loadavg: &str) -> Option<usize> {
    loadavg.split_ascii_whitespace().nth(3)?.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Has threads end, whatever becomes of what they are there for.
    struct End<'a>(&'a AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Does something while every processor has something to do.
    pub(crate) fn while_all_are_busy<T>(work: impl FnOnce() -> T) -> T {
        let enough = AtomicBool::new(false);
        thread::scope(|scope| {
            let _end = End(&enough);
            for _ in 0..thread::available_parallelism().unwrap().get() {
                scope.spawn(|| {
                    while !enough.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            while !all_are_busy() {
                thread::yield_now();
            }
            work()
        })
    }

    #[test]
    fn it_is_needed_as_long_as_somebody_goes_first() {
        let precedence = Precedence::default();
        while_all_are_busy(|| {
            assert!(!precedence.is_needed());
            let (one, other) = (precedence.clone().take(), precedence.take());
            drop(one);
            assert!(precedence.is_needed(), "the other one still does");
            drop(other);
            assert!(!precedence.is_needed());
        });
    }

    #[test]
    fn the_kernel_says_how_many_threads_could_run() {
        assert_eq!(runnable("0.20 1.06 1.60 2/345 12345\n"), Some(2));
        assert_eq!(runnable("0.20 1.06 1.60\n"), None);
        assert_eq!(runnable("0.20 1.06 1.60 two/345 12345\n"), None);
        assert!(runnable(&fs::read_to_string("/proc/loadavg").unwrap()).unwrap() > 0, "this one runs");
    }
}
