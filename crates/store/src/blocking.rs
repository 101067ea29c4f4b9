//! Where work leaves the async threads: to the blocking pool, or to a task that outlives its caller. Writers of ingests do so
//! by themselves, because what they began goes on without them.

use std::future::Future;

use tokio::sync::oneshot;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

/// The niceness of work that gives way, setpriority(2): a tenth of the weight of ordinary work.
const GIVING_WAY: i32 = 10;

/// Runs blocking work on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// Runs long work on a thread of its own that gives way to every other one: nobody waits for it but the caller.
pub(crate) async fn giving_way<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    let run = move || {
        // Only of this thread, as Linux has it. Without it the work is done all the same.
        if let Err(error) = rustix::process::setpriority_process(None, GIVING_WAY) {
            tracing::debug!(%error, "work in the background is not put behind the rest");
        }
        // A caller that is gone does not want to know.
        let _ = reply.send(work());
    };
    std::thread::Builder::new()
        .name("windlass-behind".to_owned())
        .spawn(run)
        .attempt(|| "start a thread for work in the background".to_owned())?;
    answer.await.map_err(|_| Error::internal("work of the store in the background panicked"))?
}

/// Runs work to its end even when the caller stops waiting, so that a durable order is never left in the middle by a
/// dropped future.
pub(crate) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    joined(tokio::spawn(work).await)
}

/// Has this thread wait for its turn when it wakes, as sched(7) has it for batch work, instead of taking the processor from
/// whoever is on it. For a thread whose calls of the system take long without being interrupted: who is about to make a short call
/// goes first, and this one is as fast as before.
#[expect(unsafe_code, reason = "sched_setscheduler(2) has no safe wrapper")]
pub(crate) fn wait_for_turns() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the parameters, which live until it returns, and is about this thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if set != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "a thread of the store does not wait for its turns");
    }
}

fn joined<T>(result: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match result {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(Error::canceled("the runtime is shutting down")),
        Err(error) => Err(Error::internal("a task of the store panicked").source(error)),
    }
}
