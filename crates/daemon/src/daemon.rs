//! A daemon, from its start to its end.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use windlass::Engine;
use windlass_core::{Error, Result};

use crate::calls::Calls;
use crate::config::Config;
use crate::signals::Signals;
use crate::socket::{self, Socket};
use crate::{notify, serve};

/// How long calls that run may take to end when the daemon stops.
const DRAIN: Duration = Duration::from_secs(4);

/// Runs a daemon until a signal ends it: the first one lets calls that run end, the second one does not.
///
/// `notify` is where the service manager listens: the value of the variable `NOTIFY_SOCKET`.
///
/// # Errors
/// As [`Daemon::start`].
pub async fn run(config: Config, notify: Option<OsString>) -> Result<()> {
    let tell = |state: &str| {
        if let Some(Err(error)) = notify.as_deref().map(|socket| notify::send(socket, state)) {
            tracing::warn!(%error, "the service manager was not told");
        }
    };
    // First, so that a signal while the daemon starts is not lost.
    let mut signals = Signals::listen()?;
    let daemon = tokio::select! {
        started = Daemon::start(config) => started?,
        signal = signals.stop() => return Err(Error::canceled(format!("{signal} came before the daemon had started"))),
    };
    tell(notify::READY);
    let signal = signals.stop().await;
    tracing::info!("{signal}: stopping");
    tell(notify::STOPPING);
    tokio::select! {
        () = daemon.stop() => {}
        signal = signals.stop() => tracing::warn!("{signal} again: stopping at once"),
    }
    Ok(())
}

/// A daemon that answers.
pub struct Daemon {
    engine: Engine,
    calls: Calls,
    grpc: JoinHandle<Result<(), tonic::transport::Error>>,
    // Removes the socket.
    _name: socket::Name,
}

impl Daemon {
    /// Opens the root and listens. When this returns, clients are answered.
    ///
    /// # Errors
    /// `Unavailable` when another process has the root or answers at the address, naming it; those of opening an engine; those
    /// of making a socket.
    pub async fn start(config: Config) -> Result<Self> {
        let began = std::time::Instant::now();
        let builder = Engine::builder(&config.root).sharing(config.content.sharing).collect_by(config.gc);
        let builder = match &config.snapshots.default {
            Some(name) => builder.default_snapshotter(name),
            None => builder,
        };
        let engine = builder.open().await?;
        let Socket { listener, name } = Socket::bind(&config.grpc.address, config.grpc.uid, config.grpc.gid)?;
        let calls = Calls::new();
        let grpc = serve::grpc(listener, serve::routes(Arc::new(engine.clone())), &calls);
        tracing::info!(
            address = %config.grpc.address.display(),
            root = %config.root.display(),
            "ready after {} ms",
            began.elapsed().as_millis()
        );
        Ok(Self { engine, calls, grpc, _name: name })
    }

    /// Returns the engine that is served.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stops: no new call begins, those that run have four seconds to end, and streams end with a status.
    pub async fn stop(self) {
        self.calls.stop();
        match tokio::time::timeout(DRAIN, self.grpc).await {
            Ok(Ok(Ok(()))) => tracing::info!("stopped"),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the end of serving was not in order"),
            Ok(Err(error)) => tracing::warn!(%error, "the end of serving was not in order"),
            Err(_) => tracing::warn!("calls that had not ended after {} s were cut off", DRAIN.as_secs()),
        }
    }
}
