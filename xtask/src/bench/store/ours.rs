//! Our side: `dist` as a user runs it, and the helper that measures inside of a process (`crates/store/examples/scale`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bench::measure::{self, Cost};
use crate::process;

/// The programs that are measured.
pub(super) struct Ours {
    pub(super) dist: PathBuf,
    helper: PathBuf,
    pub(super) scratch: PathBuf,
}

/// Count, middle and tail of durations, in seconds.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Spread {
    pub(in crate::bench) p50: f64,
    pub(in crate::bench) p99: f64,
    pub(in crate::bench) max: f64,
}

impl Ours {
    /// Builds the helper; `dist` is there.
    pub(super) fn new(dist: PathBuf, scratch: &Path) -> Result<Self> {
        process::run(process::cargo().args([
            "build",
            "--release",
            "--package",
            "windlass-store",
            "--example",
            "scale",
        ]))?;
        let helper = process::target()?.join("release/examples/scale");
        Ok(Self { dist, helper, scratch: scratch.to_owned() })
    }

    /// Runs the helper and returns what it measured.
    pub(super) fn helper(&self, command: &str, root: &Path, arguments: &[&str]) -> Result<Value> {
        let text = process::output(Command::new(&self.helper).arg(command).arg(root).args(arguments))?;
        serde_json::from_str(&text).with_context(|| format!("understand {text:?}"))
    }

    /// Lets the helper die in the middle of changes.
    pub(super) fn die(&self, root: &Path) -> Result<()> {
        let died = Command::new(&self.helper).arg("die").arg(root).output().context("start the helper")?;
        anyhow::ensure!(died.status.code().is_none(), "the helper ended by itself: {died:?}");
        Ok(())
    }

    /// Returns `dist` on a root, without progress.
    pub(super) fn dist(&self, root: &Path, arguments: &[&str]) -> Command {
        let mut dist = Command::new(&self.dist);
        dist.arg("--root").arg(root).args(["--progress", "none"]).args(arguments);
        dist
    }

    /// Returns what a command of `dist` costs in several rounds; its output is thrown away.
    pub(super) fn costs(&self, root: &Path, arguments: &[&str], rounds: u8) -> Result<Vec<Cost>> {
        (0..rounds).map(|_| measure::cost(&self.dist(root, arguments), &self.scratch, None)).collect()
    }
}

/// Reads a number of what the helper measured.
pub(in crate::bench) fn number(value: &Value, pointer: &str) -> Result<f64> {
    value.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("find {pointer} in {value}"))
}

/// Reads durations of what the helper measured.
pub(in crate::bench) fn spread(value: &Value, pointer: &str) -> Result<Spread> {
    let of = |part: &str| number(value, &format!("{pointer}/{part}")).map(|micros| micros / 1e6);
    Ok(Spread { p50: of("p50")?, p99: of("p99")?, max: of("max")? })
}

/// Returns how long a command takes that reads a file as its standard input, in seconds.
pub(in crate::bench) fn wall_reading(mut command: Command, file: &Path) -> Result<f64> {
    let input = fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
    let began = std::time::Instant::now();
    process::run(command.stdin(input).stdout(std::process::Stdio::null()))?;
    Ok(began.elapsed().as_secs_f64())
}
