//! The check of a root: what is kept there and is not as it should be; and the repair.
//!
//! ```text
//! lock ─► look at each snapshotter ─► look at the store ─► findings ─► repair ─► look again
//! ```
//!
//! A check changes nothing on the disk but the description of the owner in `lock`, and not that where it cannot write: no store is opened, and no pull that was
//! interrupted is settled. Not here: the single comparisons, which are the store's and the snapshotters' own.

mod look;
mod repair;

use std::path::{Path, PathBuf};

use windlass_core::error::IoResultExt;
use windlass_core::fsck::{Finding, Outcome};
use windlass_core::progress::Tracker;
use windlass_core::remote::Resolver;
use windlass_core::{Error, Result};
use windlass_store::{Elsewhere, LockWait, RootLock};

pub use look::view_key;
pub use windlass_store::fsck::Depth;

/// How a root is to be checked.
#[derive(Debug, Clone)]
pub struct Fsck {
    root: PathBuf,
    lock_wait: LockWait,
    depth: Depth,
    content: Option<Elsewhere>,
}

impl Fsck {
    /// Says which root is to be checked.
    pub fn new(root: impl AsRef<Path>) -> Self {
        Self { root: root.as_ref().to_owned(), lock_wait: LockWait::Fail, depth: Depth::default(), content: None }
    }

    /// Says whether to wait while another process has the root; by default it is an error.
    pub fn lock_wait(mut self, wait: LockWait) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Says how closely to look; by default at every byte.
    pub fn depth(mut self, depth: Depth) -> Self {
        self.depth = depth;
        self
    }

    /// Names the content store that has the bytes of the root's blobs, when it is somebody else's: [`Elsewhere::of`] tells.
    pub fn content(mut self, elsewhere: Elsewhere) -> Self {
        self.content = Some(elsewhere);
        self
    }

    /// Looks at everything in the root and changes nothing.
    ///
    /// # Errors
    /// `NotFound` without the root; `Unavailable` when another process has it; `FailedPrecondition` for a root of a newer
    /// format, and for one whose blobs are elsewhere and nobody says where; those of the filesystem, and of the content store that
    /// has the blobs. What is damaged is a finding.
    pub async fn check(&self, progress: &Tracker) -> Result<Vec<Finding>> {
        self.is_here()?;
        let lock = RootLock::acquire_to_look(&self.root, self.lock_wait).await?;
        look::everything(lock.root(), self.content.as_ref(), self.closely(), progress).await
    }

    /// Repairs what can be repaired and touches nothing else. Returns everything that was found, with what became of it.
    ///
    /// What is damaged is fetched again with `resolver`, from where it came.
    ///
    /// # Errors
    /// As [`Fsck::check`]; that something cannot be repaired is the outcome of its finding.
    ///
    /// # Cancel safety
    /// Dropping the call stops the repair between two steps; running it again continues.
    pub async fn repair(&self, resolver: &dyn Resolver, progress: &Tracker) -> Result<Vec<Finding>> {
        self.is_here()?;
        let lock = RootLock::acquire(&self.root, self.lock_wait).await?;
        repair::everything(lock, self, resolver, progress).await
    }

    fn closely(&self) -> look::Closely {
        look::Closely { blobs: self.depth, snapshots: self.depth }
    }

    /// A check does not make a root.
    fn is_here(&self) -> Result<()> {
        if self.root.try_exists().attempt(|| format!("look for {}", self.root.display()))? {
            return Ok(());
        }
        Err(Error::not_found(format!("root {} is not here", self.root.display())).hint("name the root with --root"))
    }
}

/// Tells whether a finding is still to be dealt with.
pub fn remains(finding: &Finding) -> bool {
    finding.outcome != Outcome::Repaired
}
