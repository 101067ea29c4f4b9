//! A write of an ingest that is under way on the blocking pool.

use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use windlass_core::Result;

use super::ingests::Start;
use super::sink::Sink;

/// What comes back from a write: where the data is, and what came of it.
pub(super) type Worked = (Start, Result<()>);

/// A write that is under way. It goes on when this is dropped.
pub(super) struct Work(JoinHandle<Worked>);

impl Work {
    /// Begins to do something with the data, which is brought to the disk before if need be.
    pub(super) fn new(start: Start, work: impl FnOnce(&mut Sink) -> Result<()> + Send + 'static) -> Self {
        Self(spawn_blocking(move || match start.sink() {
            Ok(mut sink) => {
                let result = work(&mut sink);
                (Start::Sink(sink), result)
            }
            Err((start, error)) => (start, Err(error)),
        }))
    }

    /// Waits until it is done; to be called until it returns, and not again.
    ///
    /// # Cancel safety
    /// It goes on, and can be waited for again.
    pub(super) async fn done(&mut self) -> Result<Worked, JoinError> {
        (&mut self.0).await
    }
}
