//! What every command works with: the options of the whole program, and the host made of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::MultiProgress;
use windlass::{Engine, LockWait, Owner};
use windlass_core::{Durability, Error, Host, Kind, Result, Services};
use windlass_grpc::Client;

use crate::args::{Globals, Progress, Wait};
use crate::failure::Outcome;
use crate::progress::Display;
use crate::render::{Format, Output};

/// Where everything is when root does not say otherwise.
const SYSTEM_ROOT: &str = "/var/lib/windlass";

/// The variable that names a daemon, as `ctr` has it.
const ADDRESS: &str = "CONTAINERD_ADDRESS";
/// How long to wait for a root before looking again whether a daemon has it, which does not give it back.
const STEP: Duration = Duration::from_millis(500);

/// Where a command works.
pub(crate) enum Place {
    /// On a root, in this process.
    Root(Engine),
    /// On a daemon.
    Daemon(Client),
}

impl Place {
    /// Returns it as a host.
    pub(crate) fn host(&self) -> &dyn Host {
        match self {
            Self::Root(engine) => engine,
            Self::Daemon(client) => client,
        }
    }
}

/// The options of the program and what shows its progress.
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) bars: MultiProgress,
}

impl Context {
    /// Returns where the command works: on a daemon that was named, on the root, or on the daemon that has the root.
    pub(crate) async fn host(&self) -> Result<Box<dyn Host>> {
        Ok(match self.place().await? {
            Place::Root(engine) => Box::new(engine),
            Place::Daemon(client) => Box::new(client),
        })
    }

    /// Returns the same, for those who need to know which it is.
    pub(crate) async fn place(&self) -> Result<Place> {
        if let Some(address) = self.address()? {
            return Ok(Place::Daemon(self.daemon(&address).await?));
        }
        let root = self.root()?;
        let began = Instant::now();
        loop {
            let left = self.patience().map(|patience| patience.saturating_sub(began.elapsed()));
            let error = match self.engine(&root, left.map_or(STEP, |left| left.min(STEP))).await {
                Ok(engine) => return Ok(Place::Root(engine)),
                Err(error) => error,
            };
            if let Some(address) = daemon_of(&root, &error) {
                let daemon = self.daemon(&address).await.map_err(|why| why.context(error.to_string()))?;
                return Ok(Place::Daemon(daemon));
            }
            if !error.is(Kind::Unavailable) || left.is_some_and(|left| left.is_zero()) {
                return Err(error);
            }
        }
    }

    /// Opens the engine on the root, and waits for it that long.
    async fn engine(&self, root: &Path, patience: Duration) -> Result<Engine> {
        let wait = if patience.is_zero() { LockWait::Fail } else { LockWait::UpTo(patience) };
        let builder = Engine::builder(root).lock_wait(wait).durability(self.durability());
        let builder = builder.layers(self.globals.layer_limits.clone().unwrap_or_default());
        let builder = builder.sharing(self.globals.content_sharing.unwrap_or_default());
        // A daemon that had the root may have kept its blobs in a process of its own.
        match windlass_daemon::content_of(root)? {
            Some(elsewhere) => builder.content(elsewhere).open().await,
            None => builder.open().await,
        }
    }

    /// Connects to a daemon.
    pub(crate) async fn daemon(&self, address: &Path) -> Result<Client> {
        let Globals { content_sharing, no_sync, layer_limits, .. } = &self.globals;
        let decided = [
            ("--content-sharing", content_sharing.is_some()),
            ("--no-sync", *no_sync),
            ("--layer-limits", layer_limits.is_some()),
        ];
        if let Some((option, _)) = decided.iter().find(|(_, given)| *given) {
            let error = format!("{option} is for the daemon at {} to decide, when it is started", address.display());
            return Err(Error::invalid_argument(error).hint(
                "leave it out, as an option and as a variable (DIST_CONTENT_SHARING, DIST_NO_SYNC, DIST_LAYER_LIMITS)",
            ));
        }
        Client::connect(address).await
    }

