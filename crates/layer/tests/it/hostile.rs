//! Layers that try to get out, or to break something.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use windlass_core::diff::Applied;
use windlass_core::{Kind, Result};

use crate::apply::apply;
use crate::archive::{Archive, entry};
use crate::tree::shape;

/// A directory with a target in it and things around it that must stay as they are.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        fs::write(dir.path().join("victim"), "victim").unwrap();
        Self { dir }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    fn apply(&self, layer: &[u8]) -> Result<Applied> {
        let result = apply(layer, &self.root());
        assert_eq!(fs::read(self.dir.path().join("outside/secret")).unwrap(), b"secret");
        assert_eq!(fs::read(self.dir.path().join("victim")).unwrap(), b"victim");
        let mut names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["outside", "root", "victim"]);
        assert_eq!(fs::read_dir(self.dir.path().join("outside")).unwrap().count(), 1);
        result
    }

    fn refused(&self, layer: &[u8]) -> String {
        let error = self.apply(layer).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
        error.to_string()
    }
}

fn absolute(place: &Place, name: &str) -> String {
    place.dir.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn names_that_lead_out_are_refused_and_named() {
    for name in ["../victim", "a/../../victim", "..", "/../victim", "a/b/../../../victim"] {
        let message = Place::new().refused(&Archive::new().file(name, "pwned").end());
        assert!(message.contains(&format!("{name:?}")), "{message}");
        assert!(message.contains("apply layer sha256:"), "{message}");
    }
}

#[test]
fn absolute_names_are_below_the_root() {
    let place = Place::new();
    let victim = absolute(&place, "victim");
    place.apply(&Archive::new().file(&victim, "inside").file("//etc/./x", "x").end()).unwrap();
    assert_eq!(fs::read(place.root().join(victim.trim_start_matches('/'))).unwrap(), b"inside");
    assert_eq!(fs::read(place.root().join("etc/x")).unwrap(), b"x");
}

#[test]
fn a_symbolic_link_to_outside_leads_below_the_root() {
    let place = Place::new();
    let outside = absolute(&place, "outside");
    let layer = Archive::new()
        .symlink("up", "../../../../../..")
        .symlink("abs", &outside)
        .symlink("slash", "/")
        .file("up/secret", "1")
        .file("abs/secret", "2")
        .file("slash/other", "3");
    place.apply(&layer.end()).unwrap();
    assert_eq!(fs::read(place.root().join("secret")).unwrap(), b"1");
    assert_eq!(fs::read(place.root().join(outside.trim_start_matches('/')).join("secret")).unwrap(), b"2");
    assert_eq!(fs::read(place.root().join("other")).unwrap(), b"3");
}

#[test]
fn links_through_links_and_dot_dots_stay_inside() {
    let place = Place::new();
    let layer = Archive::new()
        .dir("a/b/c")
        .symlink("l1", "a/b")
        .symlink("l2", "l1/c/../../../../../x")
        .dir("x")
        .file("l1/f", "in b")
        .file("l2/g", "in x");
    place.apply(&layer.end()).unwrap();
    assert_eq!(fs::read(place.root().join("a/b/f")).unwrap(), b"in b");
    assert_eq!(fs::read(place.root().join("x/g")).unwrap(), b"in x");
}

#[test]
fn a_loop_of_links_is_an_error() {
    let message = Place::new().refused(&Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "x").end());
    assert!(message.contains("too many symbolic links"), "{message}");
}

