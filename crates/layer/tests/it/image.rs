//! Layers as EROFS images: stacks of them show what layers in directories show, and the images themselves are sound.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;
use windlass_core::diff::{Applied, Whiteouts};
use windlass_core::snapshot::{EROFS_LAYER, LAYER_DATA, LAYER_IMAGE, Mount};
use windlass_core::{Digest, Kind, Result};

use crate::apply::{apply_ok, apply_with, bind};
use crate::archive::{Archive, entry};
use crate::tree::{Detail, shape, tree};

/// A stack of images, each in a directory of its own.
struct Stack {
    dir: TempDir,
    layers: Vec<PathBuf>,
}

/// The mount that says where an image is to be put, and what is below it.
fn target(directory: &Path, below: &[PathBuf]) -> Vec<Mount> {
    vec![Mount {
        kind: EROFS_LAYER.into(),
        source: directory.to_str().unwrap().into(),
        target: String::new(),
        options: below.iter().rev().map(|path| format!("lower={}", path.display())).collect(),
    }]
}

impl Stack {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), layers: Vec::new() }
    }

    /// Puts a layer on top; in the way of a layer that is put onto its parent later, if it can and is to.
    fn push(&mut self, layer: &[u8], whiteouts: Whiteouts) -> Result<()> {
        let directory = self.dir.path().join(self.layers.len().to_string());
        fs::create_dir(&directory).unwrap();
        let known = target(&directory, &self.layers);
        let later = whiteouts == Whiteouts::Overlay && !self.layers.is_empty();
        let mut applied = if later {
            apply_with(layer, &target(&directory, &[]), whiteouts, None)?
        } else {
            apply_with(layer, &known, Whiteouts::AsMounted, None)?
        };
        if matches!(applied, Applied::NeedsParent { .. }) {
            assert!(later, "{applied:?}");
            applied = apply_with(layer, &known, Whiteouts::AsMounted, None)?;
        }
        let Applied::Complete { diff_id, size } = applied else { panic!("{applied:?}") };
        assert_eq!((diff_id.0, size), (Digest::sha256(layer), layer.len() as u64));
        self.layers.push(directory);
        Ok(())
    }

    /// Checks every image, mounts the stack, and looks at it.
    fn mounted<T>(&self, look: impl Fn(&Path) -> T) -> T {
        let mut lowers = Vec::new();
        for layer in &self.layers {
            fsck(layer);
            let at = layer.join("seen");
            fs::create_dir(&at).unwrap();
            let options = CString::new(format!("device={}", layer.join(LAYER_DATA).display())).unwrap();
            mount(layer.join(LAYER_IMAGE), &at, "erofs", MountFlags::RDONLY, options.as_c_str()).unwrap();
            lowers.insert(0, at.to_str().unwrap().to_owned());
        }
        let (merged, empty) = (self.dir.path().join("merged"), self.dir.path().join("empty"));
        fs::create_dir(&merged).unwrap();
        fs::create_dir(&empty).unwrap();
        let options = format!("lowerdir={}:{}", lowers.join(":"), empty.display());
        let options = CString::new(options).unwrap();
        mount("overlay", &merged, "overlay", MountFlags::RDONLY, options.as_c_str()).unwrap();
        let found = look(&merged);
        unmount(&merged, UnmountFlags::empty()).unwrap();
        for at in lowers {
            unmount(at, UnmountFlags::empty()).unwrap();
        }
        found
    }
}

