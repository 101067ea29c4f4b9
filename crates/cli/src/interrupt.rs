//! Interrupts: a command that builds something is stopped in order, so that what it leaves can be continued.
//!
//! Commands that only read keep the system's way: the signal ends the process at once.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};
use windlass_core::Error;

use crate::failure::{Failure, Outcome};

/// Runs work until it is done or a signal (SIGINT, SIGTERM, SIGHUP) asks to stop, which drops it.
pub(crate) async fn interruptible<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let listen = |kind| signal(kind).map_err(|error| Error::io("listen for signals", error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        outcome = work => outcome,
        () = received(&mut interrupt) => Err(Failure::Interrupted(2)),
        () = received(&mut terminate) => Err(Failure::Interrupted(15)),
        () = received(&mut hangup) => Err(Failure::Interrupted(1)),
    }
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        // No further signal can come.
        std::future::pending::<()>().await;
    }
}
