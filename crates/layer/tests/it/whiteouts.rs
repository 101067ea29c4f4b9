//! Deletions, in every order, where what is deleted is in the same directory.

use std::fs;

use windlass_core::diff::{Applied, Whiteouts};

use crate::apply::{apply, apply_ok, apply_with, bind};
use crate::archive::Archive;
use crate::tree::shape;

/// A directory that holds a parent's copy.
fn parent() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new()
        .dir("d")
        .file("d/old", "old")
        .dir("d/sub")
        .file("d/sub/old", "old")
        .file("f", "old")
        .symlink("s", "f")
        .end();
    apply_ok(&layer, &bind(root.path()));
    root
}

fn after(layer: Archive) -> Vec<String> {
    let root = parent();
    apply_ok(&layer.end(), &bind(root.path()));
    shape(root.path())
}

const SUB: [&str; 2] = ["d/sub dir", r#"d/sub/old "old""#];

#[test]
fn a_whiteout_removes_what_the_parent_has() {
    assert_eq!(
        after(Archive::new().file(".wh.f", "").file("d/.wh.sub", "").file(".wh.s", "")),
        ["d dir", r#"d/old "old""#]
    );
    assert_eq!(after(Archive::new().file(".wh.d", "")), [r#"f "old""#, "s -> f"]);
    assert_eq!(after(Archive::new().file(".wh.absent", "").file("nowhere/.wh.x", "")), after(Archive::new()));
}

#[test]
fn a_whiteout_never_removes_what_its_own_layer_has() {
    for layer in [Archive::new().file("f", "new").file(".wh.f", ""), Archive::new().file(".wh.f", "").file("f", "new")]
    {
        assert!(after(layer).contains(&r#"f "new""#.to_owned()));
    }
}

#[test]
fn a_directory_that_is_deleted_and_made_again_is_empty_but_for_what_is_new() {
    let rest = [r#"f "old""#, "s -> f"];
    for layer in [
        Archive::new().file(".wh.d", "").dir("d").file("d/new", "new"),
        Archive::new().dir("d").file(".wh.d", "").file("d/new", "new"),
        Archive::new().dir("d").file("d/new", "new").file(".wh.d", ""),
        Archive::new().file("d/new", "new").file(".wh.d", ""),
        Archive::new().file(".wh.d", "").file("d/new", "new"),
    ] {
        assert_eq!(after(layer), [&["d dir", r#"d/new "new""#], &rest[..]].concat());
    }
}

#[test]
fn an_opaque_directory_keeps_only_what_its_layer_has_in_any_order() {
    let rest = [r#"f "old""#, "s -> f"];
    for layer in [
        Archive::new().dir("d").file("d/.wh..wh..opq", "").file("d/new", "new").file("d/sub/new", "new"),
        Archive::new().dir("d").file("d/new", "new").file("d/.wh..wh..opq", "").file("d/sub/new", "new"),
        Archive::new().dir("d").file("d/new", "new").file("d/sub/new", "new").file("d/.wh..wh..opq", ""),
        Archive::new().file("d/sub/new", "new").file("d/new", "new").file("d/.wh..wh..opq", "").dir("d"),
        Archive::new().file("d/.wh.old", "").file("d/sub/new", "new").file("d/new", "new").file("d/.wh..wh..opq", ""),
    ] {
        let new = ["d dir", r#"d/new "new""#, "d/sub dir", r#"d/sub/new "new""#];
        assert_eq!(after(layer), [&new, &rest[..]].concat());
    }
}

#[test]
fn an_opaque_root_removes_everything_else() {
    assert_eq!(
        after(Archive::new().file("n", "new").file(".wh..wh..opq", "").file("f", "f")),
        [r#"f "f""#, r#"n "new""#]
    );
}

#[test]
fn a_whiteout_through_a_link_deletes_where_the_link_leads() {
    let found = after(Archive::new().symlink("l", "d").file("l/.wh.old", ""));
    assert_eq!(found, [&["d dir"], &SUB[..], &[r#"f "old""#, "l -> d", "s -> f"]].concat());
}

#[test]
fn a_whiteout_of_a_link_removes_the_link_alone() {
    let found = after(Archive::new().file(".wh.s", ""));
    assert!(found.contains(&r#"f "old""#.to_owned()) && !found.iter().any(|name| name.starts_with("s ")));
}

#[test]
fn without_anything_below_whiteouts_do_nothing() {
    let root = tempfile::tempdir().unwrap();
    let layer =
        Archive::new().dir("d").file("d/f", "f").file("d/.wh.g", "").file("d/.wh..wh..opq", "").file(".wh.d", "");
    apply_ok(&layer.end(), &bind(root.path()));
    assert_eq!(shape(root.path()), ["d dir", r#"d/f "f""#]);
}

/// Applies a layer as one that is put onto its parent later.
fn blind(layer: Archive) -> (tempfile::TempDir, Applied) {
    let root = tempfile::tempdir().unwrap();
    let applied = apply_with(&layer.end(), &bind(root.path()), Whiteouts::Overlay, None).unwrap();
    (root, applied)
}

fn needs(layer: Archive) -> Option<String> {
    match blind(layer).1 {
        Applied::NeedsParent { path } => Some(path),
        Applied::Complete { .. } => None,
    }
}

#[test]
fn a_layer_that_lists_its_directories_does_without_its_parent() {
    assert_eq!(needs(Archive::new().dir("d").file("d/f", "x").link("d/l", "d/f")), None);
    assert_eq!(needs(Archive::new().file("f", "x").file(".wh.g", "")), None);
    assert_eq!(needs(Archive::new().dir("d").file("d/.wh..wh..opq", "").file("d/e/f", "e is new")), None);
    assert_eq!(needs(Archive::new().file(".wh.d", "").file("d/e/f", "d is new")), None);
    assert_eq!(needs(Archive::new().dir("d").symlink("l", "d").file("l/f", "x")), None);
}

#[test]
fn a_layer_that_refers_to_its_parent_says_so() {
    assert_eq!(needs(Archive::new().file("d/f", "x")).as_deref(), Some("d/f"));
    // The directory may be a link below, and the file be meant to be where it leads.
    assert_eq!(needs(Archive::new().file("d/f", "x").dir("d")).as_deref(), Some("d/f"));
    assert_eq!(needs(Archive::new().file("d/f", "x").file(".wh.d", "")).as_deref(), Some("d/f"));
    assert_eq!(needs(Archive::new().dir("d").file("d/e/f", "x")).as_deref(), Some("d/e/f"));
    assert_eq!(needs(Archive::new().file("d/.wh.f", "")).as_deref(), Some("d/.wh.f"));
    assert_eq!(needs(Archive::new().file("d/.wh..wh..opq", "")).as_deref(), Some("d/.wh..wh..opq"));
    assert_eq!(needs(Archive::new().link("l", "f")).as_deref(), Some("l"));
    assert_eq!(needs(Archive::new().link("l", "d/f")).as_deref(), Some("l"));
    assert_eq!(needs(Archive::new().dir("d").link("l", "d/f")).as_deref(), Some("l"));
    assert_eq!(needs(Archive::new().symlink("l", "d").file("l/f", "x")).as_deref(), Some("l/f"));
    assert_eq!(needs(Archive::new().file(".wh..wh..opq", "")).as_deref(), Some(".wh..wh..opq"));
}

#[test]
fn overlayfs_marks_are_written_for_a_layer_without_its_parent() {
    let layer = Archive::new().file(".wh.gone", "").dir("d").file("d/.wh..wh..opq", "").file("d/.wh.x", "");
    let (root, _) = blind(layer);
    assert_eq!(shape(root.path()), ["d dir", "gone char (0, 0)"]);
    let found = crate::tree::xattrs(&root.path().join("d"));
    assert_eq!(found, [("trusted.overlay.opaque".to_owned(), "y".to_owned())].into());
}

#[test]
fn a_link_to_a_deleted_file_finds_nothing() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new().file(".wh.f", "").link("l", "f").end();
    assert!(apply_with(&layer, &bind(root.path()), Whiteouts::Overlay, None).is_err());
    let root = parent();
    assert!(apply(&layer, root.path()).is_err());
    assert!(!fs::exists(root.path().join("l")).unwrap());
}
