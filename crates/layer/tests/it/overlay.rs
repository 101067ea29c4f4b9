//! Layers in the upper directories of real overlays: what the kernel shows is what a copy of the parent would have become.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;
use windlass_core::diff::{Applied, Whiteouts};

use crate::apply::{apply, apply_ok, apply_with, bind, overlay};
use crate::archive::{Archive, entry};
use crate::tree::{Detail, shape, tree};

/// A stack of layers, each in a directory of its own.
struct Stack {
    dir: TempDir,
    layers: Vec<PathBuf>,
}

impl Stack {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mounted")).unwrap();
        Self { dir, layers: Vec::new() }
    }

    /// Puts a layer on top; in the way of a layer that is put onto its parent later, if it can.
    fn push(&mut self, layer: &[u8], whiteouts: Whiteouts) {
        let upper = self.dir.path().join(self.layers.len().to_string());
        fs::create_dir(&upper).unwrap();
        let lower: Vec<&Path> = self.layers.iter().rev().map(PathBuf::as_path).collect();
        let known = if lower.is_empty() { bind(&upper) } else { overlay(&upper, &lower) };
        if whiteouts == Whiteouts::Overlay && !lower.is_empty() {
            match apply_with(layer, &bind(&upper), whiteouts, None).unwrap() {
                Applied::Complete { .. } => {}
                Applied::NeedsParent { .. } => {
                    fs::remove_dir_all(&upper).unwrap();
                    fs::create_dir(&upper).unwrap();
                    apply_ok(layer, &known);
                }
            }
        } else {
            apply_ok(layer, &known);
        }
        self.layers.push(upper);
    }

    /// Shows the mounted stack.
    fn mounted<T>(&self, look: impl Fn(&Path) -> T) -> T {
        let target = self.dir.path().join("mounted");
        let empty = self.dir.path().join("empty");
        fs::create_dir_all(&empty).unwrap();
        let lower: Vec<_> =
            self.layers.iter().rev().chain([&empty]).map(|path| path.to_str().unwrap().to_owned()).collect();
        let options = CString::new(format!("lowerdir={}", lower.join(":"))).unwrap();
        mount("overlay", &target, "overlay", MountFlags::RDONLY, options.as_c_str()).unwrap();
        let found = look(&target);
        unmount(&target, UnmountFlags::empty()).unwrap();
        found
    }
}

/// Mounts layers in every way there is, and returns what is seen, which must be the same.
fn seen(layers: &[Archive], detail: Detail) -> BTreeMap<String, String> {
    let copy = tempfile::tempdir().unwrap();
    let mut known = Stack::new();
    let mut later = Stack::new();
    for layer in layers {
        let bytes = layer.clone().end();
        apply_ok(&bytes, &bind(copy.path()));
        known.push(&bytes, Whiteouts::AsMounted);
        later.push(&bytes, Whiteouts::Overlay);
    }
    let expected = tree(copy.path(), detail);
    assert_eq!(known.mounted(|root| tree(root, detail)), expected, "applied onto its parent");
    assert_eq!(later.mounted(|root| tree(root, detail)), expected, "put onto its parent later");
    crate::image::check(layers, detail, &expected);
    expected
}

fn base() -> Archive {
    Archive::new()
        .add(&entry(b'5', "./").mtime(5), b"")
        .add(&entry(b'5', "d").mode(0o2750).owner(10, 20).mtime(100).xattr("user.x", "1"), b"")
        .add(&entry(b'0', "d/old").mode(0o4711).owner(7, 8).mtime(200).xattr("user.y", "2"), b"old")
        .add(&entry(b'5', "d/sub").mtime(300), b"")
        .file("d/sub/old", "old")
        .file("f", "old")
        .symlink("l", "d/sub")
        .symlink("abs", "/d")
        .add(&entry(b'3', "null").device(1, 3).mode(0o666), b"")
}

fn names(found: &BTreeMap<String, String>) -> Vec<&str> {
    found.keys().map(String::as_str).collect()
}

#[test]
fn directories_without_an_entry_are_as_they_are_below() {
    let found =
        seen(&[base(), Archive::new().file("d/sub/new", "x"), Archive::new().file("d/newer", "y")], Detail::All);
    assert!(found["d"].starts_with("dir 10:20 2750 100."), "{}", found["d"]);
    assert!(found["d/sub"].contains(" 300."), "{}", found["d/sub"]);
}

