//! `cargo xtask test`: every check there is, in the order in which a failure is cheapest to find.
//!
//! It stops at the first check that fails and says how to run that one alone. Lints and tests share cargo's default
//! profile and the workspace's features, so that a dependency is built once.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{fuzz, packages, process, tidy};

struct Step {
    name: &'static str,
    again: String,
    check: Box<dyn FnOnce() -> Result<()>>,
}

impl Step {
    fn new(name: &'static str, again: &str, check: impl FnOnce() -> Result<()> + 'static) -> Self {
        Self { name, again: again.to_owned(), check: Box::new(check) }
    }

    fn command(name: &'static str, mut command: Command) -> Self {
        let again = again(&command);
        Self { name, again, check: Box::new(move || process::run(&mut command)) }
    }
}

/// Returns the line that runs a command again, with the environment it was given.
fn again(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}=\"{}\" ", name.to_string_lossy(), value?.to_string_lossy())));
    variables.collect::<String>() + &process::show(command)
}

/// Runs every check.
pub(crate) fn run() -> Result<()> {
    let mut done: Vec<(&str, Duration)> = Vec::new();
    let steps = steps();
    let count = steps.len();
    for (number, step) in (1..).zip(steps) {
        println!("\n[{number}/{count}] {}: {}", step.name, step.again);
        let began = Instant::now();
        if let Err(error) = (step.check)() {
            summarise(&done);
            println!("{:>16}  FAILED after {:.1} s", step.name, began.elapsed().as_secs_f64());
            println!("{} passed, 1 failed, {} not run", done.len(), count - number);
            bail!("{}: {error:#}\nhint: run it again with `{}`", step.name, step.again);
        }
        done.push((step.name, began.elapsed()));
    }
    summarise(&done);
    println!("{count} passed, 0 failed");
    Ok(())
}

fn summarise(done: &[(&str, Duration)]) {
    println!();
    for (name, took) in done {
        println!("{name:>16}  {:.1} s", took.as_secs_f64());
    }
}

fn steps() -> Vec<Step> {
    let cargo = |arguments: &[&str]| {
        let mut command = process::cargo();
        command.args(arguments);
        command
    };
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--locked", "--keep-going"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    vec![
        Step::new("packages", "cargo xtask test", || packages::install(packages::TEST)),
        Step::command("format", cargo(&["fmt", "--all", "--check"])),
        Step::new("tidy", "cargo xtask tidy", tidy::run),
        Step::command(
            "lints",
            cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--keep-going", "--", "-D", "warnings"]),
        ),
        Step::command("tests", tests(has_nextest())),
        Step::command("doc tests", cargo(&["test", "--workspace", "--doc", "--locked"])),
        Step::command("examples", cargo(&["build", "--workspace", "--examples", "--locked"])),
        Step::command("documentation", documentation),
        Step::new("fuzz", "cargo xtask fuzz", || fuzz::run(&fuzz::Options::in_tests())),
    ]
}

/// Returns the command that runs all tests: nextest where it is installed, cargo's own runner otherwise.
fn tests(nextest: bool) -> Command {
    let mut command = process::cargo();
    if nextest {
        return with(command, &["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
    }
    println!("note: cargo-nextest is not installed, so cargo's own runner runs the tests");
    println!("hint: `cargo install cargo-nextest --locked` takes some minutes and gives the better report");
    command = with(command, &["test", "--workspace", "--locked", "--no-fail-fast"]);
    with(command, &["--lib", "--bins", "--tests"])
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

fn has_nextest() -> bool {
    process::output(process::cargo().args(["nextest", "--version"])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_shown_with_the_environment_it_needs() {
        let mut command = Command::new("cargo");
        command.arg("doc").env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(again(&command), r#"RUSTDOCFLAGS="-D warnings" cargo doc"#);
    }

    #[test]
    fn without_nextest_cargos_own_runner_runs_the_same_tests() {
        assert!(process::show(&tests(true)).starts_with("cargo nextest run --workspace"));
        assert!(process::show(&tests(false)).starts_with("cargo test --workspace"));
    }
}
