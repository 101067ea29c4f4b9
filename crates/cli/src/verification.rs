//! Who is asked whether an image may be here: the options of every command that brings one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use windlass::transfer::Verifier;
use windlass::verify::{Programs, TIMEOUT};
use windlass_core::{Error, Result};

/// Who is asked whether an image may be here.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Verification")]
pub(crate) struct Verification {
    /// Policy that says which images may be brought: names, registries, digests, signatures (docs/verification.md).
    #[arg(long, value_name = "FILE", env = "DIST_POLICY", hide_env_values = true, value_parser = path())]
    policy: Option<PathBuf>,
    /// Directory of programs, each of which has to allow the image, as with containerd's image verifier.
    #[arg(long, value_name = "DIR", env = "DIST_VERIFIER_DIR", hide_env_values = true, value_parser = path())]
    verifier_dir: Option<PathBuf>,
    /// How long each program may take.
    #[arg(long, value_name = "DURATION", default_value_t = Time(TIMEOUT), value_parser = time)]
    verifier_timeout: Time,
}

#[derive(Debug, Clone, Copy)]
struct Time(Duration);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

fn time(text: &str) -> Result<Time> {
    let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
    time.map(Time).ok_or_else(|| {
        Error::invalid_argument(format!("{text:?} is no time that a program may take")).hint("it looks like 10s or 1m")
    })
}

/// Reads a path. An empty one, as an environment often has it, is none.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn given(path: Option<&PathBuf>) -> Option<&PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

impl Verification {
    /// Tells whether somebody is to be asked.
    pub(crate) fn is_asked_for(&self) -> bool {
        given(self.policy.as_ref()).or(given(self.verifier_dir.as_ref())).is_some()
    }

    /// Returns who is asked; nobody when nothing was said.
    ///
    /// # Errors
    /// Those of a policy that cannot be read; `NotFound` for a directory that was named and is not there.
    pub(crate) fn verifier(&self) -> Result<Option<Arc<dyn Verifier>>> {
        let directory = given(self.verifier_dir.as_ref());
        // With containerd a directory that is not there refuses nothing. Here somebody has just named it.
        if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
            return Err(Error::not_found(format!("there is no directory of verifiers {}", directory.display()))
                .hint("create it, or leave --verifier-dir out"));
        }
        let programs = directory.map(|it| Programs { timeout: self.verifier_timeout.0, ..Programs::new(it) });
        let policy = given(self.policy.as_ref()).cloned();
        windlass::verify::Verification { policy, programs }.verifier()
    }
}
