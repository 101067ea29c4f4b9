//! `cargo xtask soak`: the tests that look for rare failures, again and again with other seeds, until the time is up.
//!
//! `cargo xtask test` runs each of them once. The seed of every round is printed; the first failure ends it, with the line
//! that repeats it.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::Args;

use crate::{packages, process};

/// For how long, and beginning where.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// For how many minutes; a round that has begun is finished
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// The seed of the first round; the others count up from it [default: by the clock]
    #[arg(long)]
    seed: Option<u64>,
}

/// Tests that take a seed.
struct Course {
    name: &'static str,
    package: &'static str,
    /// What the names of the tests begin with.
    tests: &'static str,
}

const COURSES: &[Course] = &[
    Course { name: "processes that are killed", package: "windlass-cli", tests: "kill::" },
    Course { name: "power that is cut, on a real filesystem", package: "windlass-cli", tests: "power::" },
    Course { name: "every fault and power cut, replayed", package: "windlass-store", tests: "durability::" },
];

/// Runs rounds until the time is up.
pub(crate) fn run(options: &Options) -> Result<()> {
    packages::install(packages::TEST)?;
    let limit = Duration::from_secs(options.minutes * 60);
    let first = options.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()))
    });
    let began = Instant::now();
    let mut rounds = 0;
    for seed in first.. {
        println!("\nround {}: --seed {seed}", rounds + 1);
        for course in COURSES {
            let took = course.run(seed)?;
            println!("  {:>8.1} s  {}", took.as_secs_f64(), course.name);
        }
        rounds += 1;
        if began.elapsed() >= limit {
            break;
        }
    }
    println!("\n{rounds} rounds passed, 0 failed, {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

impl Course {
    fn run(&self, seed: u64) -> Result<Duration> {
        let began = Instant::now();
        let output = self.command(seed).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
            bail!(
                "{}: failed with seed {seed}\nhint: run it again with `WINDLASS_SOAK=1 WINDLASS_SEED={seed} {}`",
                self.name,
                process::show(&self.command(seed))
            );
        }
        if passed(&said) == 0 {
            bail!("{}: no test of {} is called {}…", self.name, self.package, self.tests);
        }
        Ok(began.elapsed())
    }

    fn command(&self, seed: u64) -> Command {
        let mut command = process::cargo();
        command.args(["test", "--locked", "--package", self.package, "--tests", "--", self.tests]);
        command.env("WINDLASS_SEED", seed.to_string()).env("WINDLASS_SOAK", "1");
        command
    }
}

/// Returns how many tests passed, by what the test binaries say.
fn passed(said: &str) -> u64 {
    let results = said.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_whose_tests_do_not_exist_is_noticed() {
        let result = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s\n";
        assert_eq!(passed(result), 0);
        assert_eq!(passed(&format!("{result}test kill ... ok\n{}", result.replace("ok. 0", "ok. 3"))), 3);
    }

    #[test]
    fn the_seed_reaches_the_tests() {
        for course in COURSES {
            let command = course.command(7);
            let seed = command.get_envs().find(|(name, _)| *name == "WINDLASS_SEED").and_then(|(_, value)| value);
            assert_eq!(seed, Some("7".as_ref()), "{}", course.name);
            assert!(process::show(&command).ends_with(course.tests));
        }
    }
}
