//! `cargo xtask bench pull`: three images from a registry on loopback, by us and by Debian's peers.
//!
//! Every round runs every subject once for every image, with an empty page cache and a root of its own. The registry is
//! Debian's; it shares the cores with whoever pulls, and its time is nobody's: not counted as CPU, but it is there in what
//! a pull takes, and it is not there in the limit.

mod limit;
mod report;
mod room;
mod slow;
mod subject;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use super::bar::Bar;
use super::frame::Frame;
use super::measure;
use crate::peer::{Layout, Registry};
use crate::{image, packages, process};
use report::{Image, Report};
use room::{NEEDED, Room};
use subject::{Site, Subject};

/// How often the start-up is measured: it is short, and so are its outliers.
const STARTS: usize = 21;
/// The most that it may take, in milliseconds.
const START: f64 = 15.0;
/// The most that a fetch in parts may take of one through a single connection, where each gets the same.
const PARALLEL: f64 = 1.0 / 3.0;

/// The images, and what is asked for: how many times the limit a pull may take.
const FILES: Image = Image { name: "files", overlay: 1.3, erofs: 0.6 };
const BLOBS: Image = Image { name: "blobs", overlay: 1.3, erofs: 1.0 };
const MANY: Image = Image { name: "many", overlay: 1.5, erofs: 1.0 };
/// The quickstart's, to try the benchmark.
const SMALL: Image = Image { name: "small", overlay: 1.5, erofs: 1.0 };

/// An image and where it is, or how it is made.
type Made = (Image, fn() -> Result<Layout>);

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each subject runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Only these images: files, blobs, many; or small, to try the benchmark itself
    #[arg(long = "image", value_name = "NAME", value_parser = ["files", "blobs", "many", "small"])]
    images: Vec<String>,
    /// Measure containerd, and skopeo with umoci, too
    #[arg(long)]
    peers: bool,
    /// Fail when a bar is missed or was not measured
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    frame: Frame,
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let begun = options.frame.begin("pull", "unpacking and dropping the page cache", packages::BENCH)?;
    if options.peers {
        packages::install(packages::BENCH_PEERS)?;
    }
    let results = measure_all(options, &begun.dist, begun.scratch.path())?;
    results.print();
    options.frame.end(begun, &results.json())?;
    if options.check && !results.bars.iter().all(Bar::holds) {
        bail!("not every bar is met");
    }
    Ok(())
}

/// Everything that was measured.
struct Results {
    reports: Vec<Report>,
    start: f64,
    bars: Vec<Bar>,
}

impl Results {
    fn print(&self) {
        for report in &self.reports {
            println!("\n{report}");
        }
        println!("{:<44}{:>9}{:>9}", "bars", "value", "at most");
        for bar in &self.bars {
            println!("{bar}");
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "images": self.reports.iter().map(Report::json).collect::<Vec<_>>(),
            "start_seconds": self.start,
            "bars": self.bars.iter().map(Bar::json).collect::<Vec<_>>(),
        })
    }
}

fn measure_all(options: &Options, dist: &Path, scratch: &Path) -> Result<Results> {
    let registry = Registry::start(&scratch.join("registry"))?;
    let mut sites = Vec::new();
    for (image, make) in wanted(options) {
        let layout = make()?;
        let description = image::describe(&layout)?;
        println!("{description}");
        let (reference, mut push) = registry.push(&layout, &name(image));
        process::run(&mut push).context("push the image")?;
        sites.push((Site { dist, reference, layout, scratch }, Report::new(image, description), image));
    }
    let mut room = Room::new(&scratch.join("runs"));
    let mut subjects = subjects(options, dist)?;
    for round in 1..=options.rounds {
        for (site, report, image) in &mut sites {
            round_of(round, site, report, *image, &mut subjects, &mut room)?;
        }
    }
    let start = start(dist, scratch)?;
    let mut bars: Vec<Bar> = sites.iter().flat_map(|(_, report, _)| report.bars()).collect();
    if let Some((_, _, image)) = sites.iter().find(|(_, _, image)| *image == BLOBS) {
        let value = slow::ratio(dist, &registry, &name(*image), &mut room)?;
        bars.push(Bar { name: "blobs: fetch in parts / one stream".to_owned(), value: Some(value), at_most: PARALLEL });
    }
    bars.push(Bar { name: "start-up of images ls, ms".to_owned(), value: Some(start * 1e3), at_most: START });
    Ok(Results { reports: sites.into_iter().map(|(_, report, _)| report).collect(), start, bars })
}

/// Returns what an image is called in the registry.
fn name(image: Image) -> String {
    format!("{}:bench", image.name)
}

fn wanted(options: &Options) -> Vec<Made> {
    let all: [Made; 4] = [(FILES, image::files), (BLOBS, image::blobs), (MANY, image::many), (SMALL, image::small)];
    let named = |image: Image| options.images.iter().any(|name| name == image.name);
    let all = all.into_iter();
    all.filter(|(image, _)| if options.images.is_empty() { *image != SMALL } else { named(*image) }).collect()
}

/// Returns what is measured; a `dist` that knows no EROFS is measured without.
fn subjects(options: &Options, dist: &Path) -> Result<Vec<Subject>> {
    let mut subjects = Subject::ALWAYS.to_vec();
    if options.peers {
        subjects.extend(Subject::PEERS);
    }
    if !process::output(Command::new(dist).args(["pull", "--help"]))?.contains("erofs") {
        println!("this dist has no EROFS snapshotter: it is measured without");
        subjects.retain(|subject| *subject != Subject::PullErofs);
    }
    Ok(subjects)
}

fn round_of(
    round: u8,
    site: &Site<'_>,
    report: &mut Report,
    image: Image,
    subjects: &mut Vec<Subject>,
    room: &mut Room,
) -> Result<()> {
    for subject in subjects.clone() {
        let place = room.place(NEEDED)?;
        match site.run(subject, &place) {
            Ok(cost) => {
                println!(
                    "round {round}, {}: {:<24}{:7.2} s wall, {:6.2} s cpu",
                    image.name,
                    subject.name(),
                    cost.wall,
                    cost.cpu
                );
                report.add(subject, cost);
            }
            // A kernel may be without it, or may not mount files.
            Err(error) if subject == Subject::PullErofs && round == 1 => {
                println!("{} is left out: {error:#}", subject.name());
                subjects.retain(|other| *other != subject);
            }
            Err(error) => return Err(error.context(format!("round {round}, {}: {}", image.name, subject.name()))),
        }
        Room::give_back(&place)?;
    }
    Ok(())
}

/// Returns how long `dist images ls` takes on an empty root, in seconds, the middle of many.
fn start(dist: &Path, scratch: &Path) -> Result<f64> {
    let place = tempfile::Builder::new().prefix("start-").tempdir_in(scratch).context("create a directory")?;
    let mut walls = Vec::new();
    // The first run makes the root.
    for _ in 0..=STARTS {
        let mut dist = Command::new(dist);
        dist.arg("--root").arg(place.path().join("root")).args(["images", "ls"]);
        walls.push(measure::wall(&mut dist)?.as_secs_f64());
    }
    Ok(measure::median(walls.get(1..).unwrap_or_default()))
}
