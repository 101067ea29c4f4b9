//! A daemon, from its start to its end.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use windlass::Engine;
use windlass::activations::Activations;
use windlass::registry::{Options, Proxies, Remote};
use windlass::transfer::Pull;
use windlass_core::error::IoResultExt as _;
use windlass_core::plugin::Introspection;
use windlass_core::{Error, Host, Result, activation};
use windlass_grpc::health;
use windlass_grpc::server::{self, Limits};
use windlass_proto::containerd::types::Envelope;

use crate::assemble::{self, Assembly};
use crate::calls::Calls;
use crate::config::{Config, Grpc, Registry};
use crate::introspection::About;
use crate::processor::Reservation;
use crate::signals::Signals;
use crate::socket::{self, Socket};
use crate::verified::Verified;
use crate::{metrics, notify, proxy, rest, serve, transfer, ttrpc};

/// How long calls that run may take to end when the daemon stops.
pub(crate) const DRAIN: Duration = Duration::from_secs(4);

/// What a daemon is told by the process it runs in.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// The version of the program.
    pub version: String,
    /// The commit it was built of; empty when nobody knows.
    pub revision: String,
    /// Where the service manager listens: the value of the variable `NOTIFY_SOCKET`.
    pub notify: Option<OsString>,
    /// The proxies between this machine and registries: those that the variables name.
    pub proxies: Proxies,
    /// What is called when no call has ended for a second after one did: to give memory back that is not used any more.
    pub rest: Option<fn()>,
    /// Whether the process is the daemon's alone, so that its threads may keep off a processor for a while.
    pub alone: bool,
}

