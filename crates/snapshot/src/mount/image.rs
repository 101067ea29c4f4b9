//! EROFS images: a file of the filesystem that they lie on is mounted (Linux 6.12), or a loop device over it.
//!
//! An image that is a layer of an overlay is mounted where nobody sees it: in a mount namespace of a thread that ends as soon
//! as the overlay is made, which keeps its layers. So there is one mount to see and to unmount, whatever the number of layers,
//! and none is left behind by a crash.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags};
use windlass_core::error::{Error, IoResultExt as _, Result, ResultExt as _};
use windlass_core::snapshot::Mount;

use super::loopback::Loop;
use super::options::{self, Options};
use super::{Calls, canonical, classic, modern, out_of_sight, refused};

/// Mounts an image on a directory.
pub(super) fn mount(source: &Path, options: &Options, target: &Path) -> Result<()> {
    mount_by(Way::File, source, options, target)
}

/// How the kernel gets at the bytes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the file, or by a loop device where the kernel cannot.
    File,
    /// By a loop device.
    #[cfg_attr(not(test), expect(dead_code, reason = "what an old kernel leads to, forced by tests"))]
    Loop,
}

fn mount_by(way: Way, source: &Path, options: &Options, target: &Path) -> Result<()> {
    let flags = options.flags | MountFlags::RDONLY;
    if way == Way::File {
        let data = std::ffi::CString::new(options.data.join(","))
            .map_err(|_| Error::invalid_argument("a mount option has a NUL byte"))?;
        match rustix::mount::mount(source, target, "erofs", flags, data.as_c_str()) {
            Ok(()) => return Ok(()),
            // What a kernel says that wants a block device.
            Err(Errno::NOTBLK) => {}
            Err(Errno::NODEV) => return Err(unknown()),
            Err(errno) => {
                return Err(refused(&format!("mount the image {}", source.display()), errno, "")
                    .hint("`dmesg` may have the kernel's reason"));
            }
        }
    }
    // The mount keeps the devices, and they go with it.
    let device = Loop::attach(source)?;
    let mut loops = Vec::new();
    let mut data = Vec::new();
    for option in &options.data {
        let Some(path) = option.strip_prefix("device=") else {
            data.push(option.clone());
            continue;
        };
        let device = Loop::attach(Path::new(path))?;
        data.push(format!("device={}", device.path().display()));
        loops.push(device);
    }
    classic::mount("erofs", &device.path().to_string_lossy(), target, flags, &data.join(","))
}

fn unknown() -> Error {
    Error::unimplemented("the kernel does not know EROFS")
        .hint("load its module (`modprobe erofs`), or use the overlayfs snapshotter")
}

/// Mounts an overlay some of whose layers are images, which are seen where the overlay names them while it is made.
pub(super) fn mount_overlay(calls: Calls, lowers: &[Mount], overlay: &Mount, target: &Path) -> Result<()> {
    let options = Options::parse(&overlay.options)?;
    let parsed = options::Overlay::parse(&options)?;
    let (directory, path) = super::place(overlay, target)?;
    let made = out_of_sight(|| {
        for lower in lowers {
            let (image, at) = (Path::new(&lower.source), place(lower)?);
            let options = Options::parse(&lower.options)?.without("at");
            mount(image, &options, &at).context(|| format!("mount layer {} at {}", image.display(), at.display()))?;
        }
        super::check(&parsed)?;
        if calls == Calls::Modern
            && let Some(made) = modern::make_overlay(&overlay.source, &parsed, &options)?
        {
            return Ok(made);
        }
        classic::mount_overlay(&overlay.source, &parsed, &options, &path)?;
        take(&path)
    })?;
    modern::attach(made.as_fd(), directory.as_fd())
}

/// Takes what is mounted on a directory along, out of this mount namespace.
pub(super) fn take(path: &Path) -> Result<OwnedFd> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = clone | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).attempt(|| format!("copy the mount of {}", path.display()))
}

/// Returns where an overlay wants to see a layer.
fn place(lower: &Mount) -> Result<PathBuf> {
    let at = lower.options.iter().find_map(|option| option.strip_prefix("at="));
    let at = at.ok_or_else(|| Error::invalid_argument(format!("the layer {} has no place", lower.source)))?;
    canonical(Path::new(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erofs::sample;
    use crate::mount::{MountedAt, mounted_at, unmount};

    #[test]
    fn an_image_is_mounted_from_its_file_and_by_a_loop_device() {
        for way in [Way::File, Way::Loop] {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("mnt");
            std::fs::create_dir(&target).unwrap();
            let (image, data) = sample::make(directory.path(), &[("file", b"content")], &[]).unwrap();
            let options = Options::parse(&[format!("device={}", data.display())]).unwrap();
            mount_by(way, &image, &options, &target).unwrap();
            let read = std::fs::read_to_string(target.join("file"));
            let mounted = mounted_at(&target).unwrap();
            let shown = mounted.as_ref().and_then(MountedAt::image);
            unmount(&target).unwrap();
            assert_eq!(read.unwrap(), "content", "{way:?}");
            assert_eq!(shown, Some(image), "{way:?}: {mounted:?}");
        }
    }
}
