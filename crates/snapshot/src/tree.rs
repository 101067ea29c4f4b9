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

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use windlass_core::error::{IoResultExt as _, Result};

pub(crate) use copy::copy;
pub(crate) use remove::remove;
pub(crate) use usage::usage;
pub(crate) use walk::Walk;

/// Makes a directory that has exactly that mode, whatever the umask.
pub(crate) fn make(path: &Path, mode: u32) -> Result<()> {
    std::fs::create_dir(path).attempt(|| format!("create {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .attempt(|| format!("set the mode of {}", path.display()))
}

/// Gives a directory the mode and the owner of another.
pub(crate) fn copy_mode_and_owner(from: &Path, to: &Path) -> Result<()> {
    let stat = rustix::fs::stat(from).attempt(|| format!("look at {}", from.display()))?;
    let (owner, group) = attributes::owner(&stat);
    // The owner first: changing it clears the setuid and setgid bits.
    rustix::fs::chown(to, owner, group).attempt(|| format!("set the owner of {}", to.display()))?;
    rustix::fs::chmod(to, attributes::mode(&stat)).attempt(|| format!("set the mode of {}", to.display()))
}
