//! `cargo xtask bench store`: a store of a hundred thousand images, and how fast bytes and records go in.
//!
//! The root has records only, made through the library in large transactions; what is measured of them does not look at
//! bytes. Files are in the page cache unless it says cold. What others do is done in turn with what we do.

pub(in crate::bench) mod containerd;
pub(in crate::bench) mod ours;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use super::figures::{Bar, Report};
use super::frame::Frame;
use super::measure::{self, Cost, median};
use crate::{packages, process};
use containerd::Containerd;
use ours::{Ours, number, spread, wall_reading};

/// How many writers are at work at the same time, and how many blobs each makes.
const WRITERS: u64 = 64;
const BLOBS_EACH: u64 = 50;
/// How many blobs are made one at a time.
const BLOBS_ALONE: u64 = 200;
/// How often opening is measured: it is short, and so are its outliers.
const OPENINGS: &str = "21";
/// How many images the listings of containerd and of us are compared with: each is a transaction of containerd's.
const COMPARED: u64 = 2000;
/// A hundredth of the images: what memory is compared with.
const PART: u64 = 100;

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// How many images there are; each has ten blobs
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..))]
    images: u64,
    /// How large the blob is that is ingested, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    #[command(flatten)]
    frame: Frame,
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let why = "containerd and dropping the page cache";
    let begun = options.frame.begin("store", why, packages::BENCH_STORE)?;
    let scratch = begun.scratch.path();
    let bench = Bench { ours: Ours::new(begun.dist.clone(), scratch)?, options, scratch };
    let mut report = Report::default();
    bench.records(&mut report).context("measure a store with many records")?;
    bench.writers(&mut report).context("measure writers of small blobs")?;
    bench.ingests(&mut report).context("measure ingests")?;
    bench.listings(&mut report).context("compare listings")?;
    print!("\n{report}");
    options.frame.end(begun, &report.json())
}

/// What everything is measured with.
struct Bench<'a> {
    ours: Ours,
    options: &'a Options,
    scratch: &'a Path,
}

