//! The project's own commands, run as `cargo xtask COMMAND`: what a shell script would do elsewhere.
//!
//! One module a command. Nothing here is part of the product, and nothing in the product depends on it.

mod bench;
mod codegen;
mod fuzz;
mod image;
mod packages;
mod peer;
mod process;
mod quickstart;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring an image from a registry to a mounted root filesystem, on a fresh machine
    Quickstart(quickstart::Options),
    /// Run every check there is: format, tidy, lints, tests, doc tests, examples, documentation
    Test,
    /// Run the tests that look for rare failures again and again, with other seeds
    Soak(soak::Options),
    /// Run every fuzz target for a while
    Fuzz(fuzz::Options),
    /// Make the code of the wire's messages anew, of the descriptions in crates/proto/proto
    Codegen,
    /// Check the conventions that the compiler cannot: directions, sizes, words, links
    Tidy,
    /// Measure against peers, side by side
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Quickstart(options) => quickstart::run(&options),
        Command::Test => test::run(),
        Command::Soak(options) => soak::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Codegen => codegen::run(),
        Command::Tidy => tidy::run(),
        Command::Bench(bench) => bench::run(&bench),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
