//! `cargo xtask bench profile`: where the time of a pull goes, by thread, by function and by system call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::measure;
use crate::packages::Program;
use crate::peer::Registry;
use crate::{image, packages, process};

/// What to profile.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The image: files, blobs, many, or small
    #[arg(value_parser = ["files", "blobs", "many", "small"])]
    image: String,
    /// Unpack with this snapshotter
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
    /// Profile this `dist` instead of building one with the names of its functions
    #[arg(long, value_name = "FILE")]
    dist: Option<PathBuf>,
}

/// Samples a second, on each core.
const FREQUENCY: &str = "499";
/// How many lines of a list are printed.
const LINES: usize = 30;

const PROGRAMS: &[Program] = &[packages::program("perf", "linux-perf"), packages::program("strace", "strace")];

/// Pulls an image twice, once below perf and once below strace, and prints what they say.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !process::is_root() {
        bail!("perf needs root\nhint: `sudo env \"PATH=$PATH\" cargo xtask bench profile {}`", options.image);
    }
    packages::install(packages::BENCH)?;
    packages::install(PROGRAMS)?;
    let dist = match &options.dist {
        Some(dist) => std::path::absolute(dist).with_context(|| format!("find {}", dist.display()))?,
        None => build()?,
    };
    let layout = match options.image.as_str() {
        "files" => image::files(),
        "blobs" => image::blobs(),
        "many" => image::many(),
        _ => image::small(),
    }?;
    let base = process::target()?.join("bench");
    fs::create_dir_all(&base).with_context(|| format!("create {}", base.display()))?;
    let scratch =
        tempfile::Builder::new().prefix("profile-").tempdir_in(&base).context("create a temporary directory")?;
    let registry = Registry::start(&scratch.path().join("registry"))?;
    let (reference, mut push) = registry.push(&layout, "profile:1");
    process::run(&mut push).context("push the image")?;
    let pull = |root: &str| {
        let mut words = vec![dist.display().to_string(), "--root".to_owned()];
        words.extend([scratch.path().join(root).display().to_string(), "--progress".to_owned(), "none".to_owned()]);
        words.extend(["pull".to_owned(), reference.clone()]);
        words.extend(options.snapshotter.iter().flat_map(|name| ["--snapshotter".to_owned(), name.clone()]));
        words
    };
    let data = base.join(format!("{}.perf", options.image));
    sample(&data, &pull("sampled"))?;
    count(&scratch.path().join("calls"), &pull("counted"))?;
    println!("\nthe samples are kept: `perf report --input {}`", data.display());
    scratch.close().context("remove what was pulled")
}

/// Builds `dist` as it is released, but with the names and lines of its functions, beside the one that is released.
fn build() -> Result<PathBuf> {
    let target = process::target()?.join("profiling");
    let mut cargo = process::cargo();
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "none").env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only");
    cargo.args(["build", "--release", "--package", "windlass-cli", "--bin", "dist", "--target-dir"]).arg(&target);
    process::run(&mut cargo)?;
    Ok(target.join("release/dist"))
}

fn sample(data: &Path, pull: &[String]) -> Result<()> {
    measure::cold()?;
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--call-graph", "fp", "--freq", FREQUENCY, "--output"]).arg(data);
    process::run(perf.arg("--").args(pull).stdout(Stdio::null())).context("sample a pull")?;
    for (title, sort) in [("share of CPU by thread", "comm"), ("share of CPU by function", "dso,symbol")] {
        let mut report = Command::new("perf");
        report.args(["report", "--stdio", "--no-children", "--call-graph", "none", "--sort", sort, "--input"]);
        let text = process::output(report.arg(data))?;
        println!("\n{title}");
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.take(LINES).for_each(|line| println!("{}", line.trim_end_matches(['-', ' '])));
    }
    Ok(())
}

fn count(report: &Path, pull: &[String]) -> Result<()> {
    measure::cold()?;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-S", "calls", "-U", "calls,errors,max-time,total-time,name", "-o"]).arg(report);
    process::run(strace.args(pull).stdout(Stdio::null())).context("count the system calls of a pull")?;
    let text = fs::read_to_string(report).with_context(|| format!("read {}", report.display()))?;
    println!("\nsystem calls; their times are those below strace");
    text.lines().take(LINES).for_each(|line| println!("{line}"));
    Ok(())
}
