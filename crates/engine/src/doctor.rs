//! Whether this machine can do what an engine asks of it. Nothing is changed: what is tried is undone, or cannot succeed.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::MountFlags;
use windlass_core::checkup::Check;
use windlass_core::room::Size;
use windlass_core::{Error, Kind};
use windlass_snapshot::verity::{self, Verity};
use windlass_snapshot::{mount, overlay};

/// Below this, little more fits than small images, in bytes.
const LITTLE: u64 = 1 << 30;
/// Below this, hardly anything fits, in bytes.
const NOTHING: u64 = 64 << 20;
/// An image of a distribution with its packages has about as many files.
const FEW_INODES: u64 = 50_000;
/// Hardly a layer has fewer.
const NO_INODES: u64 = 1_000;
/// The kernel with mounts that map ids: mount_setattr(2).
const IDMAPPED: (u32, u32) = (5, 12);

/// Looks at the machine for an engine on a root, which need not exist. Blocks.
pub fn machine(root: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    let place = existing(root);
    checks.push(the_root(root, &place));
    checks.extend(room(&place));
    checks.push(overlayfs(&place));
    checks.push(erofs(&place));
    checks.push(idmapped());
    checks.push(fs_verity(&place));
    checks
}

/// Returns the nearest directory that is there.
fn existing(root: &Path) -> PathBuf {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn the_root(root: &Path, place: &Path) -> Check {
    let (root, here) = (root.display(), place.display());
    match rustix::fs::access(place, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) if place.as_os_str() == root.to_string().as_str() => Check::ok("root", format!("{root} can be written")),
        Ok(()) => Check::ok("root", format!("{root} is not there yet, and can be made in {here}")),
        Err(errno) => Check::fail("root", format!("{here} cannot be written: {}", std::io::Error::from(errno)))
            .hint("run as who owns it, or name another directory with --root"),
    }
}

fn room(place: &Path) -> Vec<Check> {
    let free = match crate::room::free(place, place) {
        Ok(free) => free,
        Err(error) => return vec![Check::failed("room", &error)],
    };
    let found = format!("{} are free on {}", Size(free.bytes), free.filesystem);
    let hint = "free some space: `dist gc --plan` says what nothing needs, `dist images prune` deletes images";
    let bytes = match free.bytes {
        0..NOTHING => Check::fail("room", found).hint(hint),
        NOTHING..LITTLE => Check::warn("room", found).hint(hint),
        _ => Check::ok("room", found),
    };
    let inodes = free.inodes.map(|inodes| {
        let found = format!("{inodes} more files fit on {}", free.filesystem);
        let hint = "delete images, or use a filesystem with more inodes, or the erofs snapshotter, which needs few";
        match inodes {
            0..NO_INODES => Check::fail("inodes", found).hint(hint),
            NO_INODES..FEW_INODES => Check::warn("inodes", found).hint(hint),
            _ => Check::ok("inodes", found),
        }
    });
    std::iter::once(bytes).chain(inodes).collect()
}

fn overlayfs(place: &Path) -> Check {
    match overlay::Overlay::supported(place) {
        Ok(()) => Check::ok("overlayfs", format!("overlays can be made in {}", place.display())),
        Err(error) => optional("overlayfs", &error),
    }
}

/// Something that not every use needs: another snapshotter does without.
fn optional(about: &str, error: &Error) -> Check {
    if error.is(Kind::PermissionDenied) {
        return Check::warn(about, format!("nobody but root can tell: {error}")).hint("run it as root");
    }
    let hint = error.hint_text().unwrap_or("another snapshotter does without");
    Check::warn(about, error.to_string()).hint(hint)
}

/// What a kernel says that is to mount a file without an image in it tells what it could do with one.
fn erofs(place: &Path) -> Check {
    if let Err(error) = mount::privileged() {
        return optional("erofs", &error);
    }
    match rustix::mount::mount("/proc/self/exe", place, "erofs", MountFlags::RDONLY, c"") {
        Err(Errno::NODEV) => Check::warn("erofs", "the kernel does not know EROFS")
            .hint("`modprobe erofs`, or use the overlayfs snapshotter"),
        Err(Errno::NOTBLK) => {
            Check::warn("erofs", "EROFS images are mounted by loop devices: the kernel cannot mount files")
                .hint("Linux 6.12 can; loop devices work as well, and take a little more memory")
        }
        Err(Errno::PERM | Errno::ACCESS) => {
            Check::warn("erofs", "this process may not mount").hint("run it as root, outside of a container")
        }
        // It has looked into the file, and has not found an image.
        Ok(()) | Err(_) => Check::ok("erofs", "EROFS images are mounted from their files"),
    }
}

fn idmapped() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= IDMAPPED => {
            Check::ok("idmapped mounts", format!("Linux {release} has them"))
        }
        _ => Check::warn("idmapped mounts", format!("Linux {release} has none"))
            .hint("Linux 5.12 is the first; without them files of containers with other ids have to be copied"),
    }
}

fn fs_verity(place: &Path) -> Check {
    match verity::supported(place) {
        Ok(Verity::Supported) => Check::ok("fs-verity", format!("files in {} can be sealed", place.display())),
        Ok(Verity::SwitchedOff) => {
            Check::warn("fs-verity", format!("the filesystem of {} has it switched off", place.display()))
                .hint("on ext4: `tune2fs -O verity DEVICE`; nothing here needs it yet")
        }
        Ok(Verity::Unknown) => {
            Check::warn("fs-verity", format!("neither the kernel nor the filesystem of {} has it", place.display()))
                .hint("ext4, f2fs and btrfs have it; nothing here needs it yet")
        }
        Err(error) => optional("fs-verity", &error),
    }
}