impl Bench<'_> {
    fn records(&self, report: &mut Report) -> Result<()> {
        let (full, part) = (self.scratch.join("full"), self.scratch.join("part"));
        let images = self.options.images;
        let filled = self.ours.helper("fill", &full, &[&images.to_string()])?;
        self.ours.helper("fill", &part, &[&(images / PART).to_string()])?;
        report.add("images", number(&filled, "/images")?, Bar::None);
        report.add("records of blobs", number(&filled, "/contents")?, Bar::None);
        report.add("edges", number(&filled, "/edges")?, Bar::None);
        report.add("to record them, a thousand images in a transaction, s", number(&filled, "/seconds")?, Bar::None);
        let size = fs::metadata(full.join("meta.redb")).context("look at the database")?.len();
        #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
        report.add("size of the database, MB", size as f64 / 1e6, Bar::None);
        self.listing(report, &full, &part)?;
        self.inside(report, &full)?;
        fs::remove_dir_all(&full).context("remove the full root")
    }

    fn listing(&self, report: &mut Report, full: &Path, part: &Path) -> Result<()> {
        let names = ["images", "ls", "-q"];
        measure::cold()?;
        let cold = measure::wall(&mut self.ours.dist(full, &names))?.as_secs_f64();
        let listed = self.ours.costs(full, &names, self.options.rounds)?;
        report.add("dist images ls -q, s", wall(&listed), Bar::AtMost(0.25));
        report.add("dist images ls -q, cold, s", cold, Bar::None);
        for (name, arguments) in [
            ("images ls -q", names.as_slice()),
            ("content ls -q", &["content", "ls", "-q"]),
            ("content ls as JSON", &["--format", "json", "content", "ls"]),
            ("content ls of nothing that matches", &["content", "ls", "digest==none"]),
        ] {
            let peak = |root| self.ours.costs(root, arguments, 1).map(|costs| costs.iter().map(|cost| cost.peak).sum());
            let (of_full, of_part): (f64, f64) = (peak(full)?, peak(part)?);
            report.add(format!("peak memory of {name}, MB"), of_full * 1024.0 / 1e6, Bar::None);
            let more = (of_full - of_part) * 1024.0 / 1e6;
            report.add("  more than for a hundredth of it, MB", more, Bar::AtMost(16.0));
        }
        Ok(())
    }

    /// What is measured in a process that has the store open.
    fn inside(&self, report: &mut Report, full: &Path) -> Result<()> {
        let looked = self.ours.helper("lookup", full, &[&self.options.images.to_string()])?;
        for (name, of) in [("an image", "/image"), ("a blob", "/content")] {
            let times = spread(&looked, of)?;
            report.add(format!("lookup of {name}, µs"), times.p50 * 1e6, Bar::AtMost(50.0));
            report.add(format!("lookup of {name}, 99 of 100, µs"), times.p99 * 1e6, Bar::AtMost(50.0));
        }
        let opened = spread(&self.ours.helper("open", full, &[OPENINGS])?, "/open")?;
        report.add("opening the store, ms", opened.p50 * 1e3, Bar::AtMost(50.0));
        self.ours.die(full)?;
        let opened = spread(&self.ours.helper("open", full, &["1"])?, "/open")?;
        report.add("opening the store after a crash, ms", opened.max * 1e3, Bar::AtMost(50.0));
        self.collecting(report, full)
    }

    /// Collections while somebody writes. What the writer notices has the hiccups of the disk in it, which it has alone too.
    fn collecting(&self, report: &mut Report, full: &Path) -> Result<()> {
        let collected = self.ours.helper("collect", full, &[])?;
        let (alone, beside) = (spread(&collected, "/alone")?, spread(&collected, "/beside")?);
        report.add("mark of all edges, s", number(&collected, "/marking_seconds")?, Bar::AtMost(2.0));
        report.add(
            "  the whole collection, of which nothing is garbage, s",
            number(&collected, "/seconds")?,
            Bar::None,
        );
        report.add("  longest wait for it, ms", number(&collected, "/longest_pause_seconds")? * 1e3, Bar::AtMost(20.0));
        report.add("a change, nobody else at work, ms", alone.p50 * 1e3, Bar::None);
        report.add("  the slowest, ms", alone.max * 1e3, Bar::None);
        report.add("a change beside a collection, ms", beside.p50 * 1e3, Bar::None);
        report.add("  the slowest, ms", beside.max * 1e3, Bar::None);
        Ok(())
    }

    fn writers(&self, report: &mut Report) -> Result<()> {
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for round in 0..self.options.rounds {
            for (writers, blobs, rates) in
                [(1, BLOBS_ALONE, &mut alone), (WRITERS, WRITERS * BLOBS_EACH, &mut together)]
            {
                let root = self.scratch.join(format!("writers-{round}-{writers}"));
                // What others left to be written is not to be waited for, and what is removed makes the next run slow: ext4
                // looks for a long time past the inodes of files that were removed just now.
                process::run(&mut Command::new("sync"))?;
                let made = self.ours.helper("writers", &root, &[&writers.to_string(), &blobs.to_string()])?;
                rates.push(number(&made, "/blobs")? / number(&made, "/seconds")?);
            }
        }
        report.add("blobs of 4 KiB by one writer, per s", median(&alone), Bar::None);
        report.add("blobs of 4 KiB by 64 writers, per s", median(&together), Bar::None);
        report.add("  64 writers / one writer", median(&together) / median(&alone), Bar::AtLeast(10.0));
        Ok(())
    }

    /// One large blob: through `dist` and the library, durable at the end, and by others, of whom only containerd syncs.
    fn ingests(&self, report: &mut Report) -> Result<()> {
        let file = self.scratch.join("file");
        noise(&file, self.options.mib)?;
        let containerd = Containerd::start(&self.scratch.join("containerd"))?;
        for (state, cold) in [("warm", false), ("cold", true)] {
            let walls = (0..self.options.rounds).map(|_| self.ingest_round(&containerd, &file, cold));
            let walls: Vec<Ingested> = walls.collect::<Result<_>>()?;
            let of = |part: fn(&Ingested) -> f64| median(&walls.iter().map(part).collect::<Vec<_>>());
            let what = format!("{} MiB, {state}", self.options.mib);
            let peers = of(|it| it.sum + it.copy);
            let ours = of(|it| it.dist);
            report.add(format!("sha256sum + cp / dist content ingest, {what}"), peers / ours, Bar::AtLeast(0.8));
            report.add(format!("sha256sum + cp / in process, {what}"), peers / of(|it| it.library), Bar::AtLeast(0.8));
            report.compare(format!("dist content ingest, sha256sum, {what}"), ours, of(|it| it.sum));
            report.compare(format!("dist content ingest, cp, {what}"), ours, of(|it| it.copy));
            report.compare(format!("dist / ctr content ingest, {what}"), ours, of(|it| it.ctr));
        }
        fs::remove_file(&file).context("remove the file")
    }

    /// Brings the same file everywhere once.
    fn ingest_round(&self, containerd: &Containerd, file: &Path, cold: bool) -> Result<Ingested> {
        let place =
            tempfile::Builder::new().prefix("ingest-").tempdir_in(self.scratch).context("create a directory")?;
        let at = |name: &str| place.path().join(name);
        let prepare = || {
            if cold { measure::cold() } else { process::run(&mut Command::new("sync")).and_then(|()| read(file)) }
        };
        prepare()?;
        let dist = wall_reading(self.ours.dist(&at("dist"), &["content", "ingest", "measured"]), file)?;
        prepare()?;
        let library = self.ours.helper("ingest", &at("library"), &[&file.to_string_lossy()])?;
        prepare()?;
        let sum = measure::wall(Command::new("sha256sum").arg(file))?.as_secs_f64();
        prepare()?;
        let copy = measure::wall(Command::new("cp").arg(file).arg(at("copy")))?.as_secs_f64();
        prepare()?;
        let mut ctr = containerd.ctr();
        ctr.args(["content", "ingest", "measured"]);
        let ctr = wall_reading(ctr, file)?;
        let listed = process::output(containerd.ctr().args(["content", "ls", "-q"]))?;
        for digest in listed.lines() {
            process::output(containerd.ctr().args(["content", "rm", digest]))?;
        }
        place.close().context("remove what was ingested")?;
        Ok(Ingested { dist, library: number(&library, "/seconds")?, sum, copy, ctr })
    }

    /// Names of images, with as many as containerd makes in reasonable time.
    fn listings(&self, report: &mut Report) -> Result<()> {
        let containerd = Containerd::start(&self.scratch.join("containerd-images"))?;
        containerd.make_images(COMPARED)?;
        let root = self.scratch.join("compared");
        self.ours.helper("fill", &root, &[&COMPARED.to_string()])?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..=self.options.rounds {
            ours.push(measure::wall(&mut self.ours.dist(&root, &["images", "ls", "-q"]))?.as_secs_f64());
            theirs.push(measure::wall(containerd.ctr().args(["images", "ls", "-q"]))?.as_secs_f64());
        }
        let version = Containerd::version()?;
        let name = format!("dist / ctr images ls -q, {COMPARED} images (containerd {version})");
        report.compare(name, median(&ours), median(&theirs));
        Ok(())
    }
}

/// How long it took to bring one file, in seconds.
struct Ingested {
    dist: f64,
    library: f64,
    sum: f64,
    copy: f64,
    ctr: f64,
}

fn wall(costs: &[Cost]) -> f64 {
    median(&costs.iter().map(|cost| cost.wall).collect::<Vec<_>>())
}

/// Writes a file that nobody can compress or has seen.
pub(in crate::bench) fn noise(path: &Path, mib: u64) -> Result<()> {
    let mut file = fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut random = fs::File::open("/dev/urandom").context("open /dev/urandom")?.take(mib << 20);
    std::io::copy(&mut random, &mut file).with_context(|| format!("write {}", path.display()))?;
    file.sync_all().with_context(|| format!("sync {}", path.display()))
}

/// Reads a file, so that it is in the page cache.
pub(in crate::bench) fn read(path: &Path) -> Result<()> {
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    std::io::copy(&mut file, &mut std::io::sink()).with_context(|| format!("read {}", path.display())).map(|_| ())
}
