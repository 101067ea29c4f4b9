//! How a command ends when it does not succeed: what is printed, and the exit code.
//!
//! 0 success, 1 an error, 2 a command line that is wrong by itself, 130 or 143 after an interrupt.

use std::error::Error as _;
use std::io::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use windlass_core::{Attempt, Error, Kind};

use crate::render::{Format, printable};

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed.
    Error(Error),
    /// It was interrupted by a signal of that number.
    Interrupted(u8),
    /// It found what it was looking for, which is bad news, and has said so.
    Findings,
    /// Whoever read its output has read enough.
    BrokenPipe,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// What an error looks like in JSON, on one line of standard error.
#[derive(Serialize)]
struct Document<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    reason: &'a str,
    message: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tried: &'a [Attempt],
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Failure {
    /// Makes a failure of an operating system error on standard output.
    pub(crate) fn output(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Error(Error::io("write to standard output", error)),
        }
    }

    /// Says on standard error what went wrong and returns the exit code.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        match self {
            Self::Error(error) => {
                print(error, hint(error), format);
                ExitCode::from(1)
            }
            Self::Interrupted(signal) => {
                let error = Error::canceled("interrupted").hint("run the command again: it continues where it stopped");
                print(&error, hint(&error), format);
                ExitCode::from(128 + signal)
            }
            Self::Findings => ExitCode::from(1),
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

/// Prints what the command line parser has to say: help, the version, or an error. An error of ours about a value is
/// printed as all of our errors are.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if let Some(ours) = error.source().and_then(|source| source.downcast_ref::<Error>()) {
        print(ours, Some(ours.hint_text().unwrap_or("--help after the command explains its arguments")), Format::Table);
        return ExitCode::from(2);
    }
    // Nothing can be said about a closed terminal.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Returns what to do next: what those say who know most, otherwise what is true of every error of the kind.
fn hint(error: &Error) -> Option<&str> {
    error.hint_text().or(match error.kind() {
        Kind::DataLoss => {
            Some("run the command again; when the bytes are wrong again, whoever serves them has to bring them anew")
        }
        Kind::Unavailable | Kind::DeadlineExceeded | Kind::Aborted => Some("run the command again: it continues"),
        Kind::ResourceExhausted => Some("free what is used up, then run the command again: it continues"),
        Kind::Internal => Some("this is a bug of the program; --log-level debug shows what led to it"),
        _ => None,
    })
}

/// Prints to standard error, of which nothing can be said when it is gone.
fn print(error: &Error, hint: Option<&str>, format: Format) {
    let mut out = anstream::stderr().lock();
    let _ = match format {
        Format::Json => {
            let (code, reason) = (error.kind().code(), error.code());
            let body = Body { code, reason, message: error.to_string(), tried: error.trace(), hint };
            let line = serde_json::to_string(&Document { error: body }).unwrap_or_default();
            writeln!(out, "{line}")
        }
        Format::Table => {
            let bad = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            let good = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
            let mut said = writeln!(out, "{bad}dist:{bad:#} {}", printable(&error.to_string()));
            for attempt in error.trace() {
                said = said.and(writeln!(out, "{good}tried:{good:#} {}", printable(&attempt.to_string())));
            }
            hint.map_or(said, |hint| writeln!(out, "{good}hint:{good:#} {}", printable(hint)))
        }
    };
}
