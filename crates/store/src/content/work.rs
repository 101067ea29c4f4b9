//! A write of an ingest that is under way on the blocking pool, and the hash of the same bytes beside it.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{Join, OptionFuture, join};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use windlass_core::Result;
use windlass_core::digest::Hasher;

use super::ingests::Start;
use super::sink::Sink;

/// What comes back from a write: where the data is, and what came of it.
pub(super) type Worked = (Start, Result<()>);

/// A write that is under way. It goes on when this is dropped.
pub(super) struct Work(Join<JoinHandle<Worked>, OptionFuture<JoinHandle<Hasher>>>);

impl Work {
    /// Begins to do something with the data, which is brought to the disk before if need be.
    pub(super) fn new(start: Start, work: impl FnOnce(&mut Sink) -> Result<()> + Send + 'static) -> Self {
        Self::begin(start, None, work)
    }

    /// Begins to append parts to data whose running hash this is, and to hash them on another thread: each takes about as long
    /// as the other.
    pub(super) fn with_hash(start: Start, parts: Arc<[Bytes]>, mut hasher: Hasher) -> Self {
        let hashed = parts.clone();
        let hashing = spawn_blocking(move || {
            hashed.iter().for_each(|part| hasher.update(part));
            hasher
        });
        Self::begin(start, Some(hashing), move |sink| sink.write_parts(&parts))
    }

    fn begin(
        start: Start,
        hashing: Option<JoinHandle<Hasher>>,
        work: impl FnOnce(&mut Sink) -> Result<()> + Send + 'static,
    ) -> Self {
        let writing = spawn_blocking(move || match start.sink() {
            Ok(mut sink) => {
                let result = work(&mut sink);
                (Start::Sink(sink), result)
            }
            Err((start, error)) => (start, Err(error)),
        });
        Self(join(writing, hashing.into()))
    }

    /// Waits until it is done; to be called until it returns, and not again. Of a write that failed the hash is of no use: what
    /// did get into the file is hashed again from there.
    ///
    /// # Cancel safety
    /// It goes on, and can be waited for again.
    pub(super) async fn done(&mut self) -> Result<Worked, JoinError> {
        let (written, hashed) = (&mut self.0).await;
        let (mut start, result) = written?;
        if let (Start::Sink(sink), Ok(()), Some(Ok(hasher))) = (&mut start, &result, hashed) {
            sink.set_hash(hasher);
        }
        Ok((start, result))
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Digest;
    use windlass_core::content::Expected;
    use windlass_core::digest::Algorithm;

    use super::super::state::State;
    use super::*;
    use crate::disk::fault::{Failure, Faulty};

    fn sink(start: Start) -> Box<Sink> {
        start.sink().unwrap_or_else(|_| panic!("it is on the disk"))
    }

    #[tokio::test]
    async fn the_hash_beside_a_write_is_that_of_what_got_into_the_file() {
        for failure in [None, Some(Failure::HalfWritten), Some(Failure::Full)] {
            let (disk, directory) = (Faulty::default(), tempfile::tempdir().unwrap());
            let (declared, left) = (Expected::default(), State::default());
            let mut first = Sink::open(disk.disk(), directory.path(), declared, &left, None).unwrap();
            first.append(b"hello ").unwrap();
            let hasher = first.running_hash().unwrap();
            if let Some(failure) = failure {
                disk.fail(failure, 1);
            }
            let parts = [Bytes::from_static(b"wor"), Bytes::from_static(b"ld!")];
            let mut work = Work::with_hash(Start::Sink(Box::new(first)), parts.into(), hasher);
            let (start, result) = work.done().await.unwrap();
            disk.mend();
            assert_eq!(result.is_err(), failure.is_some());
            let mut sink = sink(start);
            assert_eq!(sink.running_hash().is_some(), failure != Some(Failure::HalfWritten), "{failure:?}");
            let here = usize::try_from(sink.offset()).unwrap();
            sink.append(b"hello world!".split_at(here).1).unwrap();
            assert_eq!(sink.digest(Algorithm::Sha256).unwrap(), Digest::sha256(b"hello world!"), "{failure:?}");
        }
    }
}
