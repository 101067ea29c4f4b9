//! `cargo xtask fuzz`: every fuzz target of every crate, in turn, for a bounded time.
//!
//! The targets are programs of `crates/*/fuzz`, laid out as cargo-fuzz wants them. They are built here with the flags that
//! it uses, so that it need not be installed; into a directory of their own, because everything is instrumented. What is
//! found lies in the crate's `fuzz/artifacts`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// How long each target runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only targets whose name has this in it
    target: Option<String>,
}

impl Options {
    /// As part of all checks.
    pub(crate) fn in_tests() -> Self {
        Self { seconds: 60, target: None }
    }
}

/// What makes coverage visible to libFuzzer, and errors of memory and arithmetic visible at all. The first ones are what
/// LLVM calls its sanitizer coverage, documented in Clang's manual, "SanitizerCoverage".
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Zsanitizer=address",
    "--cfg=fuzzing",
];

/// Runs the targets; the first that finds something ends it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |name: &str| options.target.as_ref().is_none_or(|part| name.contains(&**part));
    let target = process::target()?.join("fuzz");
    let mut count = 0;
    for directory in directories()? {
        let programs: Vec<_> = programs(&directory)?.into_iter().filter(|name| wanted(name)).collect();
        if programs.is_empty() {
            continue;
        }
        let host = build(&directory, &target, &programs)?;
        for name in programs {
            println!("{}: {name} for {} s", directory.display(), options.seconds);
            fuzz(&directory, &target.join(&host).join("release").join(&name), &name, options.seconds)?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("no fuzz target was found");
    }
    println!("{count} targets found nothing");
    Ok(())
}

/// Returns the directories with fuzz targets.
fn directories() -> Result<Vec<PathBuf>> {
    let crates = process::workspace().join("crates");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&crates).with_context(|| format!("list {}", crates.display()))? {
        let directory = entry?.path().join("fuzz");
        if directory.join("Cargo.toml").is_file() {
            found.push(directory);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the names of the programs of a package.
fn programs(directory: &Path) -> Result<Vec<String>> {
    let manifest = directory.join("Cargo.toml");
    let metadata = process::output(
        process::cargo().args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"]).arg(&manifest),
    )?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("read what cargo metadata says")?;
    let targets = metadata.pointer("/packages/0/targets").and_then(|targets| targets.as_array());
    let names = targets.into_iter().flatten().filter_map(|target| target.get("name")?.as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Builds programs; returns the name of this machine's kind, under which they lie.
fn build(directory: &Path, target: &Path, programs: &[String]) -> Result<String> {
    let version = process::output(process::rustc().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not tell its host")?;
    let mut cargo = process::cargo();
    // The sanitizer is an unstable flag of a compiler that is stable otherwise.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS.join(" "));
    // With a target of its own, what runs at build time is not instrumented.
    cargo.args(["build", "--release", "--target", host, "--manifest-path"]).arg(directory.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(target).args(programs.iter().flat_map(|name| ["--bin", name]));
    process::run(&mut cargo)?;
    Ok(host.to_owned())
}

fn fuzz(directory: &Path, program: &Path, name: &str, seconds: u32) -> Result<()> {
    let corpus = directory.join("corpus").join(name);
    let artifacts = directory.join("artifacts").join(name);
    for place in [&corpus, &artifacts] {
        std::fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
    }
    let mut command = std::process::Command::new(program);
    command.arg(format!("-max_total_time={seconds}")).args([
        "-timeout=30",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&corpus);
    process::run(&mut command)
        .with_context(|| format!("{name} found something; its input is in {}", artifacts.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_of_every_crate_are_found() {
        let layer = process::workspace().join("crates/layer/fuzz");
        assert!(directories().unwrap().contains(&layer));
        let names = programs(&layer).unwrap();
        assert!(["tar", "extract"].iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
    }
}
