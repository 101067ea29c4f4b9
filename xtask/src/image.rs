//! The images that the commands use: real ones, made of packages of Debian, Python and Node, and kept for the next time.
//!
//! They are kept below the build directory, so that `cargo clean` removes them; each with what it was made of, so that
//! another recipe makes it again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use windlass_testkit::debian::{self, Recipe};

use crate::peer::Layout;
use crate::process;

/// Returns the image of the quickstart: tens of megabytes, a few thousand files.
pub(crate) fn small() -> Result<Layout> {
    kept("small", debian::SMALL)
}

/// Returns an image of the benchmark: about 500 MB compressed, 180,000 files.
pub(crate) fn files() -> Result<Layout> {
    kept("files", debian::FILES)
}

/// Returns an image of the benchmark: about 1.7 GB compressed, half of it in one layer, few files.
pub(crate) fn blobs() -> Result<Layout> {
    kept("blobs", debian::BLOBS)
}

/// Returns an image of the benchmark: 64 layers of about a megabyte.
pub(crate) fn many() -> Result<Layout> {
    kept("many", debian::MANY)
}

/// Returns an image that was made before, or makes it.
fn kept(name: &str, recipe: &Recipe) -> Result<Layout> {
    let images = process::target()?.join("images");
    let layout = Layout { directory: images.join(name), tag: name.to_owned() };
    let note = layout.directory.join("recipe");
    let wanted = format!("{recipe:#?}\n");
    if layout.layers().is_ok() && fs::read_to_string(&note).is_ok_and(|made| made == wanted) {
        println!("the image was made before and is used again");
        return Ok(layout);
    }
    println!("bring {} packages and make an image of them", recipe.iter().map(|layer| layer.len()).sum::<usize>());
    make(&layout, &images.join("packages"), recipe)?;
    fs::write(&note, wanted).with_context(|| format!("write {}", note.display()))?;
    Ok(layout)
}

fn make(layout: &Layout, packages: &Path, recipe: &Recipe) -> Result<()> {
    let directory = &layout.directory;
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    for directory in [directory, packages] {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let image = debian::image(packages, recipe, directory, &layout.tag).context("make an image of packages")?;
    let entries: usize = image.layers.iter().map(|layer| layer.entries).sum();
    println!("made: {entries} entries in {} layers", image.layers.len());
    Ok(())
}

/// Says what an image consists of.
pub(crate) fn describe(layout: &Layout) -> Result<String> {
    let layers = layout.layers()?;
    let mut bytes = 0;
    for layer in &layers {
        bytes += fs::metadata(layer).with_context(|| format!("read {}", layer.display()))?.len();
    }
    let megabytes = bytes / 1_000_000;
    Ok(format!("{}: {} layers, {megabytes} MB compressed", layout.skopeo(), layers.len()))
}
