//! Mounts, carried out: a list of [`Mount`]s as a snapshotter returns it becomes a mounted directory.
//!
//! The kernel's newer calls (fsopen, open_tree, move_mount) are used where it has them, because they take any number of
//! layers and explain their refusals; mount(2) elsewhere. Everything here blocks, and needs the rights to mount.

mod bind;
mod classic;
mod image;
mod loopback;
mod modern;
mod options;
pub(crate) mod sys;
mod table;
mod temporary;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use windlass_core::error::{Error, IoResultExt as _, Result, ResultExt as _};
use windlass_core::snapshot::{EROFS_LAYER, EROFS_LOWER, Mount};

pub use table::{Layers, MountedAt, mounts, parse};
pub use temporary::Temporary;

use options::Options;

/// How many lower layers overlayfs stacks. `fs/overlayfs/params.h`, `OVL_MAX_STACK`.
pub const MAX_LAYERS: usize = 500;

/// Carries out mounts in their order on a directory that exists. When one fails, those before it are undone.
///
/// # Errors
/// `PermissionDenied` without the rights to mount; `NotFound` or `FailedPrecondition` when the target, a source or a layer
/// is missing or no directory; `FailedPrecondition` for more layers than [`MAX_LAYERS`]; `InvalidArgument` for options
/// that the kernel refuses, in its words.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<()> {
    mount_all_with(Calls::Modern, mounts, target)
}

/// Does something in a thread whose mounts nobody else sees. What it mounts is gone with the thread, however that ends, the
/// death of the process included.
///
/// # Errors
/// Those of the work; `PermissionDenied` without the rights to mount.
pub(crate) fn out_of_sight<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let alone = || {
        // What others unmount meanwhile is unmounted here, too, where mounts are shared; nothing goes the other way.
        let apart = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        sys::own_mounts().map_err(|errno| Error::io("make a mount namespace", errno.into()))?;
        rustix::mount::mount_change("/", apart).map_err(not_apart)?;
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(alone).join());
    done.unwrap_or_else(|_| Err(Error::internal("a thread with its own mounts panicked")))
}

/// Says why what is mounted would not be out of sight.
fn not_apart(errno: Errno) -> Error {
    // mount(2): what is to be changed is no mount point.
    if errno == Errno::INVAL {
        return Error::failed_precondition(
            "/ is no mount point here: it is a directory that was changed into with chroot",
        )
        .hint("bind-mount that directory onto itself first, for example with `mount --rbind DIR DIR`");
    }
    Error::io("set the mounts of a mount namespace apart", errno.into())
}

/// Carries mounts out where nobody else sees them, and returns the directory that they make. What is mounted is gone when
/// that is closed, however the process ends.
///
/// The target is any directory: what it shows is the same before and after.
///
/// # Errors
/// As [`mount_all`].
pub fn unseen(mounts: &[Mount], target: &Path) -> Result<OwnedFd> {
    out_of_sight(|| {
        mount_all(mounts, target)?;
        image::take(target)
    })
}

/// Unmounts what was mounted last on a directory.
///
/// # Errors
/// `FailedPrecondition` when nothing is mounted there, or when it is in use; `NotFound` without the directory.
pub fn unmount(target: &Path) -> Result<()> {
    let path = canonical(target)?;
    if topmost(&path, &mounts()?).is_none() {
        return Err(not_mounted(target));
    }
    unmount_with(&path, UnmountFlags::NOFOLLOW)
}

/// Unmounts what [`mount_all`] made of these mounts on a directory, the last first.
///
/// # Errors
/// As [`unmount`]; the rest stays mounted.
pub fn unmount_all(mounts: &[Mount], target: &Path) -> Result<()> {
    unmount_each(mounts, target, unmount)
}

/// Unmounts what [`mount_all`] mounted, the last first, each in the way that is given.
fn unmount_each(mounts: &[Mount], target: &Path, unmount: impl Fn(&Path) -> Result<()>) -> Result<()> {
    for mount in mounts.iter().rev().filter(|mount| mount.kind != EROFS_LOWER) {
        unmount(&place_path(mount, target)?)?;
    }
    Ok(())
}

/// Returns what was mounted last on a directory.
///
/// # Errors
/// `NotFound` without the directory.
pub fn mounted_at(target: &Path) -> Result<Option<MountedAt>> {
    let path = canonical(target)?;
    Ok(topmost(&path, &mounts()?).cloned())
}

/// Tells whether this process may mount.
///
/// # Errors
/// `PermissionDenied` when it may not.
pub fn privileged() -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(not_permitted()) }
}

/// Which of the kernel's calls are used first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// The newer ones, and mount(2) for what they cannot.
    Modern,
    /// Only mount(2), as on a kernel without the others.
    #[cfg_attr(not(test), expect(dead_code, reason = "what an old kernel leads to, forced by tests"))]
    Classic,
}

fn mount_all_with(calls: Calls, mounts: &[Mount], target: &Path) -> Result<()> {
    privileged()?;
    if mounts.is_empty() {
        return Err(Error::invalid_argument(format!("there is nothing to mount at {}", target.display())));
    }
    let mut lowers: Vec<Mount> = Vec::new();
    for (done, mount) in mounts.iter().enumerate() {
        if mount.kind == EROFS_LOWER {
            lowers.push(mount.clone());
            continue;
        }
        let made = mount_one(calls, &std::mem::take(&mut lowers), mount, target);
        if let Err(error) = made.context(|| format!("mount {} at {}", mount.kind, target.display())) {
            if let Err(error) = unmount_all(mounts.get(..done).unwrap_or_default(), target) {
                tracing::warn!(target = %target.display(), %error, "a mount that was to be undone stays");
            }
            return Err(error);
        }
    }
    if lowers.is_empty() { Ok(()) } else { Err(Error::invalid_argument("there are layers without an overlay")) }
}

