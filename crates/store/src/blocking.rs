//! The one place where work leaves the async threads: to the blocking pool, or to a task that outlives its caller.

use std::future::Future;

use windlass_core::{Error, Result};

/// Runs blocking work on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// Runs work to its end even when the caller stops waiting, so that a durable order is never left in the middle by a
/// dropped future.
pub(crate) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    joined(tokio::spawn(work).await)
}

fn joined<T>(result: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match result {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(Error::canceled("the runtime is shutting down")),
        Err(error) => Err(Error::internal("a task of the store panicked").source(error)),
    }
}
