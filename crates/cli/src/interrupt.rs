//! Interrupts and deadlines: a command that builds something is stopped in order, so that what it leaves can be continued.
//! A second signal does not wait for that.
//!
//! Commands that only read keep the system's way: the signal ends the process at once.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
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
    let _in_order = InOrder::begin();
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

/// Whether work runs that is stopped in order.
static STOPS_IN_ORDER: AtomicBool = AtomicBool::new(false);

/// Says that such work runs, for as long as it lives.
struct InOrder;

impl InOrder {
    fn begin() -> Self {
        STOPS_IN_ORDER.store(true, Ordering::SeqCst);
        Self
    }
}

impl Drop for InOrder {
    fn drop(&mut self) {
        STOPS_IN_ORDER.store(false, Ordering::SeqCst);
    }
}

/// What is to be undone, once.
type Undo = Box<dyn FnOnce() + Send>;

/// Undoes something when it is dropped, or before a signal ends the process.
pub(crate) struct Undone(Arc<Mutex<Option<Undo>>>);

impl Undone {
    /// Sees to it that something is undone that is about to be done.
    ///
    /// # Errors
    /// Those of listening for signals.
    pub(crate) fn at_the_end(undo: impl FnOnce() + Send + 'static) -> Result<Self, Error> {
        let undo: Arc<Mutex<Option<Undo>>> = Arc::new(Mutex::new(Some(Box::new(undo))));
        let (kept, (listens, begun)) = (undo.clone(), mpsc::channel());
        std::thread::spawn(move || {
            let listened = listen_for(&listens, || match take(&kept) {
                Some(undo) => {
                    undo();
                    Ends::Yes
                }
                // By now nobody has the system's way any more: it is left to whoever stops in order, if that runs.
                None if STOPS_IN_ORDER.load(Ordering::SeqCst) => Ends::No,
                None => Ends::Yes,
            });
            // Nobody listens when it is too late.
            drop(listened.map_err(|error| listens.send(Err(error))));
        });
        begun.recv().unwrap_or(Ok(())).map_err(|error| Error::io("listen for signals", error))?;
        Ok(Self(undo))
    }
}

impl Drop for Undone {
    fn drop(&mut self) {
        if let Some(undo) = take(&self.0) {
            undo();
        }
    }
}

fn take(undo: &Mutex<Option<Undo>>) -> Option<Undo> {
    undo.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Whether a signal ends the process.
enum Ends {
    Yes,
    No,
}

/// Listens for signals, says that it does, and does what is to be done at each.
fn listen_for(listens: &mpsc::Sender<std::io::Result<()>>, at_each: impl Fn() -> Ends) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let [mut interrupt, mut terminate, mut hangup] =
            [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
        drop(listens.send(Ok(())));
        loop {
            let number = tokio::select! {
                () = received(&mut interrupt) => 2,
                () = received(&mut terminate) => 15,
                () = received(&mut hangup) => 1,
            };
            if let Ends::Yes = at_each() {
                std::process::exit(128 + number);
            }
        }
    })
}

/// Has the next signal end the process at once, whatever it is doing by then.
fn end_at_the_next() {
    // A thread and a runtime of its own: the others are about to end, and may be waiting for a disk.
    std::thread::spawn(|| listen_for(&mpsc::channel().0, || Ends::Yes));
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        // No further signal can come.
        std::future::pending::<()>().await;
    }
}
