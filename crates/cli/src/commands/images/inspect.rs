//! `dist images inspect`: what an image consists of and what of it is here.

use std::fmt::Write;

use serde::Serialize;
use windlass_core::image;
use windlass_core::inspect::{Image, Layer, Node, Summary};
use windlass_core::{Kind, Result, Services, snapshot};

use super::find;
use crate::commands::pull::role;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{age, fields, labels, printable, size};

/// Show what an image consists of: manifests and their platforms, configuration, layers, snapshots.
///
/// What is not here is marked `missing`, or `not kept` when a pull was told so; a layer that is unpacked names its snapshotters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist images inspect redis
  dist --format json images inspect redis | jq '.tree'")]
pub(crate) struct Args {
    /// Image, by its name.
    #[arg(value_name = "REF")]
    name: String,
}

/// An image and its tree.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    image: image::Image,
    #[serde(flatten)]
    summary: Summary,
    tree: Node,
}

/// Shows an image.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let image = find(&services, &args.name).await?;
    let mut tree = Node::read(&*services.content, &image.target).await?;
    let mut images = Vec::new();
    tree.images_mut(&mut |image| images.push(image));
    for layer in images.into_iter().flat_map(|image| &mut image.layers) {
        find_snapshots(&services, layer).await?;
    }
    let summary = tree.summary();
    context.output().record(&Report { image, summary, tree }, table)
}

async fn find_snapshots(services: &Services, layer: &mut Layer) -> Result<()> {
    let name = snapshot::Name::from(&layer.chain_id);
    for (snapshotter, snapshots) in services.snapshotters.iter() {
        match snapshots.stat(name.as_key()).await {
            Ok(_) => layer.snapshotters.push(snapshotter.clone()),
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn table(report: &Report) -> String {
    let Report { image, summary, tree } = report;
    let mut text = fields(&[
        ("name", image.name.to_string()),
        ("created", age(image.created_at)),
        ("updated", age(image.updated_at)),
        ("size", size(summary.size)),
        ("stored", size(summary.stored)),
        ("labels", labels(&image.labels)),
    ]);
    text.push('\n');
    draw(&mut text, tree, None, "", "");
    text
}

/// Draws a node after `first` and what is below it after `rest`.
fn draw(text: &mut String, node: &Node, layer: Option<&Layer>, first: &str, rest: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{first}{}", printable(&line(node, layer)));
    let mut image_lines = node.image.as_ref().map(excerpt).unwrap_or_default();
    image_lines.extend(node.problem.iter().map(|problem| format!("problem: {problem}")));
    let bar = if node.children.is_empty() { " " } else { "│" };
    for line in image_lines {
        let _ = writeln!(text, "{rest}{bar}    {}", printable(&line));
    }
    let layers = node.image.as_ref().map(|image| image.layers.as_slice()).unwrap_or_default();
    for (at, child) in node.children.iter().enumerate() {
        let (branch, below) =
            if at + 1 == node.children.len() { ("└── ", "    ") } else { ("├── ", "│   ") };
        // The first child of a manifest is its config.
        let layer = at.checked_sub(1).and_then(|at| layers.get(at));
        draw(text, child, layer, &format!("{rest}{branch}"), &format!("{rest}{below}"));
    }
}

fn line(node: &Node, layer: Option<&Layer>) -> String {
    let mut line = format!("{} {}  {}", role(&node.descriptor), node.descriptor.digest, size(node.descriptor.size));
    if let Some(platform) = &node.descriptor.platform {
        let _ = write!(line, "  {platform}");
    }
    if !node.present {
        line.push_str(if node.dropped { "  not kept" } else { "  missing" });
    }
    if let Some(layer) = layer.filter(|layer| !layer.snapshotters.is_empty()) {
        let _ = write!(line, "  unpacked: {} {}", layer.snapshotters.join(", "), layer.chain_id);
    }
    line
}

/// Returns what a person looks for in a config first.
fn excerpt(image: &Image) -> Vec<String> {
    let mut lines: Vec<String> = image.created.iter().map(|created| format!("created: {created}")).collect();
    for (key, name) in [
        ("Entrypoint", "entrypoint"),
        ("Cmd", "command"),
        ("WorkingDir", "directory"),
        ("User", "user"),
        ("Env", "env"),
    ] {
        let value = image.config.get(key).filter(|value| !value.is_null() && value.as_str() != Some(""));
        lines.extend(value.map(|value| match value.as_str() {
            Some(text) => format!("{name}: {text}"),
            None => format!("{name}: {value}"),
        }));
    }
    lines
}
