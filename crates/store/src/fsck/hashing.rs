//! Hashing of blobs: every byte is read, by as many threads as there are cores, a piece at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use windlass_core::fsck::{Finding, Problem};
use windlass_core::progress::{State, Task, Tracker};
use windlass_core::{Digest, Error, Result};

use super::{Bytes, Depth};

/// How much is read at once, by each thread.
const PIECE: usize = 1 << 20;

/// Reads blobs whose files have these sizes, and returns those that are good.
pub(super) fn check(
    bytes: &Bytes,
    depth: Depth,
    blobs: &BTreeMap<Digest, u64>,
    progress: &Tracker,
    findings: &mut Vec<Finding>,
) -> Result<BTreeMap<Digest, u64>> {
    if depth == Depth::Sizes || blobs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let work = Work {
        bytes,
        queue: Mutex::new(blobs.iter()),
        done: AtomicU64::new(0),
        total: blobs.values().sum(),
        task: progress.task("blobs"),
    };
    work.task.set(State::Checking { offset: 0, total: work.total });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found: Vec<std::thread::Result<Vec<Problem>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work.run())).collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    work.task.set(State::Done);
    let mut good = blobs.clone();
    for problems in found {
        let problems = problems.map_err(|_| Error::internal("a thread that checks blobs panicked"))?;
        for problem in problems {
            if let Problem::BlobDigest { digest, .. } | Problem::BlobUnreadable { digest, .. } = &problem {
                good.remove(digest);
            }
            findings.push(Finding::new(problem));
        }
    }
    Ok(good)
}

/// What the threads share.
struct Work<'a> {
    bytes: &'a Bytes,
    queue: Mutex<std::collections::btree_map::Iter<'a, Digest, u64>>,
    done: AtomicU64,
    total: u64,
    task: Task,
}

impl Work<'_> {
    fn run(&self) -> Vec<Problem> {
        let mut buffer = vec![0; PIECE];
        let mut problems = Vec::new();
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((digest, size)) = next else { return problems };
            problems.extend(self.blob(digest, *size, &mut buffer));
        }
    }

    fn blob(&self, digest: &Digest, size: u64, buffer: &mut [u8]) -> Option<Problem> {
        match self.hash(digest, buffer) {
            Ok(found) if found == *digest => None,
            Ok(found) => Some(Problem::BlobDigest { digest: digest.clone(), size, found }),
            Err(error) => Some(Problem::BlobUnreadable { digest: digest.clone(), size, detail: error.to_string() }),
        }
    }

    fn hash(&self, digest: &Digest, buffer: &mut [u8]) -> std::io::Result<Digest> {
        let mut blob = self.bytes.open(digest)?;
        let mut hasher = digest.algorithm().hasher();
        loop {
            let length = match blob.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if length == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(buffer.get(..length).unwrap_or_default());
            let offset = self.done.fetch_add(length as u64, Ordering::Relaxed) + length as u64;
            self.task.set(State::Checking { offset: offset.min(self.total), total: self.total });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_found_and_the_others_are_good() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("content/blobs/sha256");
        std::fs::create_dir_all(&folder).unwrap();
        let mut blobs = BTreeMap::new();
        for text in ["a", "b", "c", "d"] {
            let digest = Digest::sha256(text.as_bytes());
            let bytes = if text == "c" { "C" } else { text };
            std::fs::write(folder.join(digest.hex()), bytes).unwrap();
            blobs.insert(digest, 1);
        }
        let mut findings = Vec::new();
        let bytes = Bytes::of(root.path(), None).unwrap();
        let good = check(&bytes, Depth::Bytes, &blobs, &Tracker::new(), &mut findings).unwrap();
        let bad = Digest::sha256(b"c");
        let problem = Problem::BlobDigest { digest: bad.clone(), size: 1, found: Digest::sha256(b"C") };
        assert_eq!(findings, [Finding::new(problem)]);
        assert_eq!(good.len(), 3);
        assert!(!good.contains_key(&bad));
    }
}