    /// Returns the daemon that was named, or the one that has the root: for what only a daemon can tell.
    ///
    /// # Errors
    /// `FailedPrecondition` when there is none.
    pub(crate) async fn client(&self) -> Result<Client> {
        if let Some(address) = self.address()? {
            return self.daemon(&address).await;
        }
        let root = self.root()?;
        let address = Owner::of(&root).and_then(|owner| owner.address).ok_or_else(|| {
            Error::failed_precondition(format!("no daemon has root {}, and only a daemon can tell", root.display()))
                .hint("`dist daemon` starts one; --address names one that works elsewhere")
        })?;
        self.daemon(&address).await
    }

    /// Returns the daemon that was named: by an option, or by the environment unless a root is named.
    ///
    /// # Errors
    /// `InvalidArgument` when a root is named as well, or a time to wait for one.
    pub(crate) fn address(&self) -> Result<Option<PathBuf>> {
        let Globals { address, root, wait, .. } = &self.globals;
        let Some(address) = address else {
            let named = std::env::var_os(ADDRESS).filter(|value| !value.is_empty() && root.is_none());
            return Ok(named.map(PathBuf::from));
        };
        let contradicting = [("--root", root.is_some()), ("--wait", wait.is_some())];
        if let Some((option, _)) = contradicting.iter().find(|(_, given)| *given) {
            let error = format!("{option} does not go with --address: the daemon has a root already");
            return Err(Error::invalid_argument(error).hint("leave one of them out"));
        }
        Ok(Some(address.clone()))
    }

    /// Tells whether this process may unpack, or has somebody who does it.
    pub(crate) fn may_unpack(&self) -> Result<bool> {
        Ok(is_root() || self.address()?.is_some())
    }

    fn durability(&self) -> Durability {
        if self.globals.no_sync { Durability::Unsynced } else { Durability::Synced }
    }

    /// Returns what to do while another process has the root.
    pub(crate) fn lock_wait(&self) -> LockWait {
        match self.globals.wait {
            None => LockWait::Fail,
            Some(Wait::UpTo(time)) => LockWait::UpTo(time),
            Some(Wait::Forever) => LockWait::Forever,
        }
    }

    /// Returns how long to wait for the root; `None` is as long as it takes.
    fn patience(&self) -> Option<Duration> {
        match self.lock_wait() {
            LockWait::Fail => Some(Duration::ZERO),
            LockWait::UpTo(time) => Some(time),
            LockWait::Forever => None,
        }
    }

    /// Returns the services of the host, bound to the namespace.
    pub(crate) async fn services(&self) -> Outcome<Services> {
        Ok(self.host().await?.services(&self.globals.namespace.clone().into()).await?)
    }

    /// Returns where data goes.
    pub(crate) fn output(&self) -> Output {
        Output { format: self.globals.format }
    }

    /// Returns what shows progress.
    pub(crate) fn display(&self) -> Display {
        Display::new(self.globals.progress, self.bars.clone())
    }

    /// Returns how errors are printed: as JSON when either stream is read by a program.
    pub(crate) fn error_format(&self) -> Format {
        if self.globals.progress == Progress::Json { Format::Json } else { self.globals.format }
    }

    /// Returns the root directory: the one given, the system's, or the user's by the XDG base directory specification.
    pub(crate) fn root(&self) -> Result<PathBuf> {
        if let Some(root) = &self.globals.root {
            return Ok(root.clone());
        }
        if is_root() {
            return Ok(SYSTEM_ROOT.into());
        }
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        let data = data.ok_or_else(|| {
            Error::failed_precondition("there is no user data directory: HOME is not set").hint("name one with --root")
        })?;
        Ok(data.join("windlass"))
    }
}

/// Returns where the daemon answers that has a root which could not be opened.
pub(crate) fn daemon_of(root: &Path, error: &Error) -> Option<PathBuf> {
    // Who may not open the root may be one who may connect to the socket.
    let may_be = [Kind::Unavailable, Kind::PermissionDenied].contains(&error.kind());
    Owner::of(root).filter(|_| may_be)?.address
}

/// Tells whether the process may do what root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
