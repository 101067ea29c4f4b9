//! The signals that end a daemon: the first one lets it finish, the second one does not.

use tokio::signal::unix::{Signal, SignalKind, signal};
use windlass_core::Result;
use windlass_core::error::IoResultExt as _;

/// Listens for signals.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).attempt(|| "listen for signals".to_owned());
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT and returns its name. SIGHUP, by which other daemons read their configuration again,
    /// changes nothing and says so.
    pub(crate) async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                Some(()) = self.terminate.recv() => return "SIGTERM",
                Some(()) = self.interrupt.recv() => return "SIGINT",
                Some(()) = self.hangup.recv() => {
                    tracing::warn!("SIGHUP changes nothing: a new configuration takes effect with a restart");
                }
                else => std::future::pending().await,
            }
        }
    }
}
