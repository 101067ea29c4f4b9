//! A mount for as long as a value lives.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::mount::UnmountFlags;
use windlass_core::error::{IoResultExt as _, Kind, Result};
use windlass_core::snapshot::Mount;

use super::{mount_all, unmount, unmount_each, unmount_with};
use crate::tree;

/// How often a mount that is in use is looked at again, and after how long. A process that this one is just starting has what
/// is open here until it is the other program, and uses the mount for that moment.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(5);

/// Mounts in a directory of their own, unmounted when the value is dropped.
///
/// [`Temporary::close`] says whether that succeeded; a drop can only log it.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    mounts: Vec<Mount>,
}

impl Temporary {
    /// Carries out mounts on a new directory inside of `parent`.
    ///
    /// # Errors
    /// As [`mount_all`]; nothing is left behind.
    pub fn mount(mounts: &[Mount], parent: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("mount-{}-{number}", std::process::id()));
        tree::make(&path, 0o700)?;
        let mut temporary = Self { path, mounts: Vec::new() };
        mount_all(mounts, &temporary.path)?;
        temporary.mounts = mounts.to_vec();
        Ok(temporary)
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts now.
    ///
    /// # Errors
    /// `FailedPrecondition` when it is in use; it is then taken out of sight and goes with its last user.
    pub fn close(mut self) -> Result<()> {
        self.unmount()
    }

    fn unmount(&mut self) -> Result<()> {
        let mounts = std::mem::take(&mut self.mounts);
        let unmounted = unmount_each(&mounts, &self.path, patiently);
        if unmounted.as_ref().is_err_and(|error| error.is(Kind::FailedPrecondition)) {
            unmount_with(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
        // Never more than an empty directory: whatever may still be mounted is not to be deleted through it.
        std::fs::remove_dir(&self.path).attempt(|| format!("remove {}", self.path.display()))?;
        self.path.clear();
        unmounted
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = self.unmount() {
            tracing::warn!(target = %self.path.display(), %error, "a temporary mount was in use");
        }
    }
}

/// Unmounts what is on a directory, or says that it stayed in use.
fn patiently(path: &Path) -> Result<()> {
    for _ in 0..TRIES {
        match unmount(path) {
            Err(error) if error.is(Kind::FailedPrecondition) => std::thread::sleep(BETWEEN),
            unmounted => return unmounted,
        }
    }
    unmount(path)
}