#[test]
fn a_file_replaces_a_link_and_never_writes_through_it() {
    let place = Place::new();
    let victim = absolute(&place, "victim");
    place.apply(&Archive::new().symlink("f", &victim).file("f", "mine").end()).unwrap();
    assert_eq!(shape(&place.root()), [r#"f "mine""#]);
}

#[test]
fn a_directory_swapped_for_a_link_between_entries_is_seen() {
    let place = Place::new();
    let outside = absolute(&place, "outside");
    let layer =
        Archive::new().file("d/one", "1").symlink("d", &outside).file("d/secret", "pwned").dir("d").file("d/two", "2");
    place.apply(&layer.end()).unwrap();
    assert_eq!(fs::read(place.root().join("d/two")).unwrap(), b"2");
    assert!(!place.root().join("d/one").exists());
}

#[test]
fn a_link_on_the_way_that_is_swapped_is_seen() {
    let place = Place::new();
    let layer = Archive::new()
        .dir("x/y")
        .dir("z/y")
        .symlink("l", "x")
        .file("l/y/f", "in x")
        .symlink("l", "z")
        .file("l/y/f", "in z");
    place.apply(&layer.end()).unwrap();
    assert_eq!(fs::read(place.root().join("x/y/f")).unwrap(), b"in x");
    assert_eq!(fs::read(place.root().join("z/y/f")).unwrap(), b"in z");
}

#[test]
fn hard_links_to_outside_are_refused_or_find_nothing() {
    let place = Place::new();
    let victim = absolute(&place, "victim");
    for target in ["../victim", &victim, "/etc/passwd", "etc/../../victim"] {
        place.refused(&Archive::new().link("l", target).end());
    }
    let through_link = Archive::new().symlink("out", &absolute(&place, "outside")).link("l", "out/secret");
    place.refused(&through_link.end());
}

#[test]
fn a_hard_link_to_a_symbolic_link_links_the_link() {
    let place = Place::new();
    let victim = absolute(&place, "victim");
    place.apply(&Archive::new().symlink("s", &victim).link("l", "s").end()).unwrap();
    assert_eq!(fs::read_link(place.root().join("l")).unwrap(), Path::new(&victim));
    // Written to through its other name, the link is replaced and not followed.
    place.apply(&Archive::new().file("l", "mine").end()).unwrap();
}

#[test]
fn a_hard_link_to_a_directory_or_the_root_is_refused() {
    Place::new().refused(&Archive::new().dir("d").link("l", "d").end());
    Place::new().refused(&Archive::new().link("l", "/").end());
    Place::new().refused(&Archive::new().link("l", "a/..").end());
}

#[test]
fn a_hard_link_to_itself_changes_nothing() {
    let place = Place::new();
    place.apply(&Archive::new().file("f", "x").link("f", "./f").end()).unwrap();
    assert_eq!(shape(&place.root()), [r#"f "x""#]);
    Place::new().refused(&Archive::new().link("f", "f").end());
}

#[test]
fn a_file_as_a_directory_is_refused() {
    let message = Place::new().refused(&Archive::new().file("f", "x").file("f/g", "y").end());
    assert!(message.contains(r#""f" is not a directory"#), "{message}");
}

#[test]
fn the_root_can_only_be_a_directory() {
    for name in ["", "./", "/", "a/.."] {
        Place::new().refused(&Archive::new().file(name, "x").end());
        Place::new().refused(&Archive::new().symlink(name, "/etc").end());
    }
    let place = Place::new();
    place.apply(&Archive::new().add(&entry(b'5', "./").mode(0o700), b"").file("f", "x").end()).unwrap();
    assert_eq!(shape(&place.root()), [r#"f "x""#]);
}

#[test]
fn long_names_and_deep_paths_work_up_to_the_systems_limits() {
    let place = Place::new();
    let deep = "d/".repeat(2000) + "file";
    let wide = "w".repeat(255);
    place.apply(&Archive::new().file(&deep, "deep").file(&wide, "wide").end()).unwrap();
    assert_eq!(fs::read(place.root().join(&wide)).unwrap(), b"wide");
    Place::new().refused(&Archive::new().file(&("d/".repeat(2050) + "file"), "x").end());
    Place::new().refused(&Archive::new().file(&"w".repeat(256), "x").end());
    // And gone again in one go.
    place.apply(&Archive::new().file("d", "flat").end()).unwrap();
    assert_eq!(shape(&place.root()).len(), 2);
}

#[test]
fn strange_names_are_only_names() {
    let place = Place::new();
    let names: [&[u8]; 6] = [b"new\nline", b"\xff\xfe", b" ", b"-rf", "ünïcödé".as_bytes(), b"a\\b"];
    let mut layer = Archive::new();
    for name in names {
        layer = layer.add(&entry(b'0', name), name);
    }
    place.apply(&layer.end()).unwrap();
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), names.len());
    // In a header a NUL ends the name; in a record there can be none.
    let place = Place::new();
    place.apply(&Archive::new().add(&entry(b'0', b"a\0b"), b"").end()).unwrap();
    assert_eq!(shape(&place.root()), [r#"a """#]);
    let error = apply(&Archive::new().add(&entry(b'0', "x").record("path", b"a\0b"), b"").end(), &place.root());
    assert_eq!(error.unwrap_err().kind(), Kind::DataLoss);
}

#[test]
fn whiteouts_cannot_delete_outside() {
    let place = Place::new();
    place.refused(&Archive::new().file("../.wh.victim", "").end());
    place.refused(&Archive::new().file(".wh...", "").end());
    place.refused(&Archive::new().file(".wh.", "").end());
    let outside = absolute(&place, "outside");
    let layer = Archive::new().symlink("out", &outside).file("out/.wh.secret", "").file("out/.wh..wh..opq", "");
    place.apply(&layer.end()).unwrap();
}

#[test]
fn numbers_out_of_range_are_refused() {
    Place::new().refused(&Archive::new().add(&entry(b'0', "f").owner(u64::from(u32::MAX), 0), b"").end());
    Place::new().refused(&Archive::new().add(&entry(b'0', "f").record("uid", "-1"), b"").end());
    Place::new().refused(&Archive::new().add(&entry(b'0', "f").record("gid", "4294967296"), b"").end());
    Place::new().refused(&Archive::new().add(&entry(b'3', "f").device(4096, 0), b"").end());
}

#[test]
fn a_type_that_is_not_known_is_refused() {
    let message = Place::new().refused(&Archive::new().add(&entry(b'V', "volume"), b"").end());
    assert!(message.contains("type 'V'"), "{message}");
}

#[test]
fn attributes_of_overlayfs_are_not_the_layers_to_write() {
    let place = Place::new();
    let dir = entry(b'5', "d").xattr("trusted.overlay.opaque", "y").xattr("trusted.overlay.redirect", "/x");
    place.apply(&Archive::new().add(&dir.xattr("user.fine", "1"), b"").end()).unwrap();
    let found = crate::tree::xattrs(&place.root().join("d"));
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["user.fine"]);
}

#[test]
fn aufs_records_are_left_out() {
    let place = Place::new();
    let layer = Archive::new().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", "").file("f", "");
    place.apply(&layer.end()).unwrap();
    assert_eq!(shape(&place.root()), [r#"f """#]);
}

#[test]
fn a_record_and_a_header_that_disagree_about_a_size_hide_nothing() {
    // Readers that go by the header would see a second file in what is the first one's data.
    let hidden = Archive::new().file("hidden", "x").0;
    let record = |size: usize| entry(b'0', "f").record("size", size.to_string());
    let place = Place::new();
    let mut layer = Archive::new().add(&record(hidden.len()), b"").0;
    layer.extend(&hidden);
    place.apply(&Archive(layer.clone()).file("last", "y").end()).unwrap();
    let found = shape(&place.root());
    assert_eq!(found.len(), 2, "{found:?}");
    // A record that leaves something over, or wants more than there is, is damage.
    for (size, data) in [(512, &hidden[..]), (1 << 40, &hidden[..])] {
        let place = Place::new();
        let error = place.apply(&Archive::new().add(&record(size), &vec![7; data.len()]).end()).unwrap_err();
        assert_eq!(error.kind(), Kind::DataLoss, "{size}: {error}");
    }
}
