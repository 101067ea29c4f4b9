//! gRPC on a socket.
//!
//! A connection stays on one thread, with all of its calls: who makes one call after another is answered without a change of
//! threads, and the thread may look for what comes next (see [`Lingering`]) without waking others. There are many such threads, so
//! that few connections wait for each other; the kernel has them take turns. What calls have done that takes long, such as unpacking,
//! and whole transfers, is done on other threads.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use futures::{future, stream};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};
use windlass_grpc::{Gathering, Lingering, Routes, Socket, Turn, make_room, server};

use crate::authority::Lenient;
use crate::calls::Calls;
use crate::processor::{Pace, Reservation};

/// The pause after a connection could not be accepted, because no file could be opened for instance.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);
/// How many threads serve connections at most. They are started when they are needed; one stays in any case.
const MOST_THREADS: usize = 64;
/// How often it is looked whether there are threads that nobody needs any more.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether something is left to do on a thread that ends.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// Serves until the sender is dropped, and then until the last call has ended. Aborting what is returned cuts off calls.
///
/// # Errors
/// Those of starting the first thread. What is returned ends with those of serving.
pub(crate) fn grpc(
    listener: UnixListener,
    routes: Routes,
    calls: &Calls,
    reservation: &Arc<Reservation>,
    until: oneshot::Receiver<()>,
) -> Result<JoinHandle<Result<()>>> {
    let (turn, all, ending) = (Turn::default(), Vec::new(), JoinSet::new());
    let mut lanes = Lanes { routes, calls: calls.clone(), reservation: reservation.clone(), turn, all, ending };
    lanes.start_one()?;
    Ok(tokio::spawn(async move {
        tokio::select! {
            () = lanes.accept(&listener) => {}
            _ = until => {}
        }
        drop(listener);
        lanes.end().await
    }))
}

/// The threads that serve connections, and what each needs.
struct Lanes {
    routes: Routes,
    calls: Calls,
    reservation: Arc<Reservation>,
    turn: Turn,
    all: Vec<Lane>,
    /// Those that no connection is given to any more.
    ending: JoinSet<Result<()>>,
}

impl Lanes {
    fn start_one(&mut self) -> Result<()> {
        let pace = Pace::new(&self.reservation);
        self.all.push(Lane::start(self.routes.clone(), self.calls.clone(), pace, self.turn.of_another_thread())?);
        Ok(())
    }

    /// Hands connections to threads. One that could not be accepted is logged, and the others are not affected.
    async fn accept(&mut self, listener: &UnixListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = tokio::time::sleep(LOOK), if self.all.len() > 1 => {
                    self.end_idle();
                    continue;
                }
            };
            match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => {
                    make_room(&stream);
                    self.take(stream);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Lets all threads end that have no connection, but for one.
    fn end_idle(&mut self) {
        while let Some(ended) = self.ending.try_join_next() {
            if let Err(error) = ended.unwrap_or_else(|_| Err(panicked())) {
                tracing::error!(%error, "a thread that served connections did not end in order");
            }
        }
        let is_idle = |lane: &mut Lane| lane.turn.connections() == 0;
        for lane in self.all.extract_if(1.., is_idle) {
            self.ending.spawn(lane.end());
        }
    }

    /// Waits for the last call of the connections that there are.
    async fn end(mut self) -> Result<()> {
        for lane in self.all {
            self.ending.spawn(lane.end());
        }
        while let Some(ended) = self.ending.join_next().await {
            ended.map_err(|_| panicked())??;
        }
        Ok(())
    }

    /// Gives a connection to the thread that has the fewest; if each has some, to another one.
    fn take(&mut self, stream: StdUnixStream) {
        self.all.retain(Lane::is_alive);
        let all_serve = self.all.iter().all(|lane| lane.turn.connections() > 0);
        if all_serve
            && self.all.len() < MOST_THREADS
            && let Err(error) = self.start_one()
        {
            tracing::warn!(%error, "connections share the threads that there are");
        }
        if let Some(lane) = self.all.iter().min_by_key(|lane| lane.turn.connections()) {
            lane.take(stream);
        }
    }
}

/// A connection, and whose turn it is to look for more.
type Connection = (StdUnixStream, Turn);

/// A thread that serves connections. Dropping it cuts them off.
struct Lane {
    connections: mpsc::UnboundedSender<Connection>,
    /// Counts the thread's connections.
    turn: Turn,
    ended: oneshot::Receiver<Result<()>>,
    // The thread ends at once when it is dropped.
    cut: oneshot::Sender<()>,
}

impl Lane {
    fn start(routes: Routes, calls: Calls, pace: Pace, turn: Turn) -> Result<Self> {
        let (connections, arriving) = mpsc::unbounded_channel();
        let (ends, ended) = oneshot::channel();
        let (cut, is_cut) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().attempt(starting)?;
        let serve = move || {
            // Nobody may be waiting for it any more.
            let _ = ends.send(serve(&runtime, routes, calls, pace, arriving, is_cut));
            // What is still being done for a call that was cut off is not waited for.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("windlass-serve".to_owned()).spawn(serve).attempt(starting)?;
        Ok(Self { connections, turn, ended, cut })
    }

    /// Says whether the thread serves. One that panicked is said so of, and done without.
    fn is_alive(&self) -> bool {
        let alive = !self.connections.is_closed();
        if !alive {
            tracing::error!("a thread that serves connections has ended, and what it served is cut off");
        }
        alive
    }

    fn take(&self, stream: StdUnixStream) {
        // A thread that ends at this moment lets the connection go.
        let _ = self.connections.send((stream, self.turn.clone()));
    }

    /// Waits for the last call of the connections that there are.
    async fn end(self) -> Result<()> {
        let Self { connections, ended, cut, .. } = self;
        drop(connections);
        let outcome = ended.await.map_err(|_| panicked())?;
        drop(cut);
        outcome
    }
}

fn panicked() -> Error {
    Error::internal("a thread that serves connections panicked")
}

fn starting() -> String {
    "start a thread that serves connections".to_owned()
}

/// Serves connections until no more can come, the last call has ended and nothing is left to do for one, or until it is cut off.
fn serve(
    runtime: &Runtime,
    routes: Routes,
    calls: Calls,
    pace: Pace,
    arriving: mpsc::UnboundedReceiver<Connection>,
    is_cut: oneshot::Receiver<()>,
) -> Result<()> {
    let connections = stream::unfold(arriving, |mut arriving| async {
        let (stream, turn) = arriving.recv().await?;
        let socket = UnixStream::from_std(stream).and_then(Socket::new);
        let stream = socket.map(|socket| Lenient::new(Gathering::new(Lingering::new(socket, turn))));
        Some((stream, arriving))
    });
    // With a signal, be it one that never comes, connections are served to the end of their calls.
    let server = server::builder().layer(calls).layer(pace);
    let served = server.serve_with_incoming_shutdown(routes, connections, future::pending());
    let to_the_end = async {
        served.await.map_err(|error| Error::internal("serve connections").source(error))?;
        // Such as what a client that went away had begun.
        while runtime.metrics().num_alive_tasks() > 0 {
            tokio::time::sleep(LAST_LOOK).await;
        }
        Ok(())
    };
    runtime.block_on(async {
        tokio::select! {
            ended = to_the_end => ended,
            _ = is_cut => Ok(()),
        }
    })
}
