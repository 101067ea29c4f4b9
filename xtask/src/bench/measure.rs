//! What a command costs: wall time, CPU time of it and its children, and its peak memory.
//!
//! GNU time reports what `wait4` says of the child, in a process so small that its own memory does not show in the child's.

use std::fs;
use std::ops::Add;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{packages, process};

/// What one run of a command cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cost {
    /// From start to end, in seconds.
    pub(super) wall: f64,
    /// User and system time, in seconds.
    pub(super) cpu: f64,
    /// The most memory that was resident in one process, in KiB.
    pub(super) peak: f64,
}

/// One after the other: times add up, the peak is the higher one.
impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { wall: self.wall + other.wall, cpu: self.cpu + other.cpu, peak: self.peak.max(other.peak) }
    }
}

/// Runs a command and returns what it cost; its output goes to a file, or nowhere.
pub(super) fn cost(command: &Command, scratch: &Path, output: Option<&Path>) -> Result<Cost> {
    let report = scratch.join("time");
    let mut time = Command::new(packages::find("time").context("GNU time is not installed")?);
    time.args(["--quiet", "--format", "%U %S %M", "--output"]).arg(&report);
    time.arg(command.get_program()).args(command.get_args());
    let stdout = match output {
        Some(path) => fs::File::create(path).with_context(|| format!("create {}", path.display()))?.into(),
        None => Stdio::null(),
    };
    let began = Instant::now();
    process::run(time.stdin(Stdio::null()).stdout(stdout))?;
    let wall = began.elapsed().as_secs_f64();
    let text = fs::read_to_string(&report).with_context(|| format!("read {}", report.display()))?;
    let (cpu, peak) = parse(&text).with_context(|| format!("understand what GNU time says: {text:?}"))?;
    Ok(Cost { wall, cpu, peak })
}

/// Reads seconds of user time, seconds of system time and KiB.
fn parse(text: &str) -> Option<(f64, f64)> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().ok());
    let cpu = numbers.next()?? + numbers.next()??;
    Some((cpu, numbers.next()??))
}

/// Returns how long a command takes from start to end, without anything in between.
pub(super) fn wall(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    process::run(command)?;
    Ok(began.elapsed())
}

/// Writes out what is dirty and empties the page cache, so that every run begins alike.
pub(super) fn cold() -> Result<()> {
    process::run(&mut Command::new("sync"))?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the page cache")
}

/// Returns the middle of the numbers; zero when there are none.
pub(super) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or_default();
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { middle(half) } else { f64::midpoint(middle(half.saturating_sub(1)), middle(half)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_between_the_two_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn what_time_says_is_read_and_nothing_else() {
        assert_eq!(parse("1.25 0.50 2048\n"), Some((1.75, 2048.0)));
        assert_eq!(parse("Command exited with non-zero status 1\n"), None);
    }

    #[test]
    fn costs_one_after_the_other_add_up_and_the_higher_peak_stays() {
        let of = |wall, cpu, peak| Cost { wall, cpu, peak };
        assert_eq!(of(1.0, 2.0, 30.0) + of(1.5, 0.5, 20.0), of(2.5, 2.5, 30.0));
    }
}
