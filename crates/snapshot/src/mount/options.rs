//! The options of a mount, taken apart: flags of the mount, and what the filesystem itself is told.

use std::path::PathBuf;

use rustix::mount::{MountAttrFlags, MountFlags};
use windlass_core::error::{Error, Result};

/// Options of any mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Those that mount(2) has as flags.
    pub(super) flags: MountFlags,
    /// Whether it is a bind mount.
    pub(super) bind: bool,
    /// Whether it takes along what is mounted below its source.
    pub(super) recursive: bool,
    /// The rest, for the filesystem.
    pub(super) data: Vec<String>,
}

impl Options {
    /// Sorts options by what they are; of two that exclude each other the later one counts. mount(8), section
    /// "Filesystem-independent mount options".
    pub(super) fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self { flags: MountFlags::empty(), bind: false, recursive: false, data: Vec::new() };
        for option in options {
            match option.as_str() {
                "" | "defaults" => {}
                "bind" => parsed.bind = true,
                "rbind" => (parsed.bind, parsed.recursive) = (true, true),
                "remount" => {
                    return Err(Error::invalid_argument(
                        "option remount changes a mount, and a snapshot's mount is a new one",
                    ));
                }
                text => match flag(text) {
                    Some((flag, on)) => parsed.flags.set(flag, on),
                    None => parsed.data.push(text.to_owned()),
                },
            }
        }
        Ok(parsed)
    }

    /// Leaves out an option that is not for the filesystem, given as `name=value`.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.data.retain(|option| option.split_once('=').is_none_or(|(key, _)| key != name));
        self
    }

    /// Returns the flags as the newer calls want them.
    pub(super) fn attributes(&self) -> MountAttrFlags {
        const SAME: [(MountFlags, MountAttrFlags); 8] = [
            (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
            (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
            (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            (MountFlags::STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
            (MountFlags::NOSYMFOLLOW, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
        ];
        SAME.iter().filter(|(flag, _)| self.flags.contains(*flag)).map(|(_, attribute)| *attribute).collect()
    }
}

/// Returns the flag of an option, and whether the option sets or clears it.
fn flag(option: &str) -> Option<(MountFlags, bool)> {
    Some(match option {
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "norelatime" => (MountFlags::RELATIME, false),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "nostrictatime" => (MountFlags::STRICTATIME, false),
        "nosymfollow" => (MountFlags::NOSYMFOLLOW, true),
        "symfollow" => (MountFlags::NOSYMFOLLOW, false),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        "dirsync" => (MountFlags::DIRSYNC, true),
        _ => return None,
    })
}

/// What overlayfs is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    /// The lower layers, the topmost first.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) upper: Option<PathBuf>,
    pub(super) work: Option<PathBuf>,
    /// Everything else: `key` or `key=value`.
    pub(super) others: Vec<String>,
}

impl Overlay {
    pub(super) fn parse(options: &Options) -> Result<Self> {
        let mut overlay = Self::default();
        for option in &options.data {
            match option.split_once('=') {
                Some(("lowerdir", layers)) => overlay.lowers.extend(split_layers(layers)?),
                Some(("lowerdir+", layer)) => overlay.lowers.push(layer.into()),
                Some(("upperdir", path)) => overlay.upper = Some(path.into()),
                Some(("workdir", path)) => overlay.work = Some(path.into()),
                _ => overlay.others.push(option.clone()),
            }
        }
        if overlay.lowers.is_empty() {
            return Err(Error::invalid_argument("the overlay has no lowerdir"));
        }
        Ok(overlay)
    }
}

/// Splits a list of layers at its colons; a backslash takes the meaning from the character behind it. Kernel
/// documentation, `filesystems/overlayfs.rst`, "Multiple lower layers".
pub(super) fn split_layers(text: &str) -> Result<Vec<PathBuf>> {
    let mut layers = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, layers.last_mut()) {
            (':', _) => layers.push(String::new()),
            ('\\', Some(layer)) => layer.extend(characters.next()),
            (other, Some(layer)) => layer.push(other),
            (_, None) => {}
        }
    }
    if layers.iter().any(String::is_empty) {
        return Err(Error::invalid_argument(format!("lowerdir {text:?} has an empty layer"))
            .hint("data-only layers (a double colon) are not supported"));
    }
    Ok(layers.into_iter().map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(texts: &[&str]) -> Options {
        Options::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn flags_are_told_from_data_and_the_later_one_counts() {
        let parsed = options(&["rw", "nosuid", "ro", "rbind", "size=1m", "suid"]);
        assert_eq!(parsed.flags, MountFlags::RDONLY);
        assert_eq!((parsed.bind, parsed.recursive), (true, true));
        assert_eq!(parsed.data, ["size=1m"]);
        assert_eq!(parsed.attributes(), MountAttrFlags::MOUNT_ATTR_RDONLY);
        assert!(Options::parse(&["remount".to_owned()]).is_err());
    }

    #[test]
    fn layers_are_split_at_colons_that_are_not_escaped() {
        let paths =
            |text| split_layers(text).map(|layers| layers.iter().map(|p| p.display().to_string()).collect::<Vec<_>>());
        assert_eq!(paths("/a").unwrap(), ["/a"]);
        assert_eq!(paths("/a:/b").unwrap(), ["/a", "/b"]);
        assert_eq!(paths(r"/a\:b:/c\\d").unwrap(), ["/a:b", r"/c\d"]);
        for wrong in ["", "/a::/b", ":/a", "/a:"] {
            assert!(paths(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_overlay_needs_a_lower_layer() {
        let parsed =
            Overlay::parse(&options(&["workdir=/w", "upperdir=/u", "lowerdir=/b:/a", "index=off", "userxattr"]))
                .unwrap();
        assert_eq!(parsed.lowers, [PathBuf::from("/b"), PathBuf::from("/a")]);
        assert_eq!((parsed.upper, parsed.work), (Some("/u".into()), Some("/w".into())));
        assert_eq!(parsed.others, ["index=off", "userxattr"]);
        assert!(Overlay::parse(&options(&["upperdir=/u"])).is_err());
    }
}
