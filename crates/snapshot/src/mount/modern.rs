//! Overlays by fsopen(2): every layer is handed over as an open directory, so that neither the number of layers nor the
//! characters of a path matter, and a refusal comes with the kernel's words.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MoveMountFlags};
use windlass_core::error::{IoResultExt as _, Result};

use super::options::{Options, Overlay};
use super::refused;

/// The longest value that can be set as a string, in bytes. `fs/fsopen.c`: `strndup_user(_value, 256)`.
const MAX_STRING: usize = 255;

/// How this kernel takes the layers of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    /// As open directories (Linux 6.13).
    Directories,
    /// One by one, as text (Linux 6.7).
    Texts,
    /// All of them in one text of limited length: mount(2) can do more.
    No,
}

/// Mounts an overlay on a directory; `false` when the kernel or a path leaves that to mount(2).
pub(super) fn mount_overlay(
    source: &str,
    overlay: &Overlay,
    options: &Options,
    target: BorrowedFd<'_>,
) -> Result<bool> {
    mount_overlay_as(support(), source, overlay, options, target)
}

fn mount_overlay_as(
    support: Support,
    source: &str,
    overlay: &Overlay,
    options: &Options,
    target: BorrowedFd<'_>,
) -> Result<bool> {
    let Some(made) = make_overlay_as(support, source, overlay, options)? else { return Ok(false) };
    attach(made.as_fd(), target)?;
    Ok(true)
}

/// Makes an overlay that is nowhere yet; nothing when the kernel or a path leaves that to mount(2).
pub(super) fn make_overlay(source: &str, overlay: &Overlay, options: &Options) -> Result<Option<OwnedFd>> {
    make_overlay_as(support(), source, overlay, options)
}

fn make_overlay_as(support: Support, source: &str, overlay: &Overlay, options: &Options) -> Result<Option<OwnedFd>> {
    let layers = || overlay.lowers.iter().chain(&overlay.upper).chain(&overlay.work);
    let too_long = |path: &Path| path.as_os_str().len() > MAX_STRING;
    if support == Support::No || (support == Support::Texts && layers().any(|path| too_long(path))) {
        return Ok(None);
    }
    let context = open_context()?;
    configure(context.as_fd(), source, overlay, support)?;
    rustix::mount::fsconfig_create(context.as_fd())
        .map_err(|errno| explain(context.as_fd(), "create the overlay", errno))?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, options.attributes())
        .map(Some)
        .map_err(|errno| explain(context.as_fd(), "mount the overlay", errno))
}

/// Makes a mount that is nowhere yet visible on a directory.
pub(super) fn attach(mounted: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mounted, c"", target, c"", flags).map_err(|errno| refused("attach the mount", errno, ""))
}

fn open_context() -> Result<OwnedFd> {
    rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| refused("open overlayfs", errno, ""))
}

fn configure(context: BorrowedFd<'_>, source: &str, overlay: &Overlay, support: Support) -> Result<()> {
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(context, key, value)
            .map_err(|errno| explain(context, &format!("set option {key}={value}"), errno))
    };
    let set_layer = |key: &str, path: &Path| {
        let result = if support == Support::Directories {
            let layer = open_layer(path)?;
            rustix::mount::fsconfig_set_fd(context, key, &layer)
        } else {
            rustix::mount::fsconfig_set_string(context, key, path)
        };
        result.map_err(|errno| explain(context, &format!("set {key} to {}", path.display()), errno))
    };
    set("source", source)?;
    for lower in &overlay.lowers {
        set_layer("lowerdir+", lower)?;
    }
    for (key, path) in [("upperdir", &overlay.upper), ("workdir", &overlay.work)] {
        path.as_deref().map_or(Ok(()), |path| set_layer(key, path))?;
    }
    for option in &overlay.others {
        match option.split_once('=') {
            Some((key, value)) => set(key, value)?,
            None => rustix::mount::fsconfig_set_flag(context, option.as_str())
                .map_err(|errno| explain(context, &format!("set option {option}"), errno))?,
        }
    }
    Ok(())
}

fn open_layer(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).attempt(|| format!("open layer {}", path.display()))
}

/// Finds out once what the kernel supports.
fn support() -> Support {
    static SUPPORT: OnceLock<Support> = OnceLock::new();
    if let Some(support) = SUPPORT.get() {
        return *support;
    }
    let Some(support) = probe() else { return Support::No };
    *SUPPORT.get_or_init(|| support)
}

/// `None` when nothing can be learned now: overlayfs may be a module that is not loaded yet, or the process may lack the
/// rights to ask.
fn probe() -> Option<Support> {
    let context = match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::NOSYS) => return Some(Support::No),
        opened => opened.ok()?,
    };
    // Before Linux 6.5 overlayfs lets every option pass at first, and would refuse this one only in the end.
    if rustix::mount::fsconfig_set_flag(&context, "windlass-asks-for-no-such-option").is_ok() {
        return Some(Support::No);
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if rustix::mount::fsconfig_set_fd(&context, "lowerdir+", &root).is_ok() {
        return Some(Support::Directories);
    }
    Some(match rustix::mount::fsconfig_set_string(&context, "lowerdir+", "/") {
        Ok(()) => Support::Texts,
        Err(_) => Support::No,
    })
}

/// Makes an error of what the kernel wrote into the log of the context: lines that begin with `e`, `w` or `i` and a space,
/// one a read. Kernel documentation, `filesystems/mount_api.rst`.
fn explain(context: BorrowedFd<'_>, what: &str, errno: Errno) -> windlass_core::Error {
    let mut words = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim_end().to_owned();
        let line = ["e ", "w "].iter().find_map(|level| line.strip_prefix(level)).map(str::to_owned);
        words.extend(line.filter(|line| !line.is_empty()));
        if length == 0 {
            break;
        }
    }
    refused(what, errno, &words.join("; "))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::mount::{mounted_at, unmount};

    #[test]
    fn layers_are_taken_as_text_too_unless_they_are_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["one", "two:colon", "upper", "work", "merged"] {
            fs::create_dir(path(name)).unwrap();
        }
        let mut overlay = Overlay {
            lowers: vec![path("two:colon"), path("one")],
            upper: Some(path("upper")),
            work: Some(path("work")),
            others: Vec::new(),
        };
        let options = Options::parse(&["nodev".to_owned()]).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::open(path("merged"), flags, Mode::empty()).unwrap();
        assert!(mount_overlay_as(Support::Texts, "overlay", &overlay, &options, open().as_fd()).unwrap());
        let mounted = mounted_at(&path("merged")).unwrap().unwrap();
        assert_eq!(mounted.layers().unwrap().lowers, overlay.lowers);
        assert!(mounted.options.iter().any(|option| option == "nodev"));
        unmount(&path("merged")).unwrap();

        overlay.lowers.push(PathBuf::from("/x".repeat(128)));
        assert!(!mount_overlay_as(Support::Texts, "overlay", &overlay, &options, open().as_fd()).unwrap());
        assert!(!mount_overlay_as(Support::No, "overlay", &overlay, &options, open().as_fd()).unwrap());
    }
}
