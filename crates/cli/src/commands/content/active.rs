//! `dist content active` and `content status`: ingests, how far they are, and who may resume them until when.

use std::time::SystemTime;

use serde::Serialize;
use windlass::transfer::{Unfinished, unfinished};
use windlass_core::Namespace;
use windlass_core::content::{IngestRef, Status};
use windlass_core::filter::Filter;
use windlass_core::lease::Id;

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

/// An ingest in JSON.
#[derive(Serialize)]
struct Ingest {
    #[serde(flatten)]
    unfinished: Unfinished,
    /// The command that resumes it.
    resume: Option<String>,
}

/// Lists ingests.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let ingests = unfinished::all(&services, &args.filters).await?;
    let mut list = context.output().list(["REF", "SIZE", "STARTED", "UPDATED", "EXPIRES", "RESUMED BY"]);
    for unfinished in ingests {
        list.push(&Ingest::new(context, unfinished), |Ingest { unfinished, resume }| {
            let status = &unfinished.status;
            let resume = resume.clone().unwrap_or_else(|| "-".to_owned());
            let (started, updated) = (age(status.started_at), age(status.updated_at));
            let expires = expires(unfinished.expires_at);
            [status.ingest.to_string(), progress(status), started, updated, expires, resume]
        })?;
    }
    list.finish()
}

/// Shows one ingest.
pub(super) async fn status(context: &Context, args: StatusArgs) -> Outcome {
    let services = context.services().await?;
    let ingest = Ingest::new(context, unfinished::one(&services, &args.ingest).await?);
    context.output().record(&ingest, |Ingest { unfinished: Unfinished { status, held_by, expires_at, .. }, resume }| {
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

impl Ingest {
    fn new(context: &Context, unfinished: Unfinished) -> Self {
        let arguments = match &unfinished.pull {
            // Who is not root cannot unpack.
            Some(reference) if is_root() => Some(format!("pull {}", quoted(reference))),
            Some(reference) => Some(format!("fetch {}", quoted(reference))),
            None => ingest_again(&unfinished.status),
        };
        let namespace = &context.globals.namespace;
        let option = if *namespace == Namespace::default() { String::new() } else { format!("-n {namespace} ") };
        Self { resume: arguments.map(|arguments| format!("dist {option}{arguments}")), unfinished }
    }
}

/// Returns the command that continues an ingest with the same input. One whose digest was not declared begins anew.
fn ingest_again(status: &Status) -> Option<String> {
    let digest = status.expected.as_ref()?;
    let size = status.total.map(|total| format!(" --expected-size {total}")).unwrap_or_default();
    Some(format!("content ingest {} --expected-digest {digest}{size}", quoted(status.ingest.as_str())))
}
