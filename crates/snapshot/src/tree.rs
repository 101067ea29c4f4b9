//! Directory trees: measured, removed and copied, however deep and wide they are and whatever their names.
//!
//! Everything goes by directory handles and single names, never by a path and never through a symlink. Two things bound
//! what a hostile tree can cost: only the nearest levels stay open, and a directory is read a piece at a time.

mod attributes;
mod copy;
mod data;
mod descent;
mod remove;
mod usage;
mod walk;

use std::ffi::CStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use windlass_core::error::{IoResultExt as _, Result};

pub(crate) use copy::copy;
pub(crate) use remove::remove;
pub(crate) use usage::{Blocks, on_disk, usage};
pub(crate) use walk::Walk;

/// Makes a directory that has exactly that mode, whatever the umask.
pub(crate) fn make(path: &Path, mode: u32) -> Result<()> {
    std::fs::create_dir(path).attempt(|| format!("create {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .attempt(|| format!("set the mode of {}", path.display()))
}

/// Gives a directory the properties of another, but for the marks that overlayfs makes.
pub(crate) fn copy_properties(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (Walk::open(from)?, Walk::open(to)?);
    let stat = from.stat(c".")?;
    let other = |name: &CStr| {
        !name.to_bytes().starts_with(b"trusted.overlay.") && !name.to_bytes().starts_with(b"user.overlay.")
    };
    attributes::to_open(from.current(), &stat, to.current(), other)
        .attempt(|| format!("copy the properties of {}", from.path(None).display()))
}
