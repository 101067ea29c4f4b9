//! `cargo xtask bench api`: our daemon and Debian's containerd, each on a unix socket, asked the same by the same clients.
//!
//! Files are in the page cache, except before the pull of a large image. What is measured is done by one daemon and then by
//! the other, in turn; the one that is not asked is idle.

mod side;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::figures::{Bar, Report};
use super::frame::Frame;
use super::measure::{self, median};
use super::store::ours::{number, spread, wall_reading};
use super::store::{containerd, noise, read};
use crate::peer::Registry;
use crate::{image, packages, process};
use side::{Client, Running, Side, Whose};

/// How often a short command or call is measured, with its outliers.
const SHORT: usize = 21;
/// How many calls are made in a row: a second of them, and enough for some hundred blobs of the writers beside them.
const CALLS: &str = "20000";
/// How many such rows of calls are a round: the machine is faster in one second than in the next.
const ROWS: u8 = 3;
/// How many writers are at work beside the calls.
const WRITERS: &str = "64";
/// How large the blobs are that they make, in KiB: one that is committed before anything of it comes to the disk, and a layer that
/// is not large.
const BLOBS: [&str; 2] = ["64", "1024"];
/// After how long a daemon that has nothing to do is looked at.
const IDLE: Duration = Duration::from_secs(5);

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// How many images there are
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..))]
    images: u64,
    /// How large the blob is that is ingested and read, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// Only these parts
    #[arg(long = "part", value_name = "NAME", value_parser = ["records", "calls", "content", "pulls"])]
    parts: Vec<String>,
    #[command(flatten)]
    frame: Frame,
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let begun = options.frame.begin("api", "containerd and unpacking", packages::BENCH_API)?;
    process::run(process::cargo().args(["build", "--release", "--package", "windlass-grpc", "--example", "load"]))?;
    let helper = process::target()?.join("release/examples/load");
    let bench = Bench { options, dist: &begun.dist, helper, scratch: begun.scratch.path() };
    let mut report = Report::default();
    let wanted = |part: &str| options.parts.is_empty() || options.parts.iter().any(|name| name == part);
    if wanted("records") || wanted("calls") {
        let (ours, theirs) = bench.filled()?;
        if wanted("records") {
            bench.records(&mut report, &ours, &theirs).context("measure daemons with many images")?;
        }
        if wanted("calls") {
            bench.calls(&mut report, &ours, &theirs).context("measure single calls")?;
        }
    }
    if wanted("content") {
        bench.content(&mut report).context("measure content")?;
    }
    if wanted("pulls") {
        bench.present(&mut report).context("measure a pull of what is there")?;
        bench.pulls(&mut report).context("measure pulls")?;
    }
    print!("\n{report}");
    options.frame.end(begun, &report.json())
}

/// What everything is measured with.
struct Bench<'a> {
    options: &'a Options,
    dist: &'a Path,
    helper: PathBuf,
    scratch: &'a Path,
}

