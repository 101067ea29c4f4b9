//! `cargo xtask bench pull`: a large image from a registry on loopback, by us and by Debian's peers.
//!
//! Every round runs every subject once, with an empty page cache and a root of its own that is removed afterwards. The
//! registry's own time is nobody's: it is the same for all, and not counted as CPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::measure::{self, Cost};
use super::report::{Bar, Report, Subject};
use crate::peer::{Layout, Registry};
use crate::{image, packages, process};

/// How often the start-up is measured: it is short, and so are its outliers.
const STARTS: usize = 21;

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each subject runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Use the small image of the quickstart, to try the benchmark itself
    #[arg(long)]
    small: bool,
    /// Measure this `dist` instead of building one, to compare two versions
    #[arg(long, value_name = "FILE")]
    dist: Option<PathBuf>,
    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !process::is_root() {
        bail!(
            "unpacking and dropping the page cache need root\nhint: `sudo env \"PATH=$PATH\" cargo xtask bench pull`"
        );
    }
    packages::install(packages::BENCH)?;
    let dist = match &options.dist {
        Some(dist) => std::path::absolute(dist).with_context(|| format!("find {}", dist.display()))?,
        None => process::build_dist()?,
    };
    let layout = if options.small { image::small()? } else { image::large()? };
    println!("{}", image::describe(&layout)?);
    let base = process::target()?.join("bench");
    fs::create_dir_all(&base).with_context(|| format!("create {}", base.display()))?;
    let scratch = tempfile::Builder::new().prefix("pull-").tempdir_in(&base).context("create a temporary directory")?;
    let registry = Registry::start(&scratch.path().join("registry"))?;
    let (reference, mut skopeo) = registry.push(&layout, "debian:bench");
    process::run(&mut skopeo).context("push the image")?;

    let bench = Bench { dist, reference, layout, scratch: scratch.path().to_owned() };
    let mut report = Report::default();
    for round in 1..=options.rounds {
        for subject in Subject::ALL {
            let cost = bench.run(subject).with_context(|| format!("round {round}: {}", subject.name()))?;
            println!("round {round}: {:<24} {:6.2} s wall, {:6.2} s cpu", subject.name(), cost.wall, cost.cpu);
            report.add(subject, cost);
        }
    }
    report.start = bench.start()?;
    print!("\n{report}");
    if let Some(path) = &options.json {
        let json = report.json(&image::describe(&bench.layout)?, Bar::ALL);
        fs::write(path, format!("{json:#}\n")).with_context(|| format!("write {}", path.display()))?;
    }
    drop(registry);
    scratch.close().context("remove what the benchmark made")
}

/// What every run needs.
struct Bench {
    dist: PathBuf,
    reference: String,
    layout: Layout,
    scratch: PathBuf,
}

impl Bench {
    /// Runs a subject once, cold, in a directory of its own.
    fn run(&self, subject: Subject) -> Result<Cost> {
        let place = tempfile::Builder::new().prefix("run-").tempdir_in(&self.scratch).context("create a directory")?;
        measure::cold()?;
        let cost = match subject {
            Subject::Fetch => measure::cost(&self.dist("fetch", place.path()), &self.scratch, None),
            Subject::Pull => measure::cost(&self.dist("pull", place.path()), &self.scratch, None),
            Subject::Copy => measure::cost(&self.copy(place.path()), &self.scratch, None),
            Subject::CopyAndUnpack => self.copy_and_unpack(place.path()),
            Subject::Limit => self.limit(place.path()),
        }?;
        place.close().context("remove what the run made")?;
        Ok(cost)
    }

    fn dist(&self, what: &str, place: &Path) -> Command {
        let mut dist = Command::new(&self.dist);
        dist.arg("--root").arg(place.join("root")).args(["--progress", "none", what, &self.reference]);
        dist
    }

    fn copy(&self, place: &Path) -> Command {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        skopeo.arg(format!("docker://{}", self.reference)).arg(format!("oci:{}:bench", place.join("layout").display()));
        skopeo
    }

    fn copy_and_unpack(&self, place: &Path) -> Result<Cost> {
        let copied = measure::cost(&self.copy(place), &self.scratch, None)?;
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--image"]).arg(format!("{}:bench", place.join("layout").display()));
        Ok(copied + measure::cost(umoci.arg(place.join("bundle")), &self.scratch, None)?)
    }

    /// What must be done whoever does it: hash, inflate and extract each layer, one after the other. Each goes into a
    /// directory of its own, because tar knows nothing of whiteouts.
    fn limit(&self, place: &Path) -> Result<Cost> {
        let mut sum = Cost::default();
        for (number, layer) in (1..).zip(self.layout.layers()?) {
            let (archive, tree) = (place.join("layer.tar"), place.join(format!("layer-{number}")));
            fs::create_dir_all(&tree)?;
            sum = sum + measure::cost(Command::new("sha256sum").arg(&layer), &self.scratch, None)?;
            sum = sum + measure::cost(Command::new("gunzip").arg("-c").arg(&layer), &self.scratch, Some(&archive))?;
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--numeric-owner", "--file"]).arg(&archive).arg("--directory").arg(&tree);
            sum = sum + measure::cost(&tar, &self.scratch, None)?;
        }
        Ok(sum)
    }

    /// Returns how long `dist images ls` takes on an empty root, in seconds, the middle of many.
    fn start(&self) -> Result<f64> {
        let place =
            tempfile::Builder::new().prefix("start-").tempdir_in(&self.scratch).context("create a directory")?;
        let mut walls = Vec::new();
        // The first run makes the root.
        for _ in 0..=STARTS {
            let mut dist = Command::new(&self.dist);
            dist.arg("--root").arg(place.path().join("root")).args(["images", "ls"]);
            walls.push(measure::wall(&mut dist)?.as_secs_f64());
        }
        Ok(measure::median(walls.get(1..).unwrap_or_default()))
    }
}
