//! `cargo xtask bench`: measurements against peers, in turn, in the same run, as ratios.
//!
//! A figure alone says something about a machine; a ratio says something about the project. Nothing here fails because a
//! bar was missed, unless that is asked for: the report says so.

mod api;
mod bar;
mod figures;
mod frame;
mod measure;
mod profile;
mod pull;
mod push;
mod store;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// `dist pull` and `dist fetch` of three images, against what the work itself costs and against skopeo
    Pull(pull::Options),
    /// `dist push` and `dist copy` into a registry, against skopeo, with the memory that a copy takes
    Push(push::Options),
    /// Where the time of a pull goes: by thread, by function, by system call
    Profile(profile::Options),
    /// The store with a hundred thousand images, ingests and many writers, against sha256sum, cp and containerd
    Store(store::Options),
    /// The daemon against containerd: content, listings, single calls, start, memory, pulls
    Api(api::Options),
}

/// Runs a benchmark.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Pull(options) => pull::run(options),
        Bench::Push(options) => push::run(options),
        Bench::Profile(options) => profile::run(options),
        Bench::Store(options) => store::run(options),
        Bench::Api(options) => api::run(options),
    }
}
