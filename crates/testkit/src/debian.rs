//! Real images made of packages, Debian's for the most part, for benchmarks and for whoever tries the engine out.
//!
//! The packages come from the mirrors and indexes that this machine is configured for and are kept in a cache. Each list of
//! them becomes a layer, as `dpkg` would have unpacked them on a system with a merged `/usr`, and pip and npm beside it; no
//! maintainer script runs, but what a shell needs is there: `chroot` into it works. A last layer changes what is below in
//! every way a layer can.
//!
//! Nothing is held in memory: packages stream through tar and gzip into the layout.

mod archive;
mod bottom;
mod deb;
mod layer;
mod node;
mod recipes;
mod source;
mod top;
mod wheel;
mod zip;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use windlass_core::{Descriptor, DiffId, Error, MediaType, Platform, Result};

use crate::image::{Layer, add_to_layout};

pub use recipes::{BLOBS, FILES, MANY, SMALL};

/// What an image is made of: lists of packages, one for each layer, bottom first.
///
/// A package of Debian is given by its name alone; `pypi:NAME==VERSION` is a wheel, unpacked where Python looks for it,
/// `pypi-file:NAME==VERSION` a wheel as one file, `npm:NAME@VERSION` a package of Node's. A version that the index does
/// not have any more is replaced by the newest.
pub type Recipe = [&'static [&'static str]];

/// A finished image in a layout.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest.
    pub root: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Summary>,
}

/// A finished layer.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The compressed layer.
    pub descriptor: Descriptor,
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// How many entries it has.
    pub entries: usize,
}

/// Makes an image of packages and adds it to an OCI layout under a tag.
///
/// The layout gets the tag last: one that was interrupted does not have it. Packages are taken from `cache`, and brought
/// there with `apt-get`, pip and npm when they are missing.
///
/// # Errors
/// `NotFound` naming the packages that no mirror has; `InvalidArgument` for a recipe that cannot be read;
/// `FailedPrecondition` when the programs fail or are missing; those of the filesystem.
pub fn image(cache: &Path, recipe: &[&[&str]], layout: &Path, tag: &str) -> Result<Image> {
    let packages = source::bring(cache, recipe)?;
    let blobs = layer::create_blobs(layout)?;
    let mut plans: Vec<layer::Plan> = packages.into_iter().map(layer::Plan::of_packages).collect();
    if let Some(bottom) = plans.first_mut() {
        bottom.before = Some(bottom::layer());
    }
    plans.push(layer::Plan::of_entries(top::layer()));

    let layers = make_all(&blobs, &plans)?;
    let root = write_documents(&blobs, &layers)?;
    add_to_layout(layout, tag, &root)?;
    Ok(Image { root, layers })
}

/// Makes the layers on all processors, one layer a thread, the largest first.
fn make_all(blobs: &Path, plans: &[layer::Plan]) -> Result<Vec<Summary>> {
    let mut order: Vec<usize> = (0..plans.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(plans.get(*at).map(layer::Plan::weight)));
    let next = AtomicUsize::new(0);
    let made: Mutex<Vec<(usize, Result<Summary>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, plan)) = take(&next, &order, plans) {
                    let summary = plan.make(blobs);
                    made.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, summary));
                }
            });
        }
    });
    let mut made = made.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    made.sort_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, summary)| summary).collect()
}

fn take<'a>(next: &AtomicUsize, order: &[usize], plans: &'a [layer::Plan]) -> Option<(usize, &'a layer::Plan)> {
    let at = *order.get(next.fetch_add(1, Ordering::Relaxed))?;
    plans.get(at).map(|plan| (at, plan))
}

/// OCI image-spec, `config.md` and `manifest.md`.
fn write_documents(blobs: &Path, layers: &[Summary]) -> Result<Descriptor> {
    let platform = Platform::host();
    let mut config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "created": "2023-11-14T22:13:20Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/bin/bash"],
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>() },
        "history": layers.iter().map(|_| json!({ "created_by": "windlass-testkit" })).collect::<Vec<_>>(),
    });
    if let (Some(variant), Some(config)) = (&platform.variant, config.as_object_mut()) {
        config.insert("variant".to_owned(), json!(variant));
    }
    let config = layer::write_blob(blobs, MediaType::OCI_CONFIG, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": config,
        "layers": layers.iter().map(|layer| &layer.descriptor).collect::<Vec<_>>(),
    });
    layer::write_blob(blobs, MediaType::OCI_MANIFEST, manifest.to_string().as_bytes())
}

/// Says that a program failed, in its own words.
fn failed(program: &str, status: std::process::ExitStatus, stderr: &[u8]) -> Error {
    let words = String::from_utf8_lossy(stderr);
    Error::failed_precondition(format!("{program} failed ({status}): {}", words.trim()))
}
