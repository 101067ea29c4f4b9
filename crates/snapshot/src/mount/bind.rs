//! Bind mounts: a directory in another place, with its own flags from its first moment.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags};
use windlass_core::error::{Error, IoResultExt as _, Result};

use super::options::Options;
use super::{Calls, modern, refused, sys};

/// Binds a directory to another.
pub(super) fn mount(calls: Calls, source: &Path, target: BorrowedFd<'_>, path: &Path, options: &Options) -> Result<()> {
    let metadata = std::fs::metadata(source).attempt(|| format!("look at the source {}", source.display()))?;
    if !metadata.is_dir() {
        return Err(Error::failed_precondition(format!("the source {} is not a directory", source.display())));
    }
    if !options.data.is_empty() {
        return Err(Error::invalid_argument(format!("a bind mount has no option {}", options.data.join(", "))));
    }
    if calls == Calls::Modern && mount_modern(source, target, options)? {
        return Ok(());
    }
    mount_classic(source, path, options)
}

/// Copies the mount, sets its flags, and only then makes it visible; `false` when the kernel cannot.
fn mount_modern(source: &Path, target: BorrowedFd<'_>, options: &Options) -> Result<bool> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, options.recursive);
    let tree = match rustix::mount::open_tree(CWD, source, flags) {
        Err(Errno::NOSYS) => return Ok(false),
        opened => opened.map_err(|errno| refused(&format!("copy the mount of {}", source.display()), errno, ""))?,
    };
    match sys::set_attributes(tree.as_fd(), options.attributes(), options.recursive) {
        Err(Errno::NOSYS) => return Ok(false),
        set => set.map_err(|errno| refused(&format!("set the flags of {}", source.display()), errno, ""))?,
    }
    modern::attach(tree.as_fd(), target)?;
    Ok(true)
}

/// Binds, then changes the flags of what was bound: for a moment it is there without them.
fn mount_classic(source: &Path, path: &Path, options: &Options) -> Result<()> {
    let bound = if options.recursive {
        rustix::mount::mount_bind_recursive(source, path)
    } else {
        rustix::mount::mount_bind(source, path)
    };
    bound.map_err(|errno| refused(&format!("bind {}", source.display()), errno, ""))?;
    if options.flags.is_empty() {
        return Ok(());
    }
    let changed = rustix::mount::mount_remount(path, MountFlags::BIND | options.flags, "");
    changed.map_err(|errno| {
        if let Err(error) = rustix::mount::unmount(path, UnmountFlags::DETACH) {
            tracing::warn!(target = %path.display(), %error, "a bind mount with the wrong flags stays");
        }
        refused(&format!("set the flags of {}", path.display()), errno, "")
    })
}
