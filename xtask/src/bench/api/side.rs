//! The two daemons, ours and Debian's containerd, each with a directory of its own that is thrown away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bench::store::containerd;
use crate::process;

/// How long a daemon may take to answer.
const START: Duration = Duration::from_mins(1);

/// Whose daemon it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    Containerds,
}

/// Makes the command line of a client of a side.
pub(super) type Client = fn(&Side, &[&str]) -> Command;

/// A daemon and where it keeps everything.
pub(super) struct Side {
    whose: Whose,
    dist: PathBuf,
    pub(super) directory: PathBuf,
}

impl Side {
    /// Makes the place of a daemon.
    pub(super) fn new(whose: Whose, dist: &Path, directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(Self { whose, dist: dist.to_owned(), directory })
    }

    /// Returns where the daemon listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Returns the command that starts the daemon.
    pub(super) fn command(&self) -> Result<Command> {
        if self.whose == Whose::Containerds {
            return containerd::configure(&self.directory);
        }
        let mut command = Command::new(&self.dist);
        command.arg("daemon").arg("--root").arg(self.directory.join("root"));
        command.arg("--state").arg(self.directory.join("state")).arg("--address").arg(self.socket());
        Ok(command)
    }

    /// Returns containerd's client, of either daemon.
    pub(super) fn ctr(&self, arguments: &[&str]) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket()).args(arguments);
        ctr
    }

    /// Returns our client, of either daemon.
    pub(super) fn dist(&self, arguments: &[&str]) -> Command {
        let mut dist = Command::new(&self.dist);
        dist.arg("--address").arg(self.socket()).args(["--progress", "none"]).args(arguments);
        dist
    }

    /// Starts the daemon and waits until it answers.
    pub(super) fn start(&self) -> Result<Running> {
        let log = fs::File::create(self.directory.join("log")).context("create the log of a daemon")?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start `{}`", process::show(&command)))?;
        let mut running = Running(child);
        let began = Instant::now();
        while process::output(&mut self.ctr(&["namespaces", "ls"])).is_err() {
            if let Some(status) = running.0.try_wait()? {
                bail!("the daemon ended ({status})\nhint: {} says why", self.directory.join("log").display());
            }
            if began.elapsed() > START {
                bail!("the daemon does not answer after {} s", START.as_secs());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(running)
    }
}

/// A running daemon; it is asked to stop, and waited for, when this is dropped.
pub(super) struct Running(Child);

impl Running {
    /// Returns how much memory of the daemon is resident, in MB.
    pub(super) fn memory(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.0.id());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("find VmRSS in {path}"))? * 1024.0 / 1e6)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either failure.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
