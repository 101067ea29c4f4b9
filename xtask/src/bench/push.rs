//! `cargo xtask bench push`: images into a registry on loopback, by us and by skopeo.
//!
//! Every run has a registry of its own, empty but for what it is to read, and an empty page cache. The registry is Debian's;
//! it shares the cores with whoever pushes, and does most of the work: it hashes what it gets, and writes it to the disk.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::bar::Bar;
use super::frame::Frame;
use super::measure::{self, Cost, median};
use crate::peer::{Layout, Registry};
use crate::{image, packages, process};

/// The share of skopeo's time that a push of *files* may take, from an OCI layout and from a store.
const SHARE: f64 = 0.5;
/// The most memory that a copy may take, in MB.
const MEMORY: f64 = 50.0;

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each subject runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Only these images: files, many, blobs; or small, to try the benchmark itself
    #[arg(long = "image", value_name = "NAME", value_parser = ["files", "many", "blobs", "small"])]
    images: Vec<String>,
    /// Fail when a bar is missed
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    frame: Frame,
}

/// What is measured, in the order of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// `skopeo copy oci:… docker://…`.
    Skopeo,
    /// `dist copy oci:… …`.
    FromLayout,
    /// `dist push …`, of what was fetched before.
    FromStore,
    /// `dist copy … …`, from one registry to another one.
    Across,
}

impl Subject {
    const ALL: [Self; 4] = [Self::Skopeo, Self::FromLayout, Self::FromStore, Self::Across];

    fn name(self) -> &'static str {
        match self {
            Self::Skopeo => "skopeo copy",
            Self::FromLayout => "dist copy, from a layout",
            Self::FromStore => "dist push",
            Self::Across => "dist copy, registry to registry",
        }
    }
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let begun = options.frame.begin("push", "dropping the page cache, and unpacking,", packages::BENCH)?;
    let mut reports = Vec::new();
    for (name, make) in wanted(options) {
        let layout = make()?;
        println!("{}", image::describe(&layout)?);
        let site = Site { dist: &begun.dist, layout, name, scratch: begun.scratch.path() };
        reports.push(site.measure(options.rounds)?);
    }
    for report in &reports {
        println!("\n{report}");
    }
    let bars: Vec<Bar> = reports.iter().flat_map(Report::bars).collect();
    println!("{:<44}{:>9}{:>9}", "bars", "value", "at most");
    for bar in &bars {
        println!("{bar}");
    }
    let images: Vec<Value> = reports.iter().map(Report::json).collect();
    let all = json!({ "images": images, "bars": bars.iter().map(Bar::json).collect::<Vec<_>>() });
    options.frame.end(begun, &all)?;
    if options.check && !bars.iter().all(Bar::holds) {
        bail!("not every bar is met");
    }
    Ok(())
}

type Made = (&'static str, fn() -> Result<Layout>);

fn wanted(options: &Options) -> Vec<Made> {
    let all: [Made; 4] =
        [("files", image::files), ("many", image::many), ("blobs", image::blobs), ("small", image::small)];
    let usual = |name: &str| matches!(name, "files" | "many");
    let named = |name: &str| options.images.iter().any(|other| other == name);
    all.into_iter().filter(|(name, _)| if options.images.is_empty() { usual(name) } else { named(name) }).collect()
}

/// An image, and what pushes it.
struct Site<'a> {
    dist: &'a Path,
    layout: Layout,
    name: &'static str,
    scratch: &'a Path,
}