impl Bench<'_> {
    fn sides(&self, name: &str) -> Result<(Side, Side)> {
        let side = |whose, of: &str| Side::new(whose, self.dist, self.scratch.join(format!("{name}-{of}")));
        Ok((side(Whose::Ours, "ours")?, side(Whose::Containerds, "theirs")?))
    }

    fn helper(&self, command: &str, side: &Side, arguments: &[&str]) -> Result<Value> {
        let text = process::output(Command::new(&self.helper).arg(command).arg(side.socket()).args(arguments))?;
        serde_json::from_str(&text).with_context(|| format!("understand {text:?}"))
    }

    /// Makes two daemons with the same images.
    fn filled(&self) -> Result<(Side, Side)> {
        let (ours, theirs) = self.sides("images")?;
        for side in [&ours, &theirs] {
            let _running = side.start()?;
            containerd::make_images(&side.directory, || side.ctr(&[]), self.options.images)?;
        }
        Ok((ours, theirs))
    }

    /// Start, memory and lists with many images.
    fn records(&self, report: &mut Report, ours: &Side, theirs: &Side) -> Result<()> {
        let ready = |side: &Side| -> Result<f64> {
            let command = side.command()?;
            let program = command.get_program().to_string_lossy().into_owned();
            let arguments: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            let arguments: Vec<&str> = std::iter::once(&program).chain(&arguments).map(String::as_str).collect();
            number(&self.helper("ready", side, &arguments)?, "/seconds")
        };
        let (our_start, their_start) = in_turn(self.options.rounds, || ready(ours), || ready(theirs))?;
        ratio(report, format!("start to ready, {} images", self.options.images), our_start, their_start, 0.5);
        let (our_daemon, their_daemon) = (ours.start()?, theirs.start()?);
        sleep(IDLE);
        memory(report, "idle memory", &our_daemon, &their_daemon, Bar::AtMost(0.4))?;
        let rounds = self.options.rounds;
        let listed = |command: Command| move || wall(command_again(&command));
        let (list, names) = (["images", "ls"], ["images", "ls", "-q"]);
        let (our_list, their_list) = in_turn(rounds, listed(ours.dist(&list)), listed(theirs.ctr(&list)))?;
        ratio(report, format!("images ls of {}: dist / ctr", self.options.images), our_list, their_list, 0.02);
        let (our_names, their_names) = in_turn(rounds, listed(ours.ctr(&names)), listed(theirs.ctr(&names)))?;
        report.compare("images ls -q, ctr on both", our_names, their_names);
        memory(report, "memory after the lists", &our_daemon, &their_daemon, Bar::None)
    }

    /// Single calls, alone and beside writers.
    fn calls(&self, report: &mut Report, ours: &Side, theirs: &Side) -> Result<()> {
        let (_our_daemon, _their_daemon) = (ours.start()?, theirs.start()?);
        let get = |side| spread(&self.helper("get", side, &[containerd::BASE, CALLS])?, "/get").map(|it| it.p50);
        let (our_get, their_get) = in_turn(self.rows(), || get(ours), || get(theirs))?;
        ratio(report, "images get, median".to_owned(), our_get, their_get, 0.5);
        report.add("  ours, µs", our_get * 1e6, Bar::None);
        BLOBS.iter().try_for_each(|kib| self.beside(report, ours, theirs, kib))
    }

    fn rows(&self) -> u8 {
        self.options.rounds.saturating_mul(ROWS)
    }

    /// First the writers make one blob after another, so that all of them are at it all the time; and then, with our daemon, as many
    /// as they could with containerd, evenly, so that few of them are at the same time.
    fn beside(&self, report: &mut Report, ours: &Side, theirs: &Side, kib: &str) -> Result<()> {
        let beside = |side: &Side, rate: f64| -> Result<(f64, f64)> {
            let rate = format!("{rate:.0}");
            let measured = self.helper("beside", side, &[containerd::BASE, CALLS, WRITERS, &rate, kib])?;
            Ok((spread(&measured, "/get")?.p99, number(&measured, "/written/blobs_per_second")?))
        };
        let mut measured: [Vec<(f64, f64)>; 3] = Default::default();
        for _ in 0..self.rows() {
            let their = beside(theirs, 0.0)?;
            let [most, same, theirs] = &mut measured;
            theirs.push(their);
            most.push(beside(ours, 0.0)?);
            same.push(beside(ours, their.1.max(1.0))?);
        }
        let [most, same, theirs] = measured.map(|measured| {
            let (tails, rates): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
            (median(&tails), median(&rates))
        });
        ratio(report, format!("images get beside {WRITERS} writers of {kib} KiB, 99 of 100"), most.0, theirs.0, 0.3);
        report.add("  blobs a second meanwhile, ours", most.1, Bar::None);
        report.add("  blobs a second meanwhile, containerd's", theirs.1, Bar::None);
        let evenly = format!("images get beside as many blobs of {kib} KiB as containerd's, evenly");
        ratio(report, evenly, same.0, theirs.0, 0.3);
        Ok(())
    }

    /// A large blob, in and out.
    fn content(&self, report: &mut Report) -> Result<()> {
        let file = self.scratch.join("file");
        noise(&file, self.options.mib)?;
        let sum = process::output(Command::new("sha256sum").arg(&file))?;
        let digest = format!("sha256:{}", sum.split_whitespace().next().context("sha256sum says nothing")?);
        let (ours, theirs) = self.sides("content")?;
        let (_our_daemon, _their_daemon) = (ours.start()?, theirs.start()?);
        let mut walls: [(Vec<f64>, Vec<f64>); 3] = Default::default();
        for _ in 0..self.options.rounds {
            let subjects: [(&Side, Client); 3] = [(&ours, Side::dist), (&ours, Side::ctr), (&theirs, Side::ctr)];
            for ((side, client), (ingests, gets)) in subjects.into_iter().zip(&mut walls) {
                warm_memory(&file)?;
                process::run(&mut Command::new("sync"))?;
                read(&file)?;
                ingests.push(wall_reading(client(side, &["content", "ingest", "measured"]), &file)?);
                gets.push(wall(client(side, &["content", "get", &digest]))?);
                process::output(&mut side.ctr(&["content", "rm", &digest]))?;
            }
        }
        let [dist, ctr, theirs] = walls.map(|(ingests, gets)| (median(&ingests), median(&gets)));
        let mib = self.options.mib;
        ratio(report, format!("content ingest of {mib} MiB: dist / ctr on containerd"), dist.0, theirs.0, 0.12);
        ratio(report, format!("content ingest of {mib} MiB: ctr on both"), ctr.0, theirs.0, 0.7);
        ratio(report, format!("content get of {mib} MiB: dist / ctr on containerd"), dist.1, theirs.1, 0.12);
        ratio(report, format!("content get of {mib} MiB: ctr on both"), ctr.1, theirs.1, 0.7);
        fs::remove_file(&file).context("remove the file")
    }

    /// A pull of a small image that is there already.
    fn present(&self, report: &mut Report) -> Result<()> {
        let registry = Registry::start(&self.scratch.join("registry-small"))?;
        let layout = image::small()?;
        let (reference, mut push) = registry.push(&layout, "small:bench");
        process::run(&mut push).context("push the image")?;
        let (ours, theirs) = self.sides("present")?;
        let (_our_daemon, _their_daemon) = (ours.start()?, theirs.start()?);
        let (by_dist, by_ctr) = (["pull", reference.as_str()], ["images", "pull", "--plain-http", reference.as_str()]);
        let rounds = u8::try_from(SHORT).unwrap_or(u8::MAX);
        wall(ours.dist(&by_dist))?;
        wall(theirs.ctr(&by_ctr))?;
        let (our_pull, their_pull) = in_turn(rounds, || wall(ours.dist(&by_dist)), || wall(theirs.ctr(&by_ctr)))?;
        report.add("pull of a small image that is there, ms", our_pull * 1e3, Bar::AtMost(15.0));
        report.compare("  dist / ctr on containerd", our_pull, their_pull);
        Ok(())
    }

    /// A cold pull of a large image into empty daemons.
    fn pulls(&self, report: &mut Report) -> Result<()> {
        let registry = Registry::start(&self.scratch.join("registry"))?;
        let (reference, mut push) = registry.push(&image::files()?, "files:bench");
        process::run(&mut push).context("push the image")?;
        let (by_dist, by_ctr) = (["pull", reference.as_str()], ["images", "pull", "--plain-http", reference.as_str()]);
        let mut walls: [Vec<f64>; 3] = Default::default();
        let mut resident: [Vec<f64>; 3] = Default::default();
        for round in 0..self.options.rounds {
            let subjects: [(Whose, Client, &[&str]); 3] = [
                (Whose::Ours, Side::dist, &by_dist),
                (Whose::Ours, Side::ctr, &by_ctr),
                (Whose::Containerds, Side::ctr, &by_ctr),
            ];
            for (at, (whose, client, arguments)) in subjects.into_iter().enumerate() {
                let side = Side::new(whose, self.dist, self.scratch.join(format!("pull-{round}-{at}")))?;
                let daemon = side.start()?;
                measure::cold()?;
                let took = wall(client(&side, arguments))?;
                sleep(IDLE);
                let memory = daemon.memory()?;
                println!("round {}, subject {at}: {took:.2} s, {memory:.0} MB", round + 1);
                walls.get_mut(at).context("a subject too many")?.push(took);
                resident.get_mut(at).context("a subject too many")?.push(memory);
            }
        }
        let [dist, ctr, theirs] = walls.map(|walls| median(&walls));
        let [of_dist, of_ctr, of_theirs] = resident.map(|resident| median(&resident));
        ratio(report, "pull of files: dist / ctr on containerd".to_owned(), dist, theirs, 0.4);
        ratio(report, "pull of files: ctr on both".to_owned(), ctr, theirs, 0.4);
        report.add("memory after it: ours / containerd's", of_dist / of_theirs, Bar::AtMost(0.5));
        report.add("memory after it, with ctr: ours / containerd's", of_ctr / of_theirs, Bar::AtMost(0.5));
        report.add("  ours, MB", of_dist, Bar::None);
        report.add("  containerd's, MB", of_theirs, Bar::None);
        Ok(())
    }
}

