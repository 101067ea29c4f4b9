//! Where a layer goes: decided from a snapshot's mounts, without touching anything.

use std::path::PathBuf;

use windlass_core::diff::Whiteouts;
use windlass_core::snapshot::Mount;
use windlass_core::{Error, Result};

/// The directory that a layer is extracted into, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The directory.
    pub root: PathBuf,
    /// How deletions are written down in it.
    pub style: Style,
    /// What is below the layer.
    pub below: Below,
}

/// How deletions are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// What is deleted is removed.
    Remove,
    /// As overlayfs wants it: a character device 0/0, and `trusted.overlay.opaque` on directories.
    Overlay,
    /// The same for an overlay mounted with `userxattr`, whose attributes are `user.overlay.*`.
    UserOverlay,
}

impl Style {
    /// Returns the attribute that hides what is below a directory.
    pub fn opaque(self) -> Option<&'static str> {
        match self {
            Self::Remove => None,
            Self::Overlay => Some("trusted.overlay.opaque"),
            Self::UserOverlay => Some("user.overlay.opaque"),
        }
    }
}

/// What is below a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Below {
    /// Whatever is in the directory already.
    InPlace,
    /// These directories, topmost first, which an overlay puts under it.
    Lower(Vec<PathBuf>),
    /// Something that the directory is put onto later.
    Unknown,
}

impl Target {
    /// Decides for the mounts of an active snapshot.
    ///
    /// # Errors
    /// `FailedPrecondition` for anything but one writable bind or overlay mount.
    pub fn of(mounts: &[Mount], whiteouts: Whiteouts) -> Result<Self> {
        let [mount] = mounts else {
            return Err(Error::failed_precondition(format!("a layer cannot be applied to {} mounts", mounts.len()))
                .hint("use a snapshotter whose snapshots are one mount, such as overlayfs or native"));
        };
        let option = |name: &str| mount.options.iter().find_map(|o| o.strip_prefix(name)?.strip_prefix('='));
        let flag = |name: &str| mount.options.iter().any(|option| option == name);
        let refused = |why: &str| {
            Error::failed_precondition(format!("a layer cannot be applied to a mount of type {:?}: {why}", mount.kind))
        };
        if flag("ro") {
            return Err(refused("it is read-only").hint("prepare an active snapshot; a view cannot be written to"));
        }
        match mount.kind.as_str() {
            "bind" | "rbind" => {
                let (style, below) = match whiteouts {
                    Whiteouts::AsMounted => (Style::Remove, Below::InPlace),
                    Whiteouts::Overlay => (Style::Overlay, Below::Unknown),
                };
                Ok(Self { root: PathBuf::from(&mount.source), style, below })
            }
            "overlay" => {
                let Some(upper) = option("upperdir") else {
                    return Err(refused("it has no upper directory")
                        .hint("prepare an active snapshot; a view cannot be written to"));
                };
                let style = if flag("userxattr") { Style::UserOverlay } else { Style::Overlay };
                // Clients that put a layer onto its parent later name its directory so, as containerd's does: nobody mounts that.
                let lower = lower_directories(mount);
                let below = if lower.is_empty() { Below::Unknown } else { Below::Lower(lower) };
                Ok(Self { root: PathBuf::from(upper), style, below })
            }
            _ => Err(refused("only bind and overlay mounts are known")
                .hint("use a snapshotter whose snapshots are bind or overlay mounts")),
        }
    }
}

/// Reads the options for lower directories, topmost first: `lowerdir=a:b` and, one by one, `lowerdir+=a`.
///
/// Kernel documentation, `filesystems/overlayfs.rst`: a colon in a name has a backslash before it; what comes after a double
/// colon only holds data of files above.
pub(crate) fn lower_directories(mount: &Mount) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for option in &mount.options {
        if let Some(one) = option.strip_prefix("lowerdir+=") {
            paths.push(PathBuf::from(one));
        } else if let Some(list) = option.strip_prefix("lowerdir=") {
            let mut path = String::new();
            let mut characters = list.chars();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => path.extend(characters.next()),
                    ':' if path.is_empty() => break,
                    ':' => paths.push(PathBuf::from(std::mem::take(&mut path))),
                    _ => path.push(character),
                }
            }
            if !path.is_empty() {
                paths.push(PathBuf::from(path));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(ToString::to_string).collect();
        Mount { kind: kind.into(), source: source.into(), target: String::new(), options }
    }

    fn target(root: &str, style: Style, below: Below) -> Target {
        Target { root: root.into(), style, below }
    }

    #[test]
    fn the_directory_and_the_style_follow_from_the_mount() {
        let bind = [mount("bind", "/s/1/fs", &["rw", "rbind"])];
        let overlay =
            [mount("overlay", "overlay", &["workdir=/w", "upperdir=/u", r"lowerdir=/a\:1:/b:/c", "index=off"])];
        let lower = ["/a:1", "/b", "/c"].map(PathBuf::from).to_vec();
        assert_eq!(Target::of(&bind, Whiteouts::AsMounted).unwrap(), target("/s/1/fs", Style::Remove, Below::InPlace));
        assert_eq!(Target::of(&bind, Whiteouts::Overlay).unwrap(), target("/s/1/fs", Style::Overlay, Below::Unknown));
        for whiteouts in [Whiteouts::AsMounted, Whiteouts::Overlay] {
            assert_eq!(
                Target::of(&overlay, whiteouts).unwrap(),
                target("/u", Style::Overlay, Below::Lower(lower.clone()))
            );
        }
        let alone = [mount("overlay", "overlay", &["rw", "upperdir=/u"])];
        assert_eq!(
            Target::of(&alone, Whiteouts::AsMounted).unwrap(),
            target("/u", Style::Overlay, Below::Unknown),
            "it is put onto its parent later"
        );
        let new = [mount("overlay", "overlay", &["upperdir=/u", "lowerdir+=/a", "lowerdir+=/b", "userxattr"])];
        assert_eq!(
            Target::of(&new, Whiteouts::AsMounted).unwrap(),
            target("/u", Style::UserOverlay, Below::Lower(vec!["/a".into(), "/b".into()]))
        );
        assert_eq!(lower_directories(&mount("overlay", "", &["lowerdir=/a:/b::/data"])).len(), 2);
    }

    #[test]
    fn mounts_that_cannot_be_written_to_are_refused() {
        for mounts in [
            vec![],
            vec![mount("bind", "/a", &["rw"]), mount("bind", "/b", &["rw"])],
            vec![mount("bind", "/a", &["ro", "rbind"])],
            vec![mount("overlay", "overlay", &["lowerdir=/a:/b"])],
            vec![mount("ext4", "/dev/vda", &["rw"])],
            vec![mount("erofs", "/a", &["loop"])],
        ] {
            let error = Target::of(&mounts, Whiteouts::AsMounted).unwrap_err();
            assert_eq!(error.kind(), windlass_core::Kind::FailedPrecondition, "{mounts:?}");
        }
    }
}
