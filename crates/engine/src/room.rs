//! How much is free below a root: what statvfs(3) says of its filesystems, and what mountinfo calls them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use windlass_core::Result;
use windlass_core::error::IoResultExt as _;
use windlass_core::room::{Free, Keeps, Room};

/// The room below a root.
pub(crate) struct RootRoom {
    root: PathBuf,
}

impl RootRoom {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

#[async_trait]
impl Room for RootRoom {
    /// Asks the kernel on the caller's thread: it answers from memory.
    async fn free(&self, of: Keeps<'_>) -> Result<Option<Free>> {
        // Where a directory is a mount of its own, or a link to one, its filesystem is asked.
        let directory = match of {
            Keeps::Content => self.root.join("content"),
            Keeps::Snapshots(snapshotter) => self.root.join("snapshots").join(snapshotter),
        };
        free(&self.root, &directory).map(Some)
    }
}

pub(crate) fn free(root: &Path, directory: &Path) -> Result<Free> {
    let attempt = || format!("ask for the free space of {}", directory.display());
    let device = fs::metadata(directory).attempt(attempt)?.dev();
    let there = rustix::fs::statvfs(directory).attempt(attempt)?;
    // Blocks that are reserved for root are free for root.
    let privileged = rustix::process::geteuid().is_root();
    let (blocks, inodes) = if privileged { (there.f_bfree, there.f_ffree) } else { (there.f_bavail, there.f_favail) };
    let shared = fs::metadata(root).attempt(attempt)?.dev() == device;
    Ok(Free {
        filesystem: name(device),
        directory: if shared { root } else { directory }.display().to_string(),
        bytes: blocks.saturating_mul(there.f_frsize),
        // Filesystems without a table of inodes, such as btrfs, say that they have none at all.
        inodes: (there.f_files > 0).then_some(inodes),
    })
}

fn name(device: u64) -> String {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    name_in(&table, &number)
}

/// Returns what a filesystem is called: its device; where it has none, its source and number, because every tmpfs has the
/// same source; where it is not mounted in sight, its number.
fn name_in(table: &str, number: &str) -> String {
    match source_of(table, number) {
        Some(device) if device.starts_with('/') => device,
        Some(source) => format!("{source} ({number})"),
        None => format!("the filesystem {number}"),
    }
}

/// Finds the source of the filesystem with that number. proc(5), `/proc/pid/mountinfo`: the third field is the number,
/// the second after a lone dash the source.
fn source_of(table: &str, number: &str) -> Option<String> {
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(number))?;
    let (_, after) = line.split_once(" - ")?;
    after.split(' ').nth(1).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_called_by_its_device_or_by_its_source_and_number() {
        let table = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n23 22 0:21 / /proc rw - proc proc rw\n";
        assert_eq!(name_in(table, "254:0"), "/dev/vda");
        assert_eq!(name_in(table, "0:21"), "proc (0:21)");
        assert_eq!(name_in(table, "1:1"), "the filesystem 1:1");
    }

    #[test]
    fn two_filesystems_in_memory_do_not_share_what_is_free() {
        let table = "30 1 0:45 / /a rw - tmpfs tmpfs rw\n31 1 0:46 / /b rw - tmpfs tmpfs rw\n";
        assert_ne!(name_in(table, "0:45"), name_in(table, "0:46"));
    }

    #[test]
    fn what_is_free_is_what_the_filesystem_says() {
        let root = tempfile::tempdir().unwrap();
        let free = free(root.path(), root.path()).unwrap();
        assert!(free.bytes > 0 && !free.filesystem.is_empty(), "{free:?}");
        assert_eq!(free.directory, root.path().display().to_string());
    }
}
