//! What is around every benchmark: which `dist` is measured, the room for it, and where the report goes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use tempfile::TempDir;

use crate::packages::{self, Program};
use crate::process;

/// The options of every benchmark.
#[derive(Debug, Args)]
pub(super) struct Frame {
    /// Measure this `dist` instead of building one, to compare two versions
    #[arg(long, value_name = "FILE")]
    dist: Option<PathBuf>,
    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a benchmark has when it begins.
pub(super) struct Begun {
    /// The `dist` to measure.
    pub(super) dist: PathBuf,
    /// A directory of its own, on the filesystem of the build.
    pub(super) scratch: TempDir,
}

impl Frame {
    /// Prepares a benchmark: `why` it needs root, and what it runs.
    pub(super) fn begin(&self, name: &str, why: &str, programs: &[Program]) -> Result<Begun> {
        if !process::is_root() {
            bail!("{why} need root\nhint: `sudo env \"PATH=$PATH\" cargo xtask bench {name}`");
        }
        packages::install(programs)?;
        let dist = match &self.dist {
            Some(dist) => std::path::absolute(dist).with_context(|| format!("find {}", dist.display()))?,
            None => process::build_dist()?,
        };
        let base = process::target()?.join("bench");
        fs::create_dir_all(&base).with_context(|| format!("create {}", base.display()))?;
        let scratch = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&base);
        Ok(Begun { dist, scratch: scratch.context("create a temporary directory")? })
    }

    /// Writes the report where it was asked for, and removes what the benchmark made.
    pub(super) fn end(&self, begun: Begun, report: &Value) -> Result<()> {
        if let Some(path) = &self.json {
            fs::write(path, format!("{report:#}\n")).with_context(|| format!("write {}", path.display()))?;
        }
        println!("removing what the benchmark made");
        begun.scratch.close().context("remove what the benchmark made")
    }
}
