//! The overlayfs snapshotter: a snapshot is a layer, and a stack of layers is mounted as one overlay.
//!
//! ```text
//! snapshots/<id>/fs     the layer's own entries, whiteouts among them
//! snapshots/<id>/work   overlayfs' scratch space; of active snapshots, and of committed ones what is left
//! ```
//!
//! The mounts are of containerd's shapes, so that its clients and runtimes can carry them out. Ids are short numbers, so
//! that the options of many layers stay short.

pub(crate) mod features;
mod probe;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use windlass_core::error::{Error, IoResultExt as _, Result};
use windlass_core::snapshot::{Mount, State};

use crate::native::bind;
use crate::snapshots::{Layout, Purpose, Snapshots, tree_of};
use crate::tree;

/// The overlayfs snapshotter.
pub type Overlay = Snapshots<Layers>;

impl Overlay {
    /// Opens the snapshotter in a directory, which is created if need be. Deletes nothing, mounts nothing.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, `DataLoss` for a damaged database, `FailedPrecondition` for one
    /// of a newer format; `InvalidArgument` when the path has a character that the options of an overlay cannot carry.
    pub async fn open(directory: &Path) -> Result<Self> {
        Self::open_with(directory, Layers { options: features::mount_options()? }).await
    }

    /// Tells whether overlays can be made in a directory, or will be when it exists: by making one.
    ///
    /// # Errors
    /// `PermissionDenied` when this process may not mount, `Unimplemented` when the kernel has no overlayfs,
    /// `FailedPrecondition` when the filesystem of the directory cannot carry one.
    pub fn supported(directory: &Path) -> Result<()> {
        probe::probe(directory)
    }
}

/// Every snapshot has a directory with its own entries.
pub struct Layers {
    options: Vec<String>,
}

impl Layout for Layers {
    const REBASE: bool = true;

    fn check(&self, root: &Path) -> Result<()> {
        is_plain(root)
    }

    fn probe(&self, directory: &Path) -> Result<()> {
        probe::probe(directory)
    }

    fn create(&self, directory: &Path, purpose: Purpose, parent: Option<&Path>) -> Result<()> {
        let tree = tree_of(directory);
        tree::make(&tree, 0o755)?;
        if purpose != Purpose::View {
            tree::make(&directory.join("work"), 0o711)?;
        }
        // The root of an overlay has the properties of the topmost layer's root.
        parent.map_or(Ok(()), |parent| tree::copy_properties(&tree_of(parent), &tree))
    }

    /// A layer that says nothing about `/` leaves it as the parent has it. That the layer was silent shows in the time:
    /// one that has an entry for `/` also sets its modification time, to one before the layer was unpacked.
    fn rebase(&self, directory: &Path, parent: &Path, begun_at: SystemTime) -> Result<()> {
        let tree = tree_of(directory);
        let attempt = || format!("look at {}", tree.display());
        let metadata = std::fs::metadata(&tree).attempt(attempt)?;
        let untouched = metadata.modified().attempt(attempt)? >= granular(begun_at)
            && (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()) == (0o755, 0, 0);
        if untouched { tree::copy_properties(&tree_of(parent), &tree) } else { Ok(()) }
    }

    fn mounts(&self, state: State, directory: &Path, parents: &[PathBuf]) -> Result<Vec<Mount>> {
        let writable = match (state, parents) {
            (State::View, []) => return Ok(vec![bind(directory, "ro")]),
            (_, []) => return Ok(vec![bind(directory, "rw")]),
            (State::View, [parent]) => return Ok(vec![bind(parent, "ro")]),
            (State::View, _) => None,
            _ => Some(directory),
        };
        Ok(vec![overlay(options(&self.options, writable, parents))])
    }
}

/// Returns the mount of an overlay.
pub(crate) fn overlay(options: Vec<String>) -> Mount {
    Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), target: String::new(), options }
}

/// Checks that a directory can be named in the options of a mount.
pub(crate) fn is_plain(root: &Path) -> Result<()> {
    match root.to_str() {
        Some(text) if !text.contains(|c: char| matches!(c, ',' | ':' | '\\') || c.is_control()) => Ok(()),
        _ => Err(Error::invalid_argument(format!(
            "{} cannot hold overlays: a comma, a colon, a backslash or a control character in the path would be misread \
             in the options of a mount",
            root.display()
        ))
        .hint("choose a root with a plain path")),
    }
}

/// Returns the options of an overlay: of the snapshot in a directory when it is written to, on layers from the topmost.
pub(crate) fn options(common: &[String], writable: Option<&Path>, lowers: &[PathBuf]) -> Vec<String> {
    let mut options = common.to_vec();
    if let Some(directory) = writable {
        options.push(format!("workdir={}", directory.join("work").display()));
        options.push(format!("upperdir={}", tree_of(directory).display()));
    }
    let lowers: Vec<String> = lowers.iter().map(|lower| tree_of(lower).display().to_string()).collect();
    options.push(format!("lowerdir={}", lowers.join(":")));
    options
}

/// A little before the time: filesystems stamp with the clock of the last tick (10 ms at most), and some only to the second.
fn granular(time: SystemTime) -> SystemTime {
    time.checked_sub(std::time::Duration::from_secs(2)).unwrap_or(time)
}