/// Has the machine have as much free memory as a copy of a file takes: a virtual one may have given it back to its hypervisor, and
/// whoever wrote next would wait for it, for two seconds a GiB.
fn warm_memory(file: &Path) -> Result<()> {
    let copy = file.with_extension("copy");
    fs::copy(file, &copy).context("copy the file")?;
    fs::remove_file(&copy).context("remove the copy")
}

/// Measures one and the other in turn, and returns the medians.
fn in_turn(
    rounds: u8,
    mut ours: impl FnMut() -> Result<f64>,
    mut theirs: impl FnMut() -> Result<f64>,
) -> Result<(f64, f64)> {
    let mut walls = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        walls.0.push(ours()?);
        walls.1.push(theirs()?);
    }
    Ok((median(&walls.0), median(&walls.1)))
}

/// Reports what the same work took us and them, in seconds, and what share of theirs is asked for.
fn ratio(report: &mut Report, name: String, ours: f64, theirs: f64, at_most: f64) {
    report.compare(name.as_str(), ours, theirs);
    report.add(name, ours / theirs, Bar::AtMost(at_most));
}

fn memory(report: &mut Report, name: &str, ours: &Running, theirs: &Running, bar: Bar) -> Result<()> {
    let (ours, theirs) = (ours.memory()?, theirs.memory()?);
    report.add(format!("{name}: ours / containerd's"), ours / theirs, bar);
    report.add("  ours, MB", ours, Bar::None);
    report.add("  containerd's, MB", theirs, Bar::None);
    Ok(())
}

/// Returns how long a command takes, in seconds; its output is thrown away.
fn wall(mut command: Command) -> Result<f64> {
    Ok(measure::wall(command.stderr(Stdio::null()))?.as_secs_f64())
}

/// Returns a command that can be run once more.
fn command_again(command: &Command) -> Command {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args());
    again
}
