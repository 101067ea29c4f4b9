//! A daemon in this process, and clients of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use windlass_core::{Host as _, Kind, Namespace, Services};
use windlass_daemon::{Config, Daemon, Process};
use windlass_grpc::Client;

/// A directory for a daemon.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/windlass.sock")
    }

    pub(crate) fn config(&self) -> Config {
        config_below(self.directory.path())
    }

    pub(crate) async fn start(&self) -> Daemon {
        start(self.config()).await
    }

    pub(crate) async fn channel(&self) -> Channel {
        connect(self.socket()).await
    }

    /// Connects a client of its own and returns the services of the default namespace.
    pub(crate) async fn services(&self) -> Services {
        Client::new(self.channel().await).services(&Namespace::default().into()).await.unwrap()
    }
}

/// Returns the configuration of a daemon that has everything below a directory.
pub(crate) fn config_below(directory: &Path) -> Config {
    let mut config = Config { root: directory.join("root"), state: directory.join("state"), ..Config::default() };
    config.grpc.address = directory.join("run/windlass.sock");
    config
}

/// Connects to a socket.
pub(crate) async fn connect(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://daemon").connect_with_connector(connector).await.unwrap()
}

/// Starts a daemon. One before it in the same process may not have let go of the root yet: what it was doing when it was
/// stopped comes to its end.
pub(crate) async fn start(config: Config) -> Daemon {
    let process = Process { version: "v1".into(), ..Process::default() };
    for _ in 0..50 {
        match Daemon::start(config.clone(), process.clone()).await {
            Err(error) if error.is(Kind::Unavailable) => tokio::time::sleep(Duration::from_millis(100)).await,
            started => return started.unwrap(),
        }
    }
    Daemon::start(config, process).await.unwrap()
}