#[test]
fn links_below_are_followed_and_not_replaced() {
    let found = seen(&[base(), Archive::new().file("l/new", "x").file("abs/other", "y")], Detail::All);
    assert!(found.contains_key("d/sub/new") && found.contains_key("d/other"));
    assert!(found["l"].starts_with("-> d/sub") && found["abs"].starts_with("-> /d"));
}

#[test]
fn deletions_show() {
    let deletions =
        Archive::new().file("d/.wh.old", "").file(".wh.f", "").file(".wh.l", "").file("d/sub/.wh..wh..opq", "");
    assert_eq!(names(&seen(&[base(), deletions], Detail::All)), ["abs", "d", "d/sub", "null"]);
}

#[test]
fn a_file_below_gets_another_name_beside_a_deletion() {
    let layer = Archive::new().file(".wh.f", "").link("d/same", "d/sub/old");
    let found = seen(&[base(), layer], Detail::Shape);
    assert_eq!(found.get("d/same"), found.get("d/sub/old"));
    assert!(!found.contains_key("f"));
}

#[test]
fn a_directory_that_is_deleted_and_made_again_does_not_show_what_was_in_it() {
    for layer in [
        Archive::new().file(".wh.d", "").dir("d").file("d/new", "x"),
        Archive::new().dir("d").file("d/new", "x").file(".wh.d", ""),
        Archive::new().file(".wh.d", "").file("d/new", "x"),
        Archive::new().file("d", "a file first").dir("d").file("d/new", "x"),
        Archive::new().file("d/.wh.old", "").file(".wh.d", "").dir("d").file("d/new", "x"),
    ] {
        let found = seen(&[base(), layer], Detail::Shape);
        assert_eq!(names(&found), ["abs", "d", "d/new", "f", "l", "null"]);
    }
}

#[test]
fn deletions_in_an_opaque_directory_leave_no_ghosts() {
    for layer in [
        Archive::new().dir("d").file("d/.wh.old", "").dir("d/sub").file("d/sub/.wh.old", "").file("d/.wh..wh..opq", ""),
        Archive::new().dir("d").file("d/.wh..wh..opq", "").file("d/.wh.old", "").dir("d/sub").file("d/sub/.wh.old", ""),
    ] {
        let found = seen(&[base(), layer], Detail::Shape);
        assert_eq!(names(&found), ["abs", "d", "d/sub", "f", "l", "null"]);
    }
}

#[test]
fn deletions_of_nothing_leave_no_ghosts() {
    let layer = Archive::new().dir("new").file("new/.wh.x", "").file(".wh.nothing", "").file("nowhere/.wh.x", "");
    let mut stack = Stack::new();
    stack.push(&base().end(), Whiteouts::AsMounted);
    stack.push(&layer.end(), Whiteouts::AsMounted);
    let found = stack.mounted(shape);
    assert!(found.contains(&"new dir".to_owned()));
    assert!(!found.iter().any(|name| name.contains('x') || name.contains("nothing") || name.contains("nowhere")));
}

