//! The images that the commands use: real ones, made of this machine's Debian packages, and kept for the next time.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::peer::Layout;
use crate::process;

/// Returns the image of the quickstart: tens of megabytes, a few thousand files.
pub(crate) fn small() -> Result<Layout> {
    kept("small")
}

/// Returns the image of the benchmark: about 300 MB compressed, 50,000 files.
pub(crate) fn large() -> Result<Layout> {
    kept("large")
}

fn kept(name: &str) -> Result<Layout> {
    let directory = process::target()?.join("images").join(name);
    let layout = Layout { directory, tag: name.to_owned() };
    if layout.layers().is_ok() {
        return Ok(layout);
    }
    make(&layout.directory)?;
    Ok(layout)
}

fn make(_directory: &Path) -> Result<()> {
    bail!("waits for the test kit")
}

/// Says what an image consists of.
pub(crate) fn describe(layout: &Layout) -> Result<String> {
    let layers = layout.layers()?;
    let mut bytes = 0;
    for layer in &layers {
        bytes += std::fs::metadata(layer).with_context(|| format!("read {}", layer.display()))?.len();
    }
    let megabytes = bytes / 1_000_000;
    Ok(format!("{}: {} layers, {megabytes} MB compressed", layout.skopeo(), layers.len()))
}
