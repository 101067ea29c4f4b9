//! Whether overlays of images can be made in a directory, found out by making one.

use std::path::Path;

use windlass_core::error::{Error, Kind, Result};
use windlass_core::snapshot::State;

use super::{Images, sample};
use crate::mount::{self, Temporary};
use crate::snapshots::{Layout as _, Purpose, tree_of};
use crate::tree;

pub(super) fn probe(directory: &Path, options: &[String]) -> Result<()> {
    mount::privileged()?;
    mount::out_of_sight(|| attempt(directory, options)).map_err(|error| {
        if matches!(error.kind(), Kind::PermissionDenied | Kind::Unimplemented | Kind::ResourceExhausted) {
            return error;
        }
        Error::failed_precondition(format!("EROFS images cannot be mounted in {}", directory.display()))
            .source(error)
            .hint("they need Linux 6.12, or loop devices (`modprobe loop`); or use the overlayfs snapshotter")
    })
}

fn attempt(scratch: &Path, options: &[String]) -> Result<()> {
    let [top, bottom, own] = ["top", "bottom", "own"].map(|name| scratch.join(name));
    let layout = Images { options: options.to_vec() };
    for (directory, files, gone) in [
        (&bottom, [("stays", &b"bottom"[..]), ("gone", b"bottom")], &[][..]),
        (&top, [("a", b"top"), ("b", b"")], &["gone"]),
    ] {
        tree::make(directory, 0o700)?;
        layout.create(directory, Purpose::Unpack, None)?;
        sample::make(directory, &files, gone)?;
    }
    tree::make(&own, 0o700)?;
    layout.create(&own, Purpose::Write, Some(&top))?;
    let mounts = layout.mounts(State::Active, &own, &[top, bottom])?;
    let mounted = Temporary::mount(&mounts, scratch)?;
    let merged = mounted.path();
    let right = std::fs::read(merged.join("stays")).is_ok_and(|content| content == b"bottom")
        && std::fs::read(merged.join("a")).is_ok_and(|content| content == b"top")
        && !merged.join("gone").exists()
        && std::fs::write(merged.join("stays"), "new").is_ok()
        && tree_of(&own).join("stays").exists();
    mounted.close()?;
    if right { Ok(()) } else { Err(Error::failed_precondition("an overlay can be mounted, and shows the wrong files")) }
}
