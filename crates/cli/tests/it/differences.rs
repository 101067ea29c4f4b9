//! Snapshots by hand, and what changed between two of them as a layer that other tools read.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use windlass::mount::{mount_all, unmount_all};
use windlass_core::Digest;
use windlass_core::snapshot::Mount;
use windlass_testkit::tree::{Tree, assert_same};

use crate::dist::Dist;
use crate::fixture;

/// Carries the mounts out that a command prints.
fn mount(dist: &Dist, line: &str) -> (Vec<Mount>, PathBuf) {
    let directory = dist.path("mounted");
    fs::create_dir_all(&directory).unwrap();
    let mounts: Vec<Mount> = serde_json::from_value(dist.json(line)).unwrap();
    mount_all(&mounts, &directory).unwrap();
    (mounts, directory)
}

/// Pulls the image of the fixture, and changes it in an active snapshot. Returns its topmost snapshot.
fn worked_in(dist: &Dist, snapshotter: &str) -> String {
    let reference = fixture::layout(dist);
    let pulled = dist.json(&format!("pull --snapshotter {snapshotter} {reference}"));
    let top = pulled["snapshots"][0].as_str().unwrap().to_owned();
    let (mounts, directory) = mount(dist, &format!("snapshots prepare --snapshotter {snapshotter} work {top}"));
    fs::remove_file(directory.join("etc/greeting")).unwrap();
    fs::write(directory.join("etc/new"), "new\n").unwrap();
    fs::create_dir(directory.join("made")).unwrap();
    fs::hard_link(directory.join("etc/new"), directory.join("made/linked")).unwrap();
    unmount_all(&mounts, &directory).unwrap();
    top
}

#[test]
fn what_was_changed_is_a_layer_that_tar_reads() {
    for snapshotter in ["overlayfs", "erofs", "native"] {
        let dist = Dist::new();
        worked_in(&dist, snapshotter);
        let layer = dist.run(&format!("snapshots diff --snapshotter {snapshotter} work"));
        assert_eq!(layer.code, Some(0), "{}", layer.stderr);
        fs::write(dist.path("layer.tar.gz"), &layer.stdout).unwrap();
        let listed = Command::new("tar").arg("-tzf").arg(dist.path("layer.tar.gz")).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let names: Vec<&str> = listed.lines().filter(|name| *name != "./").collect();
        assert_eq!(names, ["etc/", "etc/.wh.greeting", "etc/new", "made/", "made/linked"], "{snapshotter}");
        let again = dist.run(&format!("snapshots diff --snapshotter {snapshotter} work"));
        assert!(again.stdout == layer.stdout, "{snapshotter}: the same snapshots make the same bytes");
        assert_eq!(dist.json("content ls").as_array().unwrap().len(), 6, "{snapshotter}: nothing of it stays");
        assert_eq!(dist.json("content active"), json!([]));
        let views = dist.json(&format!("snapshots ls --snapshotter {snapshotter} kind==view"));
        assert_eq!(views, json!([]), "{snapshotter}: no view stays");
    }
}

