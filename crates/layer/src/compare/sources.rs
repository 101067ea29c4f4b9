//! Where trees are read: mounts, as stacks of open directories.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use windlass_core::snapshot::{EROFS_LAYER, EROFS_LOWER, Mount};
use windlass_core::{Error, Result};

use super::stack::{Layer, Stack, Trees};
use crate::extract::os_error;
use crate::target::{Style, lower_directories};

/// Shows what mounts make, where nobody else sees it.
pub trait Mounter: Send + Sync {
    /// Carries mounts out and returns the directory. What is mounted is gone when that is closed.
    ///
    /// # Errors
    /// `PermissionDenied` without the rights to mount; those of the kernel.
    fn open(&self, mounts: &[Mount]) -> Result<OwnedFd>;
}

/// How overlays are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// As the directories that they are made of.
    Layers,
    /// As the kernel shows them.
    AsMounted,
}

/// What a tree is made of: what has the same source is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A directory.
    Directory(PathBuf),
    /// A filesystem of its own.
    Mounted(Vec<Mount>),
}

/// Opens two trees; what both are made of is opened once.
pub(super) fn open(lower: &[Mount], upper: &[Mount], reading: Reading, mounter: &dyn Mounter) -> Result<Trees> {
    let style = style(reading, lower.iter().chain(upper));
    let mut opened = Vec::new();
    let lower = stack(sources(lower, reading)?, style, &mut opened, mounter)?;
    let upper = stack(sources(upper, reading)?, style, &mut opened, mounter)?;
    Ok(Trees { lower, upper })
}

/// Opens what a tree is made of, unless it is open.
fn stack(
    sources: Vec<Source>,
    style: Style,
    opened: &mut Vec<(Source, Arc<Layer>)>,
    mounter: &dyn Mounter,
) -> Result<Stack> {
    let mut layers = Vec::with_capacity(sources.len());
    for source in sources {
        if let Some((_, layer)) = opened.iter().find(|(other, _)| *other == source) {
            layers.push(Arc::clone(layer));
            continue;
        }
        let root = match &source {
            Source::Directory(path) => directory(path)?,
            Source::Mounted(mounts) => mounter.open(mounts)?,
        };
        let layer = Arc::new(Layer { number: opened.len(), root, style });
        layers.push(Arc::clone(&layer));
        opened.push((source, layer));
    }
    Ok(Stack(layers))
}

/// Says how deletions are written down in directories.
fn style<'a>(reading: Reading, mut mounts: impl Iterator<Item = &'a Mount>) -> Style {
    match reading {
        // The kernel has read them.
        Reading::AsMounted => Style::Remove,
        Reading::Layers if mounts.any(|mount| mount.options.iter().any(|option| option == "userxattr")) => {
            Style::UserOverlay
        }
        Reading::Layers => Style::Overlay,
    }
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|e| os_error(e, format!("open {}", path.display())))
}

/// Says what mounts are made of, topmost first.
fn sources(mounts: &[Mount], reading: Reading) -> Result<Vec<Source>> {
    if let Some(mount) = mounts.iter().find(|mount| mount.kind == EROFS_LAYER) {
        return Err(Error::failed_precondition(format!("{} is there to unpack a layer into", mount.source))
            .hint("compare it when it is committed, through a view of it"));
    }
    let whole = || Ok(vec![Source::Mounted(mounts.to_vec())]);
    let Some((last, images)) = mounts.split_last() else { return Ok(Vec::new()) };
    let elsewhere = mounts.iter().any(|mount| !mount.target.is_empty());
    let bind =
        matches!(last.kind.as_str(), "bind" | "rbind") || last.options.iter().any(|it| it == "bind" || it == "rbind");
    if bind && images.is_empty() && !elsewhere {
        return Ok(vec![Source::Directory(PathBuf::from(&last.source))]);
    }
    let understood = last.kind == "overlay" && images.iter().all(|mount| mount.kind == EROFS_LOWER) && !elsewhere;
    let data_only = last.options.iter().any(|option| option.starts_with("lowerdir=") && option.contains("::"));
    if !understood || data_only || reading == Reading::AsMounted {
        return whole();
    }
    let upper = last.options.iter().find_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from);
    let source = |path: PathBuf| match images.iter().find(|image| at(image) == path.to_str()) {
        Some(image) => Source::Mounted(vec![by_itself(image)]),
        None => Source::Directory(path),
    };
    Ok(upper.into_iter().chain(lower_directories(last)).map(source).collect())
}

/// Returns where an overlay wants to see an image.
fn at(image: &Mount) -> Option<&str> {
    image.options.iter().find_map(|option| option.strip_prefix("at="))
}

/// Makes the mount of an image that is a layer one that can be carried out without the overlay.
fn by_itself(image: &Mount) -> Mount {
    let options = image.options.iter().filter(|option| !option.starts_with("at=")).cloned().collect();
    Mount { kind: "erofs".to_owned(), options, ..image.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(ToString::to_string).collect();
        Mount { kind: kind.into(), source: source.into(), target: String::new(), options }
    }

    fn directories(paths: &[&str]) -> Vec<Source> {
        paths.iter().map(|path| Source::Directory(path.into())).collect()
    }

    #[test]
    fn a_tree_is_a_stack_of_what_its_mounts_are_made_of() {
        let of = |mounts: &[Mount]| sources(mounts, Reading::Layers).unwrap();
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[mount("bind", "/s/1/fs", &["ro", "rbind"])]), directories(&["/s/1/fs"]));
        let active = mount("overlay", "overlay", &["workdir=/w", "upperdir=/3", "lowerdir=/2:/1"]);
        assert_eq!(of(std::slice::from_ref(&active)), directories(&["/3", "/2", "/1"]));
        assert_eq!(
            sources(std::slice::from_ref(&active), Reading::AsMounted).unwrap(),
            [Source::Mounted(vec![active.clone()])]
        );
        let image = mount("erofs-lower", "/2/layer.erofs", &["ro", "device=/2/layer.data", "at=/2"]);
        let image = Mount { kind: EROFS_LOWER.to_owned(), ..image };
        let alone = mount("erofs", "/2/layer.erofs", &["ro", "device=/2/layer.data"]);
        let mut expected = directories(&["/3", "/2", "/1"]);
        expected[1] = Source::Mounted(vec![alone.clone()]);
        assert_eq!(of(&[image, active]), expected);
        assert_eq!(of(std::slice::from_ref(&alone)), [Source::Mounted(vec![alone])], "a view of it is the same layer");
        let other = [mount("ext4", "/dev/vda", &["ro"])];
        assert_eq!(of(&other), [Source::Mounted(other.to_vec())]);
    }

    #[test]
    fn what_a_layer_is_unpacked_into_is_not_compared() {
        let error = sources(&[mount(EROFS_LAYER, "/1", &[])], Reading::Layers).unwrap_err();
        assert_eq!(error.kind(), windlass_core::Kind::FailedPrecondition);
    }
}
