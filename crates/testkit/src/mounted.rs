//! What a list of mounts would show, without mounting it: the directories behind it are read and written directly.
//!
//! Understands a bind mount and an overlay. That suffices to fill and look into snapshots as a plain user; whether the
//! kernel agrees is for the tests of the crate that mounts.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use windlass_core::error::IoResultExt as _;
use windlass_core::snapshot::Mount;
use windlass_core::{Error, Result};

/// The directories behind the mounts of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The directory that takes what is written; none when the mounts are read-only.
    pub writable: Option<PathBuf>,
    /// All directories whose entries are seen, topmost first.
    pub layers: Vec<PathBuf>,
}

impl Mounted {
    /// Interprets mounts.
    ///
    /// # Errors
    /// `Unimplemented` for anything but one bind mount or one overlay.
    pub fn of(mounts: &[Mount]) -> Result<Self> {
        let [mount] = mounts else {
            return Err(Error::unimplemented(format!("{} mounts are not understood, only one is", mounts.len())));
        };
        let flag = |name: &str| mount.options.iter().any(|option| option == name);
        match mount.kind.as_str() {
            "bind" | "rbind" => {
                let source = PathBuf::from(&mount.source);
                Ok(Self { writable: (!flag("ro")).then(|| source.clone()), layers: vec![source] })
            }
            "overlay" => Ok(Self::of_overlay(&mount.options)),
            other => Err(Error::unimplemented(format!("a mount of type {other:?} is not understood"))),
        }
    }

    fn of_overlay(options: &[String]) -> Self {
        let mut mounted = Self { writable: None, layers: Vec::new() };
        for option in options {
            match option.split_once('=') {
                Some(("upperdir", path)) => mounted.writable = Some(unescaped(path)),
                Some(("lowerdir", paths)) => mounted.layers.extend(split_layers(paths)),
                Some(("lowerdir+", path)) => mounted.layers.push(path.into()),
                _ => {}
            }
        }
        if let Some(upper) = &mounted.writable {
            mounted.layers.insert(0, upper.clone());
        }
        mounted
    }

    /// Returns where a path is to be created.
    ///
    /// # Errors
    /// `FailedPrecondition` when the mounts are read-only.
    pub fn writable(&self, path: &str) -> Result<PathBuf> {
        let writable = self.writable.as_ref();
        let writable = writable.ok_or_else(|| Error::failed_precondition("the mounts are read-only"))?;
        Ok(writable.join(path))
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let file = self.writable(path)?;
        let parent = file.parent().unwrap_or(&file);
        std::fs::create_dir_all(parent).attempt(|| format!("create {}", parent.display()))?;
        std::fs::write(&file, bytes).attempt(|| format!("write {}", file.display()))
    }

    /// Finds what is seen at a path; whiteouts and opaque directories hide what is below them.
    pub fn find(&self, path: &str) -> Option<PathBuf> {
        for layer in &self.layers {
            let mut place = layer.clone();
            let mut hides_below = false;
            let mut exists = true;
            for part in Path::new(path) {
                place.push(part);
                let Ok(metadata) = std::fs::symlink_metadata(&place) else {
                    exists = false;
                    break;
                };
                if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                    return None;
                }
                hides_below |= !metadata.is_dir() || is_opaque(&place);
            }
            match (exists, hides_below) {
                (true, _) => return Some(place),
                (false, true) => return None,
                (false, false) => {}
            }
        }
        None
    }

    /// Reads the file that is seen at a path.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let found = self.find(path).ok_or_else(|| Error::not_found(format!("{path} is not in the snapshot")))?;
        std::fs::read(&found).attempt(|| format!("read {}", found.display()))
    }
}

/// Overlayfs, `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 4];
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let length = rustix::fs::lgetxattr(directory, *name, &mut value[..]);
        length.is_ok_and(|length| value.get(..length) == Some(b"y"))
    })
}

/// Splits at the colons that no backslash protects.
fn split_layers(text: &str) -> Vec<PathBuf> {
    let mut layers = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, layers.last_mut()) {
            (':', _) => layers.push(String::new()),
            ('\\', Some(layer)) => layer.extend(chars.next()),
            (c, Some(layer)) => layer.push(c),
            (_, None) => {}
        }
    }
    layers.into_iter().map(PathBuf::from).collect()
}

fn unescaped(text: &str) -> PathBuf {
    text.replace("\\,", ",").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> Mount {
        Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    #[test]
    fn upper_hides_lower_and_escapes_are_undone() {
        let mounted = Mounted::of(&[overlay(&["index=off", "upperdir=/u", "lowerdir=/a\\:b:/c", "lowerdir+=/d:e"])]);
        let paths = ["/u", "/a:b", "/c", "/d:e"].map(PathBuf::from);
        assert_eq!(mounted.unwrap(), Mounted { writable: Some("/u".into()), layers: paths.into() });
    }

    #[test]
    fn a_file_on_the_way_hides_what_is_below() {
        let root = tempfile::tempdir().unwrap();
        let [upper, lower] = ["upper", "lower"].map(|name| root.path().join(name));
        std::fs::create_dir_all(lower.join("a/b")).unwrap();
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::write(upper.join("a"), "").unwrap();
        let mounted = Mounted { writable: None, layers: vec![upper.clone(), lower.clone()] };
        assert_eq!(mounted.find("a"), Some(upper.join("a")));
        assert_eq!(mounted.find("a/b"), None);
        std::fs::remove_file(upper.join("a")).unwrap();
        assert_eq!(mounted.find("a/b"), Some(lower.join("a/b")));
        assert!(mounted.write("x", b"").is_err());
    }
}