fn fsck(layer: &Path) {
    let checked = Command::new("fsck.erofs")
        .arg(format!("--device={}", layer.join(LAYER_DATA).display()))
        .arg("--extract")
        .arg(layer.join(LAYER_IMAGE))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Checks that images of these layers show a tree, applied onto each other and put onto each other later.
pub(crate) fn check(layers: &[Archive], detail: Detail, expected: &BTreeMap<String, String>) {
    for whiteouts in [Whiteouts::AsMounted, Whiteouts::Overlay] {
        let mut stack = Stack::new();
        for layer in layers {
            stack.push(&layer.clone().end(), whiteouts).unwrap();
        }
        assert_eq!(&stack.mounted(|root| tree(root, detail)), expected, "images, {whiteouts:?}");
    }
}

#[test]
fn everything_that_a_layer_can_have() {
    let large: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
    let mut archive = Archive::new()
        .add(&entry(b'5', "./").mode(0o1755).owner(1, 2).mtime(5), b"")
        .dir("d")
        .add(&entry(b'0', "d/file").mode(0o4711).owner(70_000, 80_000).mtime(1), b"content")
        .add(&entry(b'0', "large"), &large)
        .file("empty", "")
        .symlink("s", "d/file")
        .add(&entry(b'1', "other").link("d/file"), b"")
        .add(&entry(b'3', "null").device(1, 3).mode(0o666), b"")
        .add(&entry(b'4', "disk").device(8, 17), b"")
        .add(&entry(b'6', "pipe"), b"")
        .file("s2/../d/more", "more")
        .file(&format!("{}/{}", "n".repeat(255), "m".repeat(255)), "long");
    for number in 0..300 {
        archive = archive.file(&format!("many/{number}"), &number.to_string());
    }
    let bytes = archive.clone().end();
    let root = tempfile::tempdir().unwrap();
    apply_ok(&bytes, &bind(root.path()));
    // The directories without entries have the time of their making in the one, and none in the other.
    let strip = |mut tree: BTreeMap<String, String>| {
        tree.retain(|name, _| name != "many" && name != &"n".repeat(255));
        tree
    };
    let mut stack = Stack::new();
    stack.push(&bytes, Whiteouts::AsMounted).unwrap();
    let seen = stack.mounted(|root| strip(tree(root, Detail::All)));
    assert_eq!(seen, strip(tree(root.path(), Detail::All)));
    assert!(seen.len() > 310);
}

#[test]
fn the_same_layer_makes_the_same_image() {
    let bytes = Archive::new().dir("d").file("d/f", "content").symlink("s", "d").end();
    let images = [(); 2].map(|()| {
        let mut stack = Stack::new();
        stack.push(&bytes, Whiteouts::AsMounted).unwrap();
        [LAYER_IMAGE, LAYER_DATA].map(|name| fs::read(stack.layers[0].join(name)).unwrap())
    });
    assert!(images[0] == images[1]);
}

#[test]
fn a_link_to_a_file_below_is_a_copy_of_it() {
    let below =
        Archive::new().dir("d").add(&entry(b'0', "d/f").mode(0o600).owner(3, 4), &[7; 10_000]).symlink("d/s", "f");
    let layer = Archive::new()
        .add(&entry(b'1', "d/g").link("d/f"), b"")
        .add(&entry(b'1', "d/t").link("d/s"), b"")
        .add(&entry(b'1', "d/f").link("d/f"), b"");
    let mut stack = Stack::new();
    stack.push(&below.end(), Whiteouts::AsMounted).unwrap();
    stack.push(&layer.clone().end(), Whiteouts::Overlay).unwrap();
    let seen = stack.mounted(|root| tree(root, Detail::All));
    assert!(seen["d/g"].contains("3:4 600") && seen["d/t"].starts_with("-> f"), "{seen:?}");
    assert!(seen["d/g"].starts_with("10000 "), "{seen:?}");
    assert!(seen["d"].contains("0:0 755 1600000000"), "the directory is as it is below: {seen:?}");

    let mut wrong = Stack::new();
    wrong.push(&Archive::new().dir("d").end(), Whiteouts::AsMounted).unwrap();
    assert_eq!(wrong.push(&layer.end(), Whiteouts::Overlay).unwrap_err().kind(), Kind::FailedPrecondition);
}

#[test]
fn what_would_leave_the_root_or_lies_about_itself_is_refused() {
    for archive in [
        Archive::new().file("../f", "x"),
        Archive::new().symlink("s", "..").file("s/../../f", "x"),
        Archive::new().file("f", "x").file("f/g", "x"),
        Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "x"),
        Archive::new().add(&entry(b'1', "l").link("nothing"), b""),
        Archive::new().dir("d").add(&entry(b'1', "l").link("d"), b""),
        Archive::new().file("./", "x"),
        Archive::new().file(&"n".repeat(256), "x"),
    ] {
        let mut stack = Stack::new();
        let error = stack.push(&archive.end(), Whiteouts::AsMounted).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
    }
    // Links that point out of the root stay inside.
    let mut stack = Stack::new();
    let layer = Archive::new().symlink("s", "/../../d").dir("d").file("s/f", "inside");
    stack.push(&layer.end(), Whiteouts::AsMounted).unwrap();
    assert_eq!(stack.mounted(shape), ["d dir", r#"d/f "inside""#, "s -> /../../d"]);
}
