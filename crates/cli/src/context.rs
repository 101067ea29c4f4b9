//! What every command works with: the options of the whole program, and the host made of them.

use std::path::PathBuf;

use indicatif::MultiProgress;
use windlass::{Engine, LockWait};
use windlass_core::{Durability, Error, Host, Result, Services};

use crate::args::{Globals, Progress, Wait};
use crate::failure::Outcome;
use crate::progress::Display;
use crate::render::{Format, Output};

/// Where everything is when root does not say otherwise.
const SYSTEM_ROOT: &str = "/var/lib/windlass";

/// The options of the program and what shows its progress.
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) bars: MultiProgress,
}

impl Context {
    /// Opens the engine on the root.
    async fn engine(&self) -> Result<Engine> {
        let builder = Engine::builder(self.root()?).lock_wait(self.lock_wait());
        builder.sharing(self.globals.content_sharing).durability(self.durability()).open().await
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

    /// Returns where the command works.
    pub(crate) async fn host(&self) -> Result<Box<dyn Host>> {
        Ok(Box::new(self.engine().await?))
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

/// Tells whether the process may do what root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