#[test]
fn umoci_unpacks_the_difference_onto_the_image_to_the_same_tree() {
    let dist = Dist::new();
    let top = worked_in(&dist, "overlayfs");
    assert_eq!(dist.ok("snapshots commit changed work"), "changed\n");
    let layer = dist.run(&format!("snapshots diff --media-type application/vnd.oci.image.layer.v1.tar {top} changed"));
    fs::write(dist.path("layer.tar"), &layer.stdout).unwrap();
    let image = format!("{}:1", dist.path("layout").display());
    let run = |arguments: &[&str]| {
        let output = Command::new("umoci").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let reference = fixture::directory(&dist);
    // The image of this machine alone: umoci changes no index.
    let single = dist.path("single");
    let copied = Command::new("skopeo")
        .args(["copy", "-q", &format!("oci:{}:1", reference.display()), &format!("oci:{}:1", single.display())])
        .status();
    assert!(copied.unwrap().success(), "{image}");
    let single = format!("{}:1", single.display());
    run(&["raw", "add-layer", "--image", &single, dist.path("layer.tar").to_str().unwrap()]);
    let bundle = dist.path("bundle");
    run(&["unpack", "--image", &single, bundle.to_str().unwrap()]);
    let (mounts, directory) = mount(&dist, "snapshots view look changed");
    let ours = Tree::of(&directory).unwrap();
    unmount_all(&mounts, &directory).unwrap();
    let theirs = Tree::of(&bundle.join("rootfs")).unwrap();
    // umoci sets no time of the root when no layer has an entry for it, or adds what is its own.
    let times = |path: &str, _: &windlass_testkit::tree::Entry| path == ".";
    assert_same(&ours.without_mtimes(times), &theirs.without_mtimes(times));
}

#[test]
fn a_layer_is_kept_when_that_is_wanted_and_its_bytes_are_as_asked_for() {
    let dist = Dist::new();
    worked_in(&dist, "overlayfs");
    let line = "snapshots diff --keep --label team=mine --source-date-epoch 1000 work";
    let layer = dist.json(line);
    let digest = layer["digest"].as_str().unwrap();
    dist.ok("gc");
    let info = dist.json(&format!("content info {digest}"));
    assert_eq!(info["labels"]["team"], "mine");
    assert!(info["labels"]["containerd.io/uncompressed"].as_str().unwrap().starts_with("sha256:"), "{info}");
    let bytes = dist.run("snapshots diff --source-date-epoch 1000 work").stdout;
    assert_eq!(Digest::sha256(&bytes).to_string(), digest);
    let refused = dist.run("--format json snapshots diff work").failed();
    assert!(refused.contains("--keep"), "{refused}");
    let unknown = dist.run("snapshots diff --media-type text/plain work").failed();
    assert!(unknown.contains("text/plain") && unknown.contains("hint: "), "{unknown}");
    let missing = dist.run("snapshots diff nothing").failed();
    assert!(missing.contains("nothing"), "{missing}");
}

#[test]
fn snapshots_are_drawn_labelled_and_measured() {
    let dist = Dist::new();
    let top = worked_in(&dist, "overlayfs");
    let printed = dist.ok(&format!("snapshots prepare -t /somewhere other {top}"));
    assert!(printed.starts_with("mount -t overlay overlay /somewhere -o "), "{printed}");
    dist.ok("snapshots rm other");
    let drawn = dist.ok("snapshots tree");
    assert!(drawn.lines().count() == 4 && drawn.ends_with("└── work  (active)\n"), "{drawn}");
    assert!(dist.json("snapshots tree")[0]["children"][0]["children"][0]["key"] == json!(top));
    assert_eq!(dist.ok("snapshots label work team=mine").matches("team=mine").count(), 1);
    assert!(!dist.ok("snapshots label work team=").contains("team"));
    let info = dist.json("snapshots info work");
    assert_eq!((&info["state"], &info["parent"]), (&json!("active"), &json!(top)));
    assert!(info["usage"]["bytes"].as_u64().unwrap() > 0, "{info}");
    dist.ok("gc");
    dist.ok("snapshots info work");
}

#[test]
fn an_image_that_is_here_is_unpacked_with_another_snapshotter() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let pulled = dist.json(&format!("pull --no-unpack {reference}"));
    assert_eq!(dist.json("snapshots ls"), json!([]));
    let digest = pulled["digest"].as_str().unwrap();
    let unpacked = dist.json(&format!("snapshots unpack --snapshotter native {digest}"));
    assert_eq!(unpacked.as_array().unwrap().len(), 1);
    assert_eq!(dist.json(&format!("snapshots unpack {reference}")), unpacked);
    for snapshotter in ["native", "overlayfs"] {
        let listed = dist.json(&format!("snapshots ls --snapshotter {snapshotter}"));
        assert_eq!(listed.as_array().unwrap().len(), 3, "{snapshotter}");
    }
    dist.ok("gc");
    assert_eq!(dist.json("snapshots ls").as_array().unwrap().len(), 3, "the image keeps them");
}
