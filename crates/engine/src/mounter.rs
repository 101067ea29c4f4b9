//! What a comparison needs mounted, where nobody sees it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use windlass_core::Result;
use windlass_core::snapshot::Mount;
use windlass_layer::compare::Mounter;

/// Mounts on a directory of the root, in a mount namespace that only the mount itself keeps.
pub(crate) struct Unseen {
    target: PathBuf,
}

impl Unseen {
    pub(crate) fn new(root: &Path) -> Self {
        Self { target: root.join("snapshots") }
    }
}

impl Mounter for Unseen {
    fn open(&self, mounts: &[Mount]) -> Result<OwnedFd> {
        windlass_snapshot::mount::unseen(mounts, &self.target)
    }
}