impl Site<'_> {
    fn measure(&self, rounds: u8) -> Result<Report> {
        process::run(self.dist().arg("fetch").arg(self.layout.skopeo())).context("fetch the image")?;
        let source = Registry::start(&self.scratch.join(format!("source-{}", self.name)))?;
        let (from, mut push) = source.push(&self.layout, "source:bench");
        process::run(&mut push).context("put the image into a registry")?;
        let mut report = Report { name: self.name, costs: Vec::new() };
        for round in 1..=rounds {
            for subject in Subject::ALL {
                let cost = self.run(subject, &from)?;
                let (wall, cpu, name) = (cost.wall, cost.cpu, subject.name());
                println!("round {round}, {}: {name:<32}{wall:7.2} s wall, {cpu:6.2} s cpu", self.name);
                report.costs.push((subject, cost));
            }
        }
        Ok(report)
    }

    /// Pushes once, into an empty registry.
    fn run(&self, subject: Subject, from: &str) -> Result<Cost> {
        let place = tempfile::Builder::new().prefix("run-").tempdir_in(self.scratch).context("create a directory")?;
        let registry = Registry::start(place.path())?;
        let (to, skopeo) = registry.push(&self.layout, "pushed:bench");
        measure::cold()?;
        let cost = |command: &Command| measure::cost(command, self.scratch, None);
        let cost = match subject {
            Subject::Skopeo => cost(&skopeo),
            Subject::FromLayout => cost(self.dist().args(["copy", &self.layout.skopeo(), &to])),
            Subject::FromStore => cost(self.dist().args(["push", &to, &self.layout.skopeo()])),
            Subject::Across => cost(self.dist().args(["copy", from, &to])),
        };
        drop(registry);
        cost.with_context(|| format!("{}: {}", self.name, subject.name()))
    }

    fn dist(&self) -> Command {
        let mut dist = Command::new(self.dist);
        dist.arg("--root").arg(self.scratch.join("root")).args(["--progress", "none"]);
        dist
    }
}

/// What was measured of an image.
struct Report {
    name: &'static str,
    costs: Vec<(Subject, Cost)>,
}

impl Report {
    fn middle(&self, subject: Subject, part: fn(&Cost) -> f64) -> f64 {
        let all: Vec<f64> = self.costs.iter().filter(|(of, _)| *of == subject).map(|(_, cost)| part(cost)).collect();
        median(&all)
    }

    fn wall(&self, subject: Subject) -> f64 {
        self.middle(subject, |cost| cost.wall)
    }

    /// The most memory of any run, in MB.
    fn peak(&self, subject: Subject) -> f64 {
        let of = self.costs.iter().filter(|(of, _)| *of == subject);
        of.map(|(_, cost)| cost.peak * 1024.0 / 1e6).fold(0.0, f64::max)
    }

    fn bars(&self) -> Vec<Bar> {
        let bar =
            |what: &str, value, at_most| Bar { name: format!("{}: {what}", self.name), value: Some(value), at_most };
        let share = |subject| self.wall(subject) / self.wall(Subject::Skopeo);
        let mut bars = Vec::new();
        if self.name == "files" {
            bars.push(bar("dist copy from a layout / skopeo", share(Subject::FromLayout), SHARE));
            bars.push(bar("dist push / skopeo", share(Subject::FromStore), SHARE));
        }
        bars.push(bar("memory of dist copy, MB", self.peak(Subject::Across), MEMORY));
        bars
    }

    fn json(&self) -> Value {
        let subjects = Subject::ALL.map(|subject| {
            json!({
                "name": subject.name(),
                "wall_seconds": self.wall(subject),
                "cpu_seconds": self.middle(subject, |cost| cost.cpu),
                "peak_megabytes": self.peak(subject),
            })
        });
        json!({ "image": self.name, "subjects": subjects })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<34}{:>9}{:>9}{:>9}{:>12}", self.name, "wall, s", "cpu, s", "MB", "of skopeo's")?;
        for subject in Subject::ALL {
            let (wall, cpu) = (self.wall(subject), self.middle(subject, |cost| cost.cpu));
            let (peak, share) = (self.peak(subject), wall / self.wall(Subject::Skopeo));
            writeln!(f, "{:<34}{wall:>9.2}{cpu:>9.2}{peak:>9.1}{share:>12.2}", subject.name())?;
        }
        Ok(())
    }
}
