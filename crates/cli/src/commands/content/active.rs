//! `dist content active` and `content status`: ingests, how far they are, and who may resume them until when.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use windlass::transfer::pull::{INTERRUPTED_LABEL, LEASE_LABEL};
use windlass_core::content::{ABANDONED_AFTER, IngestRef, Status};
use windlass_core::filter::Filter;
use windlass_core::lease::{Id, Lease, ResourceKind};
use windlass_core::{Namespace, Result, Services, timestamp};

use crate::context::{Context, is_root};
use crate::failure::Outcome;
use crate::render::{age, fields, quoted, size, until};

/// List ingests: blobs on their way, or left by a pull that was interrupted.
///
/// What a pull left is resumed by pulling the same image again. An ingest is discarded a day after its last write, and not
/// before the leases end that hold it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist content active                          all of them
  dist content active ref~=^layer-             those of layers
  dist --format json content active            with `held_by`, `resume` and `expires_at`")]
pub(crate) struct Args {
    /// Filters, any of which must match: ref==x, ref~=re.
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
}

/// Show where an ingest stands, and how to resume it.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Ingest, as `content active` lists it.
    #[arg(value_name = "REFKEY")]
    ingest: IngestRef,
}

/// An ingest, and what will become of it.
#[derive(Serialize)]
struct Ingest {
    #[serde(flatten)]
    status: Status,
    /// The leases that hold it.
    held_by: Vec<Id>,
    /// The command that resumes it.
    resume: Option<String>,
    /// When it is discarded; never when a lease holds it that has no end.
    #[serde(with = "timestamp::option")]
    expires_at: Option<SystemTime>,
}

/// Lists ingests.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let holders = Holders::of(&services).await?;
    let mut list = context.output().list(["REF", "SIZE", "STARTED", "UPDATED", "EXPIRES", "RESUMED BY"]);
    for status in services.content.statuses(&args.filters).await? {
        list.push(&holders.ingest(status), |Ingest { status, resume, expires_at, .. }| {
            let resume = resume.clone().unwrap_or_else(|| "-".to_owned());
            let (started, updated) = (age(status.started_at), age(status.updated_at));
            [status.ingest.to_string(), progress(status), started, updated, expires(*expires_at), resume]
        })?;
    }
    list.finish()
}

/// Shows one ingest.
pub(super) async fn status(context: &Context, args: StatusArgs) -> Outcome {
    let services = context.services().await?;
    let status = services.content.status(&args.ingest).await?;
    let ingest = Holders::of(&services).await?.ingest(status);
    context.output().record(&ingest, |Ingest { status, held_by, resume, expires_at }| {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let held_by: Vec<&str> = held_by.iter().map(Id::as_str).collect();
        fields(&[
            ("ref", status.ingest.to_string()),
            ("size", progress(status)),
            ("offset", status.offset.to_string()),
            ("total", or_none(status.total.map(|total| total.to_string()))),
            ("expected", or_none(status.expected.as_ref().map(ToString::to_string))),
            ("started", age(status.started_at)),
            ("updated", age(status.updated_at)),
            ("held by", or_none((!held_by.is_empty()).then(|| held_by.join(", ")))),
            ("expires", expires(*expires_at)),
            ("resumed by", or_none(resume.clone())),
        ])
    })
}

fn progress(status: &Status) -> String {
    let total = status.total.map_or_else(|| "?".to_owned(), size);
    format!("{}/{total}", size(status.offset))
}

fn expires(expires_at: Option<SystemTime>) -> String {
    expires_at.map_or_else(|| "never".to_owned(), until)
}

/// The leases of a namespace that hold ingests.
struct Holders {
    namespace: Namespace,
    by_ingest: BTreeMap<String, Vec<Lease>>,
}

impl Holders {
    async fn of(services: &Services) -> Result<Self> {
        let mut by_ingest: BTreeMap<String, Vec<Lease>> = BTreeMap::new();
        for lease in services.leases.list(&[]).await? {
            for held in services.leases.resources(&lease.id).await? {
                if held.kind == ResourceKind::Ingest {
                    by_ingest.entry(held.id).or_default().push(lease.clone());
                }
            }
        }
        Ok(Self { namespace: services.scope.namespace.clone(), by_ingest })
    }

    fn ingest(&self, status: Status) -> Ingest {
        let leases = self.by_ingest.get(status.ingest.as_str()).map(Vec::as_slice).unwrap_or_default();
        let pulled = leases.iter().find_map(|lease| {
            lease.labels.get(INTERRUPTED_LABEL).or_else(|| lease.labels.get(LEASE_LABEL)).map(str::to_owned)
        });
        let resume = match pulled {
            // Who is not root cannot unpack.
            Some(reference) if is_root() => Some(format!("pull {}", quoted(&reference))),
            Some(reference) => Some(format!("fetch {}", quoted(&reference))),
            None => ingest_again(&status),
        };
        Ingest {
            held_by: leases.iter().map(|lease| lease.id.clone()).collect(),
            resume: resume.map(|arguments| self.command(&arguments)),
            expires_at: expiry(leases, &status),
            status,
        }
    }

    /// Writes a command of ours in this namespace.
    fn command(&self, arguments: &str) -> String {
        if self.namespace == Namespace::default() {
            return format!("dist {arguments}");
        }
        format!("dist -n {} {arguments}", self.namespace)
    }
}

/// Returns the command that continues an ingest with the same input. One whose digest was not declared begins anew.
fn ingest_again(status: &Status) -> Option<String> {
    let digest = status.expected.as_ref()?;
    let size = status.total.map(|total| format!(" --expected-size {total}")).unwrap_or_default();
    Some(format!("content ingest {} --expected-digest {digest}{size}", quoted(status.ingest.as_str())))
}

/// Returns when an ingest is discarded: a day after its last write, and not before the last lease ends that holds it.
fn expiry(leases: &[Lease], status: &Status) -> Option<SystemTime> {
    if leases.iter().any(|lease| lease.expires_at.is_none()) {
        return None;
    }
    let abandoned = status.updated_at.checked_add(ABANDONED_AFTER);
    leases.iter().filter_map(|lease| lease.expires_at).max().max(abandoned)
}
