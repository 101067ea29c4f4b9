//! The running hash of an ingest, which goes on beside its writes.
//!
//! Hashing takes about twice as long as writing into the page cache. So what is to be hashed waits in a queue, and a thread of the
//! blocking pool takes piece after piece from it: between two of them nobody has to be woken. Whoever waits for the hash goes on
//! with it himself where no thread does, so that a pool whose threads all wait is no dead end.
//!
//! A piece is handed over before it is written, so the hash may be ahead of the file by the one that is being written. What the
//! hash was before it is remembered, for when the write fails.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use windlass_core::digest::{Algorithm, Hasher};

/// How many bytes wait at most, with those that are being hashed.
const MOST: u64 = 2 << 20;

/// A hash of what an ingest has from its beginning on. Blocking, but for asking how far it is.
pub(super) struct RunningHash(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// After the last piece that was hashed.
    now: Point,
    /// Before it.
    before: Point,
    /// What is to be hashed; the first piece stays until it is.
    queue: VecDeque<Piece>,
    /// How many bytes those are.
    queued: u64,
    /// Whether a thread was asked for that has not begun.
    asked: bool,
    /// Whether somebody hashes the first piece.
    busy: bool,
}

/// How far the hash is.
#[derive(Clone)]
struct Point {
    hasher: Hasher,
    length: u64,
}

/// Parts that follow each other, and how many bytes of them count.
#[derive(Clone)]
struct Piece {
    parts: Arc<[Bytes]>,
    length: u64,
}

impl Piece {
    fn new(parts: Arc<[Bytes]>) -> Self {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        Self { parts, length }
    }
}

impl Point {
    fn add(&mut self, piece: &Piece) {
        let mut rest = piece.length;
        for part in &*piece.parts {
            let part = part.get(..usize::try_from(rest).unwrap_or(usize::MAX)).unwrap_or(part);
            self.hasher.update(part);
            rest -= part.len() as u64;
        }
        self.length += piece.length;
    }
}

impl RunningHash {
    /// Goes on with a hash of the first `length` bytes.
    pub(super) fn new(hasher: Hasher, length: u64) -> Self {
        let now = Point { hasher, length };
        let state = State { before: now.clone(), now, queue: VecDeque::new(), queued: 0, asked: false, busy: false };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.0.state().now.hasher.algorithm()
    }

    /// Returns how many bytes were hashed or are waiting.
    pub(super) fn end(&self) -> u64 {
        let state = self.0.state();
        state.now.length + state.queued
    }

    /// Tells whether something is waiting.
    pub(super) fn is_behind(&self) -> bool {
        self.0.state().queued > 0
    }

    /// Returns a hash of no more than the first `most` bytes, and of how many.
    pub(super) fn within(&self, most: u64) -> (Hasher, u64) {
        let state = self.0.state();
        let Point { hasher, length } = if state.now.length <= most { &state.now } else { &state.before };
        (hasher.clone(), *length)
    }

    /// Adds parts that follow, some time soon; waits while too much waits.
    pub(super) fn add_behind(&self, parts: Arc<[Bytes]>) {
        let piece = Piece::new(parts);
        let mut state = self.0.wait_while(|state| state.queued > 0 && state.queued + piece.length > MOST);
        state.queued += piece.length;
        state.queue.push_back(piece);
        if state.busy || state.asked {
            return;
        }
        // Without a runtime whoever waits does it.
        let Ok(runtime) = Handle::try_current() else { return };
        state.asked = true;
        drop(state);
        let shared = self.0.clone();
        drop(runtime.spawn_blocking(move || shared.work()));
    }

    /// Adds the first `length` bytes of parts that follow.
    pub(super) fn add(&mut self, parts: &[Bytes], length: u64) {
        let mut state = self.settled();
        let mut now = state.now.clone();
        now.add(&Piece { parts: parts.into(), length });
        state.before = std::mem::replace(&mut state.now, now);
    }

    /// Returns the hash of everything that was added.
    pub(super) fn finished(&self) -> Hasher {
        self.settled().now.hasher.clone()
    }

    /// Gives up what was hashed behind `length`, or all of the last piece: the file has no more.
    pub(super) fn cut(&mut self, length: u64) {
        let mut state = self.settled();
        if state.now.length > length {
            state.now = state.before.clone();
        }
    }

    /// Waits until nothing is waiting.
    pub(super) fn settle(&self) {
        drop(self.settled());
    }

    fn settled(&self) -> MutexGuard<'_, State> {
        self.0.wait_while(|state| state.queued > 0)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for as long as something holds, and hashes meanwhile if nobody does.
    fn wait_while(&self, holds: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while holds(&state) {
            state = if state.busy {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.hash_one(state)
            };
        }
        state
    }

    /// Hashes until nothing is waiting, or somebody else does.
    fn work(&self) {
        let mut state = self.state();
        state.asked = false;
        while !state.busy && !state.queue.is_empty() {
            state = self.hash_one(state);
        }
    }

    /// Hashes the first piece, which nobody else does.
    fn hash_one<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(piece) = state.queue.front().cloned() else { return state };
        let mut now = state.now.clone();
        state.busy = true;
        drop(state);
        now.add(&piece);
        let mut state = self.state();
        state.before = std::mem::replace(&mut state.now, now);
        state.queue.pop_front();
        state.queued -= piece.length;
        state.busy = false;
        self.changed.notify_all();
        state
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Digest;

    use super::*;

    fn parts(texts: &[&'static str]) -> Arc<[Bytes]> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    fn hash() -> RunningHash {
        RunningHash::new(Algorithm::Sha256.hasher(), 0)
    }

    #[test]
    fn without_a_runtime_whoever_waits_goes_on() {
        let mut hash = hash();
        hash.add_behind(parts(&["hel", "lo"]));
        hash.add_behind(parts(&[" "]));
        assert_eq!((hash.is_behind(), hash.end(), hash.within(u64::MAX).1), (true, 6, 0));
        hash.add(&parts(&["wor", "ld!?"]), 6);
        assert_eq!((hash.is_behind(), hash.end()), (false, 12));
        assert_eq!(hash.finished().finish(), Digest::sha256(b"hello world!"));
    }

    #[test]
    fn a_piece_that_was_not_written_is_given_up() {
        let mut hash = hash();
        hash.add_behind(parts(&["hello"]));
        hash.add_behind(parts(&[" world!"]));
        hash.cut(8);
        assert_eq!(hash.end(), 5);
        hash.cut(5);
        assert_eq!(hash.finished().finish(), Digest::sha256(b"hello"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_thread_goes_on_with_what_waits() {
        let hash = hash();
        let one = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..16 {
            hash.add_behind([one.clone()].into());
            assert!(hash.0.state().queued <= MOST);
        }
        while hash.is_behind() {
            tokio::task::yield_now().await;
        }
        assert_eq!(hash.within(u64::MAX).1, 16 << 20);
        let (hasher, length) = hash.within((16 << 20) - 1);
        assert_eq!((hasher.finish(), length), (Digest::sha256(&vec![7; 15 << 20]), 15 << 20));
    }

    #[test]
    fn a_pool_whose_threads_all_wait_is_no_dead_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let wait = || {
            let hash = hash();
            for _ in 0..5 {
                hash.add_behind(parts(&["hello"]));
            }
            hash.finished().finish()
        };
        let digest = runtime.block_on(async { tokio::task::spawn_blocking(wait).await.unwrap() });
        assert_eq!(digest, Digest::sha256(b"hellohellohellohellohello"));
    }
}
