//! Interrupts and deadlines: a command that builds something is stopped in order, so that what it leaves can be continued.
//! A second signal does not wait for that.
//!
//! Commands that only read keep the system's way: the signal ends the process at once.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use windlass_core::Error;

use crate::failure::{Failure, Outcome};

/// Runs work until it is done or a signal (SIGINT, SIGTERM, SIGHUP) asks to stop, which drops it.
pub(crate) async fn interruptible<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let listen = |kind| signal(kind).map_err(|error| Error::io("listen for signals", error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let number = {
        let mut work = std::pin::pin!(work);
        let number = tokio::select! {
            outcome = &mut work => return outcome,
            () = received(&mut interrupt) => 2,
            () = received(&mut terminate) => 15,
            () = received(&mut hangup) => 1,
        };
        end_at_the_next();
        number
    };
    Err(Failure::Interrupted(number))
}

/// Runs work until it is done or the time is up, which drops it.
pub(crate) async fn within<T>(limit: Option<Duration>, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let Some(limit) = limit else { return work.await };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let limit = humantime::format_duration(limit);
        Err(Error::deadline_exceeded(format!("it was not done within {limit}, the time that --timeout gives it"))
            .coded("timeout")
            .hint("run the command again, with more time: it continues where it stopped")
            .into())
    })
}

/// Has the next signal end the process at once, whatever it is doing by then.
fn end_at_the_next() {
    // A thread and a runtime of its own: the others are about to end, and may be waiting for a disk.
    std::thread::spawn(|| -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let [mut interrupt, mut terminate, mut hangup] =
                [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
            let number = tokio::select! {
                () = received(&mut interrupt) => 2,
                () = received(&mut terminate) => 15,
                () = received(&mut hangup) => 1,
            };
            std::process::exit(128 + number)
        })
    });
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        // No further signal can come.
        std::future::pending::<()>().await;
    }
}