/// Carries out one mount; `lowers` are the images that it is made of if it is an overlay.
fn mount_one(calls: Calls, lowers: &[Mount], mount: &Mount, target: &Path) -> Result<()> {
    if !lowers.is_empty() {
        return image::mount_overlay(calls, lowers, mount, target);
    }
    if mount.kind == EROFS_LAYER {
        return Err(Error::failed_precondition(format!("{} is there to unpack a layer into", mount.source))
            .hint("it can be looked at when it is committed, through a view of it"));
    }
    let (directory, path) = place(mount, target)?;
    let options = Options::parse(&mount.options)?;
    if mount.kind == "erofs" {
        return image::mount(Path::new(&mount.source), &options, &path);
    }
    if mount.kind == "bind" || options.bind {
        return bind::mount(calls, Path::new(&mount.source), directory.as_fd(), &path, &options);
    }
    if mount.kind != "overlay" {
        return classic::mount(&mount.kind, &mount.source, &path, options.flags, &options.data.join(","));
    }
    let overlay = options::Overlay::parse(&options)?;
    check(&overlay)?;
    if calls == Calls::Modern && modern::mount_overlay(&mount.source, &overlay, &options, directory.as_fd())? {
        return Ok(());
    }
    classic::mount_overlay(&mount.source, &overlay, &options, &path)
}

/// Opens the place of a mount: the target, or a directory below it, found without leaving it.
fn place(mount: &Mount, target: &Path) -> Result<(OwnedFd, PathBuf)> {
    let path = canonical(target)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |at, path: &Path, resolve| rustix::fs::openat2(at, path, flags, Mode::empty(), resolve);
    let attempt = |path: &Path| format!("open the mount target {}", path.display());
    let directory = open(CWD, &path, ResolveFlags::empty()).attempt(|| attempt(&path))?;
    if mount.target.is_empty() {
        return Ok((directory, path));
    }
    let below = path.join(mount.target.trim_start_matches('/'));
    let directory =
        open(directory.as_fd(), Path::new(&mount.target), ResolveFlags::IN_ROOT).attempt(|| attempt(&below))?;
    let path = table::path_of(directory.as_fd()).attempt(|| attempt(&below))?;
    Ok((directory, path))
}

/// Finds the place of a mount, and leaves it closed: an open directory keeps a mount busy.
fn place_path(mount: &Mount, target: &Path) -> Result<PathBuf> {
    place(mount, target).map(|(_directory, path)| path)
}

/// Checks what the kernel would refuse with a number.
fn check(overlay: &options::Overlay) -> Result<()> {
    if overlay.lowers.len() > MAX_LAYERS {
        return Err(Error::failed_precondition(format!(
            "there are {} layers below, and overlayfs stacks at most {MAX_LAYERS}",
            overlay.lowers.len()
        ))
        .hint("use the native snapshotter, or squash some layers of the image"));
    }
    for path in overlay.lowers.iter().chain(&overlay.upper).chain(&overlay.work) {
        let metadata = std::fs::metadata(path).attempt(|| format!("look at layer {}", path.display()))?;
        if !metadata.is_dir() {
            return Err(Error::failed_precondition(format!("layer {} is not a directory", path.display())));
        }
    }
    Ok(())
}

fn canonical(target: &Path) -> Result<PathBuf> {
    let missing = |error: Error| error.hint(format!("create the directory {}", target.display()));
    let path = std::fs::canonicalize(target)
        .attempt(|| format!("find the mount target {}", target.display()))
        .map_err(missing)?;
    if path.is_dir() {
        return Ok(path);
    }
    Err(Error::failed_precondition(format!("the mount target {} is not a directory", target.display()))
        .hint("choose a directory to mount on"))
}

fn topmost<'a>(path: &Path, table: &'a [MountedAt]) -> Option<&'a MountedAt> {
    table.iter().rev().find(|mount| mount.target == path)
}

pub(crate) fn unmount_with(path: &Path, flags: UnmountFlags) -> Result<()> {
    rustix::mount::unmount(path, flags).map_err(|errno| match errno {
        Errno::BUSY => Error::failed_precondition(format!("{} is busy", path.display()))
            .hint(format!("end what uses it, then try again: `fuser -vm {}` lists the processes", path.display())),
        Errno::INVAL => not_mounted(path),
        Errno::PERM => not_permitted(),
        other => Error::io(format!("unmount {}", path.display()), other.into()),
    })
}

fn not_mounted(target: &Path) -> Error {
    Error::failed_precondition(format!("nothing is mounted at {}", target.display()))
        .hint("`findmnt` lists what is mounted where")
}

fn not_permitted() -> Error {
    Error::permission_denied("this process may not mount")
        .hint("run it as root, for example with sudo; inside of a container it also needs CAP_SYS_ADMIN")
}

/// Classifies a refusal of the kernel; `words` are what it said about it, if anything.
fn refused(what: &str, errno: Errno, words: &str) -> Error {
    let mut message = what.to_owned();
    if !words.is_empty() {
        message = format!("{message}: {words}");
    }
    let error = match errno {
        Errno::PERM => return not_permitted(),
        Errno::NODEV => {
            return Error::unimplemented(format!("{message}: the kernel does not know this filesystem"))
                .hint("load its module (`modprobe overlay`), or use the native snapshotter");
        }
        Errno::STALE | Errno::BUSY => Error::failed_precondition(message)
            .hint("another mount uses the same upper or work directory; unmount it first"),
        Errno::LOOP => Error::failed_precondition(message).hint("layers overlap: one of them lies inside of another"),
        other => return Error::io(message, other.into()),
    };
    error.source(std::io::Error::from(errno))
}

#[cfg(test)]
mod tests;
