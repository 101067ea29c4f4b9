//! `dist inspect`: what an image at a registry consists of, without bringing it here.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use windlass::transfer::inspect::Node;
use windlass::transfer::{self, Inspected};
use windlass_core::media_type::Role;
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::{Digest, Platform, Reference};

use super::pull::role;
use crate::context::Context;
use crate::failure::Outcome;
use crate::familiar;
use crate::remote::Registries;
use crate::render::{fields, printable, size};

/// Show what an image at a registry consists of: platforms, sizes, layers, configuration, annotations. Nothing is stored.
///
/// Of an image for several platforms, the one for this machine is read in full; the others are listed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist inspect redis
  dist inspect --platform linux/arm64 redis
  dist --format json inspect --all-platforms redis | jq '.tree.children[].totalSize'
  dist inspect oci:./layout:1")]
pub(crate) struct Args {
    /// Image to look at.
    #[arg(help = "Image to look at: NAME[:TAG][@DIGEST], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "REF", value_parser = familiar::parse)]
    reference: Reference,
    /// Platform to read, such as linux/arm64; may be given again [default: this machine's, if it is there].
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// Read every platform.
    #[arg(long, conflicts_with = "platforms")]
    all_platforms: bool,
    #[command(flatten)]
    registries: Registries,
}

#[derive(Serialize)]
struct Report<'a> {
    digest: &'a Digest,
    #[serde(flatten)]
    inspected: &'a Inspected,
}

/// Shows the image.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let resolver = args.registries.resolver(&args.reference)?;
    let selection = match args.platforms.as_slice() {
        _ if args.all_platforms => Some(Selection::All),
        [] => None,
        platforms => Some(Selection::Best(platforms.to_vec())),
    };
    let inspected = transfer::inspect(&resolver, &args.reference, selection.as_ref(), &Tracker::new()).await?;
    let report = Report { digest: &inspected.tree.descriptor.digest, inspected: &inspected };
    context.output().record(&report, |report| table(report.inspected))
}

fn table(inspected: &Inspected) -> String {
    let tree = &inspected.tree;
    let mut text = fields(&[
        ("name", inspected.name.to_string()),
        ("digest", tree.descriptor.digest.to_string()),
        ("type", tree.descriptor.media_type.to_string()),
    ]);
    text.push('\n');
    draw(&mut text, tree, "", "");
    text
}

/// Draws a node after `first` and what is below it after `rest`.
fn draw(text: &mut String, node: &Node, first: &str, rest: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{first}{}", printable(&line(node)));
    let bar = if node.children.is_empty() { " " } else { "│" };
    for line in notes(node) {
        let _ = writeln!(text, "{rest}{bar}    {}", printable(&line));
    }
    for (at, child) in node.children.iter().enumerate() {
        let (branch, below) =
            if at + 1 == node.children.len() { ("└── ", "    ") } else { ("├── ", "│   ") };
        draw(text, child, &format!("{rest}{branch}"), &format!("{rest}{below}"));
    }
}

fn line(node: &Node) -> String {
    let descriptor = &node.descriptor;
    let mut line = format!("{} {}  {}", role(descriptor), descriptor.digest, size(descriptor.size));
    if descriptor.media_type.role() == Role::Manifest
        && let Some(platform) = node.platform()
    {
        let _ = write!(line, "  {platform}");
    }
    if let Some(total) = node.total_size {
        let _ = write!(line, "  {} in all", size(total));
    }
    line
}

/// Returns what a person looks for in a document first.
fn notes(node: &Node) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(document) = &node.document {
        notes.extend(document.get("artifactType").and_then(Value::as_str).map(|kind| format!("artifact: {kind}")));
        let subject = document.pointer("/subject/digest").and_then(Value::as_str);
        notes.extend(subject.map(|subject| format!("subject: {subject}")));
        let annotations = document.get("annotations").and_then(Value::as_object).into_iter().flatten();
        notes.extend(annotations.map(|(key, value)| format!("{key}: {}", value.as_str().unwrap_or_default())));
    }
    if let Some(config) = &node.config {
        let named = [
            ("created", "/created"),
            ("entrypoint", "/config/Entrypoint"),
            ("command", "/config/Cmd"),
            ("directory", "/config/WorkingDir"),
            ("user", "/config/User"),
            ("env", "/config/Env"),
            ("labels", "/config/Labels"),
        ];
        for (name, pointer) in named {
            let value = config.pointer(pointer).filter(|value| !value.is_null() && value.as_str() != Some(""));
            notes.extend(value.map(|value| match value.as_str() {
                Some(text) => format!("{name}: {text}"),
                None => format!("{name}: {value}"),
            }));
        }
    }
    notes
}
