//! Files are made beside the thread that reads the archive: what depends on them waits, and their failures are told.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use windlass_core::Kind;

use crate::apply::apply;
use crate::archive::{Archive, entry};
use crate::tree::shape;

#[test]
fn whatever_needs_a_file_that_is_on_its_way_waits_for_it() {
    let root = tempfile::tempdir().unwrap();
    let mut layer = Archive::new();
    for number in 0..400 {
        // Two directories and more, so that two threads have work, and nothing is listed before it is used.
        let (dir, other) = (format!("d{}", number % 7), format!("e{}", number % 5));
        layer = layer
            .file(&format!("{dir}/linked{number}"), "linked")
            .link(&format!("{other}/link{number}"), &format!("{dir}/linked{number}"))
            .file(&format!("{dir}/twice{number}"), "first, and longer")
            .file(&format!("{dir}/twice{number}"), "second")
            .file(&format!("{other}/directory{number}"), "a file first")
            .dir(&format!("{other}/directory{number}"))
            .file(&format!("{other}/directory{number}/inside"), "inside")
            .file(&format!("{dir}/symlink{number}"), "a file first")
            .symlink(&format!("{dir}/symlink{number}"), "elsewhere")
            .dir(&format!("{dir}/file{number}"))
            .file(&format!("{dir}/file{number}"), "a directory first")
            .file(&format!("{dir}/linked{number}"), "another one");
    }
    apply(&layer.end(), root.path()).unwrap();
    assert_eq!(shape(root.path()).len(), 12 + 400 * 7);
    for number in 0..400 {
        let (dir, other) = (root.path().join(format!("d{}", number % 7)), root.path().join(format!("e{}", number % 5)));
        let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(other.join(format!("link{number}"))), "linked");
        assert_eq!(read(dir.join(format!("linked{number}"))), "another one");
        assert_eq!(fs::metadata(dir.join(format!("linked{number}"))).unwrap().nlink(), 1);
        assert_eq!(read(dir.join(format!("twice{number}"))), "second");
        assert_eq!(read(other.join(format!("directory{number}/inside"))), "inside");
        assert!(fs::symlink_metadata(dir.join(format!("symlink{number}"))).unwrap().is_symlink());
        assert_eq!(read(dir.join(format!("file{number}"))), "a directory first");
    }
}

#[test]
fn files_follow_the_rules_that_their_directory_had_when_they_came() {
    let root = tempfile::tempdir().unwrap();
    let mut layer = Archive::new().dir("d");
    for number in 0..200 {
        layer = layer.file(&format!("d/before{number}"), "x");
    }
    layer = layer.add(&entry(b'5', "d").mode(0o2775).owner(0, 77), b"");
    for number in 0..200 {
        layer = layer.file(&format!("d/after{number}"), "x");
    }
    apply(&layer.end(), root.path()).unwrap();
    for entry in fs::read_dir(root.path().join("d")).unwrap() {
        let stat = entry.unwrap().metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0, 0, 0o644));
    }
}

#[test]
fn a_full_disk_is_told_with_the_file_and_stops_the_layer() {
    let root = tempfile::tempdir().unwrap();
    let size = CString::new("size=1m").unwrap();
    mount("tmpfs", root.path(), "tmpfs", MountFlags::empty(), size.as_c_str()).unwrap();
    let mut layer = Archive::new();
    for number in 0..300 {
        layer = layer.file(&format!("d{}/large", number % 9), &"x".repeat(300_000));
        layer = layer.file(&format!("d{}/small{number}", number % 9), &"x".repeat(30_000));
    }
    let error = apply(&layer.end(), root.path());
    unmount(root.path(), UnmountFlags::empty()).unwrap();
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("\"d"), "{error}");
}
