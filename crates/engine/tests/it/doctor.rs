//! Whether a machine can do what an engine asks of it: this one, and one that is full.

use std::path::Path;

use windlass::doctor::machine;
use windlass_core::checkup::{Check, Verdict};

fn about<'a>(checks: &'a [Check], what: &str) -> &'a Check {
    checks.iter().find(|check| check.about == what).unwrap_or_else(|| panic!("nothing about {what} in {checks:?}"))
}

#[test]
fn a_machine_on_which_the_tests_pass_is_well() {
    let root = tempfile::tempdir().unwrap();
    let checks = machine(root.path());
    for what in ["root", "room", "inodes", "overlayfs", "erofs", "idmapped mounts"] {
        assert_ne!(about(&checks, what).verdict, Verdict::Fail, "{checks:?}");
    }
    assert_eq!(about(&checks, "root").verdict, Verdict::Ok);
    assert!(checks.iter().all(|check| check.verdict == Verdict::Ok || check.hint.is_some()), "{checks:?}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn a_root_that_is_not_there_yet_is_looked_for_above() {
    let directory = tempfile::tempdir().unwrap();
    let checks = machine(&directory.path().join("a/b/c"));
    let root = about(&checks, "root");
    assert_eq!(root.verdict, Verdict::Ok);
    assert!(root.found.contains("is not there yet"), "{root:?}");
    assert!(!directory.path().join("a").exists());
}

#[test]
fn a_small_disk_is_too_small() {
    let directory = tempfile::tempdir().unwrap();
    let _mounted = Tmpfs::mount(directory.path(), c"size=8m,nr_inodes=100");
    let checks = machine(directory.path());
    for what in ["room", "inodes"] {
        let check = about(&checks, what);
        assert_eq!(check.verdict, Verdict::Fail, "{check:?}");
        assert!(check.hint.is_some(), "{check:?}");
    }
}

#[test]
fn a_root_that_cannot_be_written_is_told() {
    let checks = machine(Path::new("/proc/self"));
    assert_eq!(about(&checks, "root").verdict, Verdict::Fail, "{checks:?}");
}

/// A filesystem in memory, until it is dropped.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(at: &Path, options: &std::ffi::CStr) -> Self {
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}
