//! The native snapshotter: a snapshot is a whole tree, copied from its parent's. For filesystems that overlayfs cannot
//! stand on.
//!
//! Files share their blocks where the filesystem can clone them (btrfs, XFS), and are copied with their holes elsewhere.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use windlass_core::error::{Error, Result};
use windlass_core::snapshot::{Mount, State};

use crate::snapshots::{Layout, Purpose, Snapshots, tree_of};
use crate::tree;

/// The native snapshotter.
pub type Native = Snapshots<Copies>;

impl Native {
    /// Opens the snapshotter in a directory, which is created if need be. Deletes nothing.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, `DataLoss` for a damaged database, `FailedPrecondition` for one
    /// of a newer format.
    pub async fn open(directory: &Path) -> Result<Self> {
        Self::open_with(directory, Copies(())).await
    }
}

/// Every snapshot has a copy of its parent's tree; a view has none and shows the parent's.
pub struct Copies(());

impl Layout for Copies {
    const REBASE: bool = false;

    fn check(&self, root: &Path) -> Result<()> {
        match root.to_str() {
            Some(_) => Ok(()),
            None => Err(Error::invalid_argument(format!(
                "{} cannot be written down in a mount: it is not UTF-8",
                root.display()
            ))
            .hint("choose a root with a plain path")),
        }
    }

    fn create(&self, directory: &Path, purpose: Purpose, parent: Option<&Path>) -> Result<()> {
        match parent {
            Some(parent) if purpose != Purpose::View => tree::copy(&tree_of(parent), &tree_of(directory)),
            _ => tree::make(&tree_of(directory), 0o755),
        }
    }

    fn rebase(&self, directory: &Path, parent: &Path, _begun_at: SystemTime) -> Result<()> {
        let (own, parent) = (directory.display(), parent.display());
        Err(Error::unimplemented(format!("the native snapshotter cannot put {own} onto {parent}")))
    }

    fn mounts(&self, state: State, directory: &Path, parents: &[PathBuf]) -> Result<Vec<Mount>> {
        Ok(vec![match (state, parents) {
            (State::View, [parent, ..]) => bind(parent, "ro"),
            (State::View, []) => bind(directory, "ro"),
            _ => bind(directory, "rw"),
        }])
    }
}

/// Returns the mount of one snapshot's tree alone.
pub(crate) fn bind(directory: &Path, mode: &str) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: tree_of(directory).display().to_string(),
        target: String::new(),
        options: vec![mode.to_owned(), "rbind".to_owned()],
    }
}
