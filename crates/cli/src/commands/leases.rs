//! `dist leases`: what keeps things from being collected that nothing refers to yet.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use windlass::transfer::pull::{INTERRUPTED_FROM_LABEL, INTERRUPTED_LABEL, LEASE_LABEL};
use windlass_core::filter::Filter;
use windlass_core::gc::{self, Deletion};
use windlass_core::lease::{self, DEFAULT_EXPIRY, Id, Lease, Manager, Options, Resource};
use windlass_core::{Error, Labels, Result};

use crate::context::Context;
use crate::failure::Outcome;
use crate::label;
use crate::render::{Output, age, labels, until};

/// List, create and remove leases, and what they hold.
///
/// A lease keeps what it holds, and what that refers to, from being collected until the lease ends or is removed. A pull
/// has one; what an interrupted pull brought stays under a lease for a day.
#[derive(Debug, Subcommand)]
#[command(visible_aliases = ["lease", "l"])]
pub(crate) enum Command {
    /// List leases: when they end, how much they hold, and what for.
    #[command(visible_alias = "list")]
    Ls {
        /// Print ids only.
        #[arg(short, long)]
        quiet: bool,
        /// Filters, any of which must match: id==x, labels.x, labels."a.b"==x.
        #[arg(value_name = "FILTER")]
        filters: Vec<Filter>,
    },
    Create(Create),
    /// Remove leases; what they alone held becomes garbage.
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Collect the garbage before the command ends.
        #[arg(long)]
        sync: bool,
        /// Leases.
        #[arg(value_name = "ID", required = true)]
        ids: Vec<Id>,
    },
    /// List what a lease holds.
    Resources {
        /// Lease.
        #[arg(value_name = "ID")]
        id: Id,
    },
    /// Have a lease hold something.
    #[command(visible_alias = "add-resource", after_help = RESOURCES)]
    Add(Change),
    /// Take something out of a lease.
    #[command(visible_alias = "rm-resource", after_help = RESOURCES)]
    RemoveResource(Change),
}

const RESOURCES: &str = "\
Resources:
  content/DIGEST                  a blob
  ingests/REFKEY                  an ingest
  snapshots/SNAPSHOTTER/KEY       a snapshot
  images/NAME                     an image";

/// Create a lease, and print its id.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist leases create                           for a day, under a new id
  dist leases create --id build -x 2h team=mine
  dist leases create --expires never --id mirror")]
pub(crate) struct Create {
    /// Id [default: a new one].
    #[arg(long, value_name = "ID")]
    id: Option<Id>,
    /// How long it lasts: 90m, 24h, or never [default: 24h].
    #[arg(short = 'x', long, value_name = "DURATION", value_parser = expires)]
    expires: Option<Expires>,
    /// Labels.
    #[arg(value_name = "KEY=VALUE", value_parser = label::parse)]
    labels: Vec<(String, String)>,
}

/// A change of what a lease holds.
#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    /// Lease.
    #[arg(value_name = "ID")]
    id: Id,
    /// What it is about.
    #[arg(value_name = "RESOURCE", required = true)]
    resources: Vec<Resource>,
}

/// When a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expires {
    After(Duration),
    Never,
}

/// A lease in a list.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    lease: Lease,
    /// How much it holds.
    resources: usize,
}

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    let leases = context.services().await?.leases;
    let output = context.output();
    match command {
        Command::Ls { quiet, filters } => list(&*leases, output, quiet, &filters).await,
        Command::Create(create) => {
            let lease = shown(leases.create(create.options()).await?);
            output.record(&lease, |lease| lease.id.to_string())
        }
        Command::Rm { sync, ids } => {
            let mut removed = output.names();
            for (position, id) in ids.iter().enumerate() {
                let last = position + 1 == ids.len();
                let deletion = if sync && last { Deletion::Synchronous } else { Deletion::Background };
                leases.delete(id, deletion).await?;
                removed.push(id)?;
            }
            removed.finish()
        }
        Command::Resources { id } => {
            let held = leases.resources(&id).await?;
            let mut list = output.list(["TYPE", "ID"]);
            for resource in held {
                let row = Held { kind: resource.kind.to_string(), id: resource.id };
                list.push(&row, |Held { kind, id }| [kind.clone(), id.clone()])?;
            }
            list.finish()
        }
        Command::Add(Change { id, resources }) => {
            let mut added = output.names();
            for resource in resources {
                leases.add_resource(&id, &resource).await?;
                added.push(&resource.to_string())?;
            }
            added.finish()
        }
        Command::RemoveResource(Change { id, resources }) => {
            let mut removed = output.names();
            for resource in resources {
                leases.delete_resource(&id, &resource).await?;
                removed.push(&resource.to_string())?;
            }
            removed.finish()
        }
    }
}

/// What a lease holds, as containerd names it.
#[derive(Serialize)]
struct Held {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

async fn list(leases: &dyn Manager, output: Output, quiet: bool, filters: &[Filter]) -> Outcome {
    if quiet {
        let mut list = output.names();
        leases.list(filters).await?.iter().try_for_each(|lease| list.push(&lease.id))?;
        return list.finish();
    }
    let mut list = output.list(["ID", "CREATED", "EXPIRES", "HOLDS", "FOR", "LABELS"]);
    for (lease, resources) in lease::holdings(leases, filters).await? {
        let (lease, resources) = (shown(lease), resources.len());
        list.push(&Row { lease, resources }, |Row { lease, resources }| {
            let expires = lease.expires_at.map_or_else(|| "never".to_owned(), until);
            let (purpose, others) = purpose(&lease.labels);
            [lease.id.to_string(), age(lease.created_at), expires, resources.to_string(), purpose, labels(&others)]
        })?;
    }
    list.finish()
}

/// Takes out the label that says when a lease ends, which a daemon has for each that does: the lease says it already.
fn shown(mut lease: Lease) -> Lease {
    if lease.expires_at.is_some() {
        lease.labels.remove(gc::EXPIRE);
    }
    lease
}

/// Says what a lease is for, and returns the labels that do not say that.
fn purpose(labels: &Labels) -> (String, Labels) {
    let mut others = labels.clone();
    others.remove(INTERRUPTED_FROM_LABEL);
    let pull = others.remove(LEASE_LABEL).map(|reference| format!("pull of {reference}"));
    let interrupted = others.remove(INTERRUPTED_LABEL).map(|reference| format!("interrupted pull of {reference}"));
    (interrupted.or(pull).unwrap_or_else(|| "-".to_owned()), others)
}

impl Create {
    fn options(self) -> Options {
        let labels = label::all(self.labels);
        let expiry = match self.expires {
            Some(Expires::After(time)) => Some(time),
            Some(Expires::Never) => None,
            // The label says when.
            None if labels.get(gc::EXPIRE).is_some() => None,
            None => Some(DEFAULT_EXPIRY),
        };
        Options { id: self.id, expiry, labels }
    }
}

fn expires(text: &str) -> Result<Expires> {
    if text == "never" {
        return Ok(Expires::Never);
    }
    // As ctr has it: a lease of no time at all would be of no use.
    let expires = |time: Duration| if time.is_zero() { Expires::Never } else { Expires::After(time) };
    humantime::parse_duration(text).map(expires).map_err(|error| {
        Error::invalid_argument(format!("{text:?} is not a duration: {error}"))
            .hint("a duration looks like 90m or 24h; a lease that never ends by itself has `--expires never`")
    })
}