#[test]
fn hard_links_to_what_is_below_are_hard_links() {
    let layer = Archive::new().link("new", "d/old").link("d/sub/null", "null").link("symlink", "l");
    let mut stack = Stack::new();
    stack.push(&base().end(), Whiteouts::AsMounted);
    stack.push(&layer.end(), Whiteouts::Overlay);
    let found = stack.mounted(|root| tree(root, Detail::All));
    let old = r#""old" 7:8 4711 200.000000000 {"user.y": "2"}"#;
    assert_eq!(found["d/old"], old);
    assert_eq!(found["new"], old.replace(r#""old" "#, r#""old" = d/old "#));
    assert!(found["d/sub/null"].starts_with("char (1, 3) 0:0 666"));
    assert!(found["symlink"].starts_with("-> d/sub = l"));
    // And deleting what was linked to deletes that name alone.
    stack.push(&Archive::new().link("again", "d/old").file("d/.wh.old", "").end(), Whiteouts::Overlay);
    let found = stack.mounted(shape);
    assert!(found.contains(&r#"again "old""#.to_owned()) && !found.iter().any(|name| name.starts_with("d/old")));
}

#[test]
fn a_hard_link_to_what_is_nowhere_is_an_error() {
    let mut stack = Stack::new();
    stack.push(&base().end(), Whiteouts::AsMounted);
    stack.push(&Archive::new().file("d/.wh.old", "").end(), Whiteouts::AsMounted);
    let upper = stack.dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let lower: Vec<&Path> = stack.layers.iter().rev().map(PathBuf::as_path).collect();
    for target in ["d/old", "nowhere", "d/nowhere/x", "d"] {
        let layer = Archive::new().link("l", target).end();
        assert!(apply_with(&layer, &overlay(&upper, &lower), Whiteouts::AsMounted, None).is_err(), "{target}");
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let layer = Archive::new().file("new", "x").dir("d").file(".wh..wh..opq", "").file("d/y", "y").file("f", "f");
    assert_eq!(names(&seen(&[base(), layer], Detail::Shape)), ["d", "d/y", "f", "new"]);
}

#[test]
fn types_that_change_hide_what_was_there() {
    let layer =
        Archive::new().file("d", "a file").dir("f").file("f/x", "x").dir("l").file("l/y", "y").symlink("null", "f");
    let found = seen(&[base(), layer], Detail::All);
    assert_eq!(names(&found), ["abs", "d", "f", "f/x", "l", "l/y", "null"]);
    // And back again.
    let back = Archive::new().dir("d").file("d/z", "z").file("f", "file");
    let layer = Archive::new().file("d", "a file");
    assert_eq!(names(&seen(&[base(), layer, back], Detail::Shape)), ["abs", "d", "d/z", "f", "l", "null"]);
}

#[test]
fn a_file_below_is_no_directory() {
    let mut stack = Stack::new();
    stack.push(&base().end(), Whiteouts::AsMounted);
    let upper = stack.dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let layer = Archive::new().file("f/x", "x").end();
    assert!(apply_with(&layer, &overlay(&upper, &[&stack.layers[0]]), Whiteouts::AsMounted, None).is_err());
    assert!(apply(&layer, &stack.layers[0]).is_err());
}

#[test]
fn the_root_is_as_it_is_below_unless_the_layer_has_an_entry_for_it() {
    let mut stack = Stack::new();
    stack
        .push(&Archive::new().add(&entry(b'5', ".").mode(0o711).owner(3, 4).mtime(9), b"").end(), Whiteouts::AsMounted);
    stack.push(&Archive::new().file("f", "x").end(), Whiteouts::AsMounted);
    let root = fs::metadata(&stack.layers[1]).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.gid(), root.mtime()), (0o711, 3, 4, 9));
}

/// One thing that a layer may do, in a small world where names meet often.
#[derive(Debug, Clone)]
enum Step {
    Dir(String),
    File(String, u8),
    Symlink(String, String),
    Link(String, String),
    Whiteout(String),
    Opaque(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop_oneof!["[ab]", "[ab]/[ab]", "[ab]/[ab]/[ab]"];
    let step = prop_oneof![
        3 => name().prop_map(Step::Dir),
        4 => (name(), 0..9u8).prop_map(|(name, data)| Step::File(name, data)),
        1 => (name(), "[ab]").prop_map(|(name, target)| Step::Symlink(name, target)),
        1 => (name(), name()).prop_map(|(name, target)| Step::Link(name, target)),
        2 => name().prop_map(Step::Whiteout),
        1 => name().prop_map(Step::Opaque),
    ];
    prop::collection::vec(step, 0..8)
}

/// Writes a layer.
fn layer(steps: &[Step]) -> Archive {
    steps.iter().fold(Archive::new(), |archive, step| match step {
        Step::Dir(name) => archive.dir(name),
        Step::File(name, data) => archive.file(name, &data.to_string()),
        Step::Symlink(name, target) => archive.symlink(name, target),
        Step::Link(name, target) => archive.link(name, target),
        Step::Whiteout(name) => {
            let (parent, name) = name.rsplit_once('/').unwrap_or(("", name));
            archive.file(&format!("{parent}/.wh.{name}"), "")
        }
        Step::Opaque(name) => archive.file(&format!("{name}/.wh..wh..opq"), ""),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_stacks_look_alike_however_they_are_applied(stack in prop::collection::vec(steps(), 1..4)) {
        // Layers that do not fit what is below them are errors everywhere; only those that fit are compared.
        let copy = tempfile::tempdir().unwrap();
        let layers: Vec<_> = stack.iter().map(|steps| layer(steps)).collect();
        prop_assume!(layers.iter().all(|layer| apply(&layer.clone().end(), copy.path()).is_ok()));
        // A deletion of nothing, in a directory that is only in this layer, is listed by the kernel and leads nowhere.
        seen(&layers, Detail::Reachable);
    }
}
