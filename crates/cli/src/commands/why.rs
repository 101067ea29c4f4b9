//! `dist why`: the path from a root that keeps something from being collected.

use serde::Serialize;
use windlass_core::digest::Algorithm;
use windlass_core::gc::{Node, Pin, PinReason};
use windlass_core::{Digest, Error, Kind, Result, Services, snapshot};

use crate::commands::images;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::line;

/// Say what keeps something from being collected, or that nothing does.
///
/// Takes a blob or a snapshot by its digest, chain id or key, an image by its reference, or an ingest by its ref. What is
/// found under more than one of these is explained more than once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist why sha256:…
  dist why redis")]
pub(crate) struct Args {
    /// Digest, snapshot, image or ingest.
    #[arg(value_name = "OBJECT")]
    object: String,
}

/// One thing and what keeps it.
#[derive(Serialize)]
struct Explained {
    object: Node,
    pin: Option<Pin>,
}

/// Explains.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let namespace = &context.globals.namespace;
    let services = context.services().await?;
    let explained = explain(&services, &args.object).await?;
    if explained.is_empty() {
        let problem = format!("{} is no blob, snapshot, image or ingest of namespace {namespace}", args.object);
        return Err(Error::not_found(problem).hint(hint(&args.object)).into());
    }
    if context.output().is_json() {
        return context.output().record(&explained, |_| String::new());
    }
    for explained in &explained {
        line(&tell(explained))?;
    }
    Ok(())
}

/// Says how to find what was meant.
fn hint(object: &str) -> String {
    match object.split_once(':') {
        Some((algorithm, _)) if algorithm.parse::<Algorithm>().is_ok() => format!(
            "`dist content ls -q digest~={object}` and `dist snapshots ls -q name~={object}` list those that contain this"
        ),
        _ => "`dist content ls`, `snapshots ls` and `images ls` list them".to_owned(),
    }
}

async fn explain(services: &Services, object: &str) -> Result<Vec<Explained>> {
    let mut candidates: Vec<Node> = Vec::new();
    candidates.extend(object.parse::<Digest>().ok().map(Node::Content));
    if object.parse::<snapshot::Key>().is_ok() {
        let snapshot = |name: &String| Node::Snapshot { snapshotter: name.clone(), key: object.to_owned() };
        candidates.extend(services.snapshotters.keys().map(snapshot));
        candidates.push(Node::Ingest(object.to_owned()));
    }
    candidates.extend(images::find(services, object).await.ok().map(|image| Node::Image(image.name.to_string())));
    let collector = services.collector()?;
    let mut explained = Vec::new();
    for object in candidates {
        match collector.why(&services.scope.namespace, &object).await {
            Ok(pin) => explained.push(Explained { object, pin }),
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(explained)
}

fn tell(Explained { object, pin }: &Explained) -> String {
    let Some(Pin { reason, path }) = pin else {
        return format!("{object}\n  nothing keeps it: the next collection removes it");
    };
    let root = match reason {
        PinReason::Record => "a record that stays until it is deleted".to_owned(),
        PinReason::RootLabel => "a root by its label containerd.io/gc.root".to_owned(),
        PinReason::Until(end) => format!("held until {}", humantime::format_rfc3339_seconds(*end)),
        PinReason::Lease(id) => format!("held by lease {id}"),
    };
    let mut lines = vec![object.to_string()];
    for (depth, node) in path.iter().enumerate() {
        let note = if depth == 0 { format!("  ({root})") } else { String::new() };
        lines.push(format!("{}{node}{note}", "  ".repeat(depth + 1)));
    }
    lines.join("\n")
}
