//! Whether overlays can be made in a directory, found out by making one with a whiteout and an opaque directory in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;
use windlass_core::error::{Error, IoResultExt as _, Kind, Result};
use windlass_core::snapshot::Mount;

use super::features;
use crate::mount::{self, Temporary};
use crate::tree;

pub(super) fn probe(directory: &Path) -> Result<()> {
    mount::privileged()?;
    let directory = std::path::absolute(directory).attempt(|| format!("find {}", directory.display()))?;
    let existing = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let scratch = Scratch::new(existing)?;
    mount::out_of_sight(|| attempt(&scratch.0)).map_err(|error| {
        if matches!(error.kind(), Kind::PermissionDenied | Kind::Unimplemented | Kind::ResourceExhausted) {
            return error;
        }
        Error::failed_precondition(format!("overlays cannot be made in {}{}", existing.display(), filesystem(existing)))
            .source(error)
            .hint("put the root on another filesystem, such as ext4 or XFS, or use the native snapshotter")
    })
}

fn attempt(scratch: &Path) -> Result<()> {
    let [lower, bottom, upper, work] = ["lower", "bottom", "upper", "work"].map(|name| scratch.join(name));
    for path in [&lower, &bottom, &upper, &work, &lower.join("opaque"), &upper.join("opaque")] {
        tree::make(path, 0o755)?;
    }
    for path in [lower.join("gone"), lower.join("stays"), lower.join("opaque/below")] {
        fs::write(&path, "").attempt(|| format!("write {}", path.display()))?;
    }
    let (whiteout, opaque) = (upper.join("gone"), upper.join("opaque"));
    rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(|errno| cannot("make a whiteout", errno))?;
    let mut options = features::mount_options()?;
    let attribute = if options.iter().any(|option| option == "userxattr") { "user" } else { "trusted" };
    rustix::fs::setxattr(&opaque, format!("{attribute}.overlay.opaque"), b"y", XattrFlags::empty())
        .map_err(|errno| cannot("mark a directory as opaque", errno))?;
    options.push(format!("workdir={}", work.display()));
    options.push(format!("upperdir={}", upper.display()));
    options.push(format!("lowerdir={}:{}", lower.display(), bottom.display()));
    let overlay = Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options };
    let mounted = Temporary::mount(&[overlay], scratch)?;
    let merged = mounted.path();
    let right = merged.join("stays").exists()
        && !merged.join("gone").exists()
        && !merged.join("opaque/below").exists()
        && types_are_listed(&upper)?
        && fs::write(merged.join("new"), "").is_ok();
    mounted.close()?;
    if right { Ok(()) } else { Err(Error::failed_precondition("an overlay can be mounted, and shows the wrong files")) }
}

fn cannot(what: &str, errno: Errno) -> Error {
    Error::failed_precondition(format!("the filesystem does not let one {what}")).source(io::Error::from(errno))
}

/// Overlayfs needs to see whiteouts in a listing; XFS made with `ftype=0` does not say the types of files there.
fn types_are_listed(directory: &Path) -> Result<bool> {
    let mut walk = tree::Walk::open(directory)?;
    walk.types_are_listed()
}

/// Names the filesystem, for those that are known not to carry an upper directory. Magic numbers: `linux/magic.h`, and
/// the filesystems' own headers.
fn filesystem(path: &Path) -> &'static str {
    match rustix::fs::statfs(path).map(|stat| u64::try_from(stat.f_type).unwrap_or_default()) {
        Ok(0x794c_7630) => ", which is itself on an overlay",
        Ok(0x6969) => ", which is on NFS",
        Ok(0x6573_5546) => ", which is on FUSE",
        Ok(0xff53_4d42 | 0xfe53_4d42) => ", which is on SMB",
        Ok(0x0102_1997) => ", which is on 9p",
        Ok(0x4d44) => ", which is on FAT",
        _ => "",
    }
}

/// A directory for one probe, deleted afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!(".overlay-probe-{}-{number}", std::process::id()));
        tree::make(&path, 0o700)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.0) {
            tracing::warn!(directory = %self.0.display(), %error, "the directory of a probe stays");
        }
    }
}