/// Runs a daemon until a signal ends it: the first one lets calls that run end, the second one does not.
///
/// # Errors
/// As [`Daemon::start`].
pub async fn run(config: Config, process: Process) -> Result<()> {
    let notify = process.notify.clone();
    let tell = |state: &str| {
        if let Some(Err(error)) = notify.as_deref().map(|socket| notify::send(socket, state)) {
            tracing::warn!(%error, "the service manager was not told");
        }
    };
    // First, so that a signal while the daemon starts is not lost.
    let mut signals = Signals::listen()?;
    let daemon = tokio::select! {
        started = Daemon::start(config, process) => started?,
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
    grpc: JoinHandle<Result<()>>,
    // Listens until it is dropped.
    listening: oneshot::Sender<()>,
    // What else is served, until it is dropped.
    others: JoinSet<()>,
    // Remove the sockets.
    _names: [socket::Name; 2],
}

impl Daemon {
    /// Opens the root and listens. When this returns, clients are answered.
    ///
    /// # Errors
    /// `Unavailable` when another process has the root or answers at the address, naming it; `FailedPrecondition` for a plugin
    /// that is required and did not start; those of opening an engine; those of making a socket.
    pub async fn start(config: Config, process: Process) -> Result<Self> {
        let began = Instant::now();
        make_directory(&config.state)?;
        let assembly = Assembly::plan(&config)?;
        let verifier = config.verifier()?;
        let foreign = proxy::foreign(&assembly)?;
        let reservation = Arc::<Reservation>::default();
        let builder = assembly.apply(Engine::builder(&config.root), &config, foreign);
        let engine = builder.precedence(reservation.precedence().clone()).open().await?;
        let host: Arc<dyn Host> = Arc::new(engine.clone());
        let differing = proxy::differing(&assembly, &config.diff.default, &engine)?;
        let plugins = assembly.finish(&engine, &config).await?;
        let calls = Calls::new(assemble::left_out(&plugins));
        let about: Arc<dyn Introspection> =
            Arc::new(About::new(&config.root, plugins, process.version, process.revision)?);
        let activations = Activations::open(&config.state.join("mounts")).await?;
        let activations: Arc<dyn activation::Manager> = Arc::new(activations);

        let Grpc { address, uid, gid, max_recv_message_size, max_send_message_size } = &config.grpc;
        let Socket { listener, name } = Socket::bind(address, *uid, *gid)?;
        let shims = Socket::bind(&config.ttrpc_address(), config.ttrpc.uid, config.ttrpc.gid)?;
        let mut others = match config.metrics.address {
            Some(address) => metrics::listen(address, engine.clone(), calls.numbers().clone()).await?,
            None => JoinSet::new(),
        };
        if let Some(rest) = process.rest {
            others.spawn(rest::after_calls(calls.numbers().clone(), rest::QUIET, rest));
        }
        others.spawn(ttrpc::serve(shims.listener, Arc::new(Exchange(host.clone())), calls.clone()));
        let Registry { hosts_dirs, foreign_urls } = config.registry.clone();
        let proxies = process.proxies;
        let remote = Remote::new(Options { hosts_dirs, foreign_urls, proxies, ..Options::default() })?;
        let served: Arc<dyn Host> = match &verifier {
            Some(verifier) => {
                let (host, verifier) = (differing, verifier.clone());
                Arc::new(Verified { host, verifier, remote: remote.clone() })
            }
            None => differing,
        };
        let pull = Pull { verifier, ..config.pull() };
        let limits = Limits { taken: *max_recv_message_size, sent: *max_send_message_size };
        let health = health::Server::new(calls.stopping().clone());
        let routes = server::routes_within(limits, &served, &about, &activations, health);
        // What it brings is verified before it is fetched; what is here gets another name as it does from a client.
        let hosts = transfer::Hosts { bringing: host, naming: served };
        let routes = transfer::added_to(routes, limits, hosts, pull, remote, calls.clone());
        let (listening, until) = oneshot::channel();
        if process.alone {
            others.spawn(reservation.clone().keep());
        }
        let grpc = serve::grpc(listener, routes, &calls, &reservation, until)?;
        // Who reads it works in another directory.
        let address = std::path::absolute(&config.grpc.address).attempt(|| "find the working directory".to_owned())?;
        engine.announce(Some(&address))?;
        tracing::info!(
            address = %config.grpc.address.display(),
            root = %config.root.display(),
            "ready after {} ms",
            began.elapsed().as_millis()
        );
        Ok(Self { engine, calls, grpc, listening, others, _names: [name, shims.name] })
    }

    /// Returns the engine that is served.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stops: no new call begins, those that run have four seconds to end, and streams end with a status. Until then it is
    /// answered whether the daemon serves: it does not.
    pub async fn stop(mut self) {
        if let Err(error) = self.engine.announce(None) {
            tracing::warn!(%error, "the lock of the root still says where this process answered");
        }
        self.calls.stop();
        let listening = self.listening;
        let drain = async {
            self.calls.ended().await;
            drop(listening);
            (&mut self.grpc).await
        };
        match tokio::time::timeout(DRAIN, drain).await {
            Ok(Ok(Ok(()))) => tracing::info!("stopped"),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the end of serving was not in order"),
            Ok(Err(error)) => tracing::warn!(%error, "the end of serving was not in order"),
            Err(_) => {
                tracing::warn!("calls that had not ended after {} s are cut off", DRAIN.as_secs());
                self.grpc.abort();
            }
        }
        self.others.shutdown().await;
    }
}

/// Passes events of shims on to the subscribers of a host.
struct Exchange(Arc<dyn Host>);

#[async_trait]
impl ttrpc::Sink for Exchange {
    async fn forward(&self, envelope: Option<Envelope>) -> Result<()> {
        windlass_grpc::events::forward(&*self.0, envelope).await
    }
}

/// Makes the directory of what does not outlive a restart of the machine; others may pass through it, not list it.
fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;

    use windlass_core::error::IoResultExt as _;

    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(socket::DIRECTORY_MODE)
        .create(path)
        .attempt(|| format!("create {}", path.display()))
}
