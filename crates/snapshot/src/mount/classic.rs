//! mount(2), for kernels without the newer calls and for every filesystem but overlays.

use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use rustix::mount::MountFlags;
use windlass_core::error::{Error, IoResultExt as _, Result};

use super::options::{Options, Overlay};
use super::{refused, sys};

/// How many characters of the options a message shows.
const MAX_SHOWN: usize = 256;

/// Mounts any filesystem.
pub(super) fn mount(kind: &str, source: &str, target: &Path, flags: MountFlags, data: &str) -> Result<()> {
    let shown: String = data.chars().take(MAX_SHOWN).collect();
    let data = CString::new(data).map_err(|_| Error::invalid_argument("a mount option has a NUL byte"))?;
    rustix::mount::mount(source, target, kind, flags, data.as_c_str()).map_err(|errno| {
        refused(&format!("mount {source} with options {shown:?}"), errno, "")
            .hint("`dmesg` may have the kernel's reason")
    })
}

/// Mounts an overlay. The kernel takes a page of options: when the layers need more, they are given relative to the
/// directory that all of them share.
pub(super) fn mount_overlay(source: &str, overlay: &Overlay, options: &Options, target: &Path) -> Result<()> {
    let limit = rustix::param::page_size() - 1;
    let absolute = data(overlay, &overlay.lowers)?;
    if absolute.len() <= limit {
        return mount("overlay", source, target, options.flags, &absolute);
    }
    let (base, relative) = relative(&overlay.lowers);
    let shorter = data(overlay, &relative)?;
    if shorter.len() > limit {
        return Err(Error::failed_precondition(format!(
            "{} layers make {} bytes of mount options, and this kernel takes {limit}",
            overlay.lowers.len(),
            shorter.len()
        ))
        .hint("Linux 6.7 and newer have no such limit; or use the native snapshotter"));
    }
    // The working directory belongs to the process; only a thread of its own can have another.
    let mounting = || {
        sys::own_working_directory().attempt(|| "take a working directory for one thread".to_owned())?;
        rustix::process::chdir(&base).attempt(|| format!("go to {}", base.display()))?;
        mount("overlay", source, target, options.flags, &shorter)
    };
    std::thread::scope(|scope| scope.spawn(mounting).join())
        .unwrap_or_else(|_| Err(Error::internal("the thread that mounts panicked")))
}

/// Writes the options of an overlay, with the characters escaped that have a meaning in them.
fn data(overlay: &Overlay, lowers: &[PathBuf]) -> Result<String> {
    let text = |path: &Path, special: &[char]| -> Result<String> {
        let text =
            path.to_str().ok_or_else(|| Error::invalid_argument(format!("layer {} is not UTF-8", path.display())))?;
        let escape = |c: char| [special.contains(&c).then_some('\\'), Some(c)];
        Ok(text.chars().flat_map(escape).flatten().collect())
    };
    let mut options = overlay.others.clone();
    for (key, path) in [("workdir", &overlay.work), ("upperdir", &overlay.upper)] {
        if let Some(path) = path {
            options.push(format!("{key}={}", text(path, &[',', '\\'])?));
        }
    }
    let lowers: Vec<String> = lowers.iter().map(|lower| text(lower, &[',', ':', '\\'])).collect::<Result<_>>()?;
    options.push(format!("lowerdir={}", lowers.join(":")));
    Ok(options.join(","))
}

/// Returns the deepest directory that all paths share, and the paths relative to it. The paths are absolute.
fn relative(paths: &[PathBuf]) -> (PathBuf, Vec<PathBuf>) {
    let parents = paths.iter().filter_map(|path| path.parent());
    let base = parents.fold(None::<PathBuf>, |base, parent| match base {
        None => Some(parent.to_owned()),
        Some(base) => Some(shared(&base, parent)),
    });
    let base = base.unwrap_or_else(|| PathBuf::from("/"));
    let relative = paths.iter().map(|path| path.strip_prefix(&base).unwrap_or(path).to_owned()).collect();
    (base, relative)
}

fn shared(one: &Path, other: &Path) -> PathBuf {
    let pairs = one.components().zip(other.components());
    pairs.take_while(|(a, b)| a == b).map(|(component, _): (Component<'_>, _)| component).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_made_relative_to_what_they_share() {
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(relative(&paths(&["/r/s/1/fs", "/r/s/22/fs"])), ("/r/s".into(), paths(&["1/fs", "22/fs"])));
        assert_eq!(relative(&paths(&["/r/s/1/fs"])), ("/r/s/1".into(), paths(&["fs"])));
        assert_eq!(relative(&paths(&["/a/1", "/b/1"])), ("/".into(), paths(&["a/1", "b/1"])));
        assert_eq!(relative(&paths(&["/a/10", "/a/1"])), ("/a".into(), paths(&["10", "1"])));
        assert_eq!(relative(&paths(&["/r/1", "/r/1/x"])), ("/r".into(), paths(&["1", "1/x"])));
    }

    #[test]
    fn characters_with_a_meaning_are_escaped() {
        let overlay = Overlay {
            lowers: vec![r"/a:b,c\d".into()],
            upper: Some("/u:v,w".into()),
            work: Some("/w".into()),
            others: vec!["index=off".into()],
        };
        let text = data(&overlay, &overlay.lowers).unwrap();
        assert_eq!(text, r"index=off,workdir=/w,upperdir=/u:v\,w,lowerdir=/a\:b\,c\\d");
    }
}
