//! The `dist` command: what is asked for on the command line, done by an engine, and shown.
//!
//! Entry points: `args` says what can be asked for, `commands` does it with one file a command, `render` prints data and
//! `progress` what is going on. The environment is read and exit codes are chosen
//! nowhere else. Not here: anything that a program embedding the engine would need too.

mod allocator;
mod args;
mod by_daemon;
mod commands;
mod context;
mod credentials;
mod failure;
mod input;
mod interrupt;
mod label;
mod log;
mod platforms;
mod progress;
mod remote;
mod render;
mod transfers;
mod verification;
mod version;

// Names as people write them are read where archives of images are, which have them too.
use windlass::transfer::familiar;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{MultiProgress, ProgressDrawTarget};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::{Cli, Command};
use crate::context::Context;

/// How many threads take turns at tasks, at most: hashing and unpacking have threads of their own.
const MAX_WORKERS: usize = 8;
/// How long work on the blocking threads may go on after the command has ended, which happens only when it was
/// interrupted.
const GRACE: Duration = Duration::from_secs(1);

/// Lets this process have as many files open as it may at most: every layer that is unpacked has many directories open.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the number of open files stays limited");
    }
}

fn main() -> ExitCode {
    allocator::set_up();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    allow_many_files();
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    let context = Context { globals: cli.globals, bars };
    // A daemon first reads what it is to log.
    if !matches!(cli.command, Command::Daemon(_)) {
        log::show(context.globals.log_level.as_ref().unwrap_or(&log::Level::default()), &context.bars);
    }
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(MAX_WORKERS);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = windlass_core::Error::io("start the threads of the program", error);
            return failure::Failure::Error(error).report(context.error_format());
        }
    };
    let outcome = runtime.block_on(commands::run(&context, cli.command));
    runtime.shutdown_timeout(GRACE);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(context.error_format()),
    }
}
