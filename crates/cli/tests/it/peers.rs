//! The command beside independent tools: what it mounts is what umoci unpacks.

use std::process::Command;

use windlass_core::Platform;
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::registry::DockerRegistry;
use windlass_testkit::tree::{Tree, assert_same};

use crate::dist::Dist;

/// Every kind of entry, over three layers that replace, hide and link.
fn image() -> Image {
    let base = Layer::new()
        .dir("etc", 0o755)
        .file("etc/config", "one\n")
        .dir("etc/old", 0o700)
        .file("etc/old/a", "a")
        .dir("bin", 0o755)
        .file("bin/tool", "x".repeat(70_000))
        .mode(0o4755)
        .owner(7, 8)
        .hardlink("bin/alias", "bin/tool")
        .symlink("bin/link", "tool")
        .dir("tmp", 0o1777)
        .file("times", "t")
        .mtime(1_600_000_000, 123_456_789)
        .file("large-owner", "o")
        .owner(3_000_000, 4_000_000)
        .file("becomes-directory", "f")
        .dir("becomes-file", 0o755)
        .file("becomes-file/x", "x");
    let middle = Layer::new()
        .whiteout("etc/config")
        .opaque("etc/old")
        .file("etc/old/b", "b")
        .dir("becomes-directory", 0o750)
        .file("becomes-directory/y", "y")
        .file("becomes-file", "now a file")
        .device("null", 1, 3)
        .fifo("pipe");
    let deep: Vec<String> = (1..=20).map(|depth| vec!["directory"; depth].join("/")).collect();
    let top = deep.iter().fold(Layer::new().dir(".", 0o755), |layer, directory| layer.dir(directory, 0o711));
    let top = top
        .file("bin/tool", "replaced")
        .mode(0o755)
        .file("capable", "c")
        .xattr("user.note", "value")
        .file(&format!("{}/deep", deep.last().unwrap()), "d");
    Image::new(&Platform::host().to_string()).layer(base).layer(middle).layer(top)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_mounted_tree_is_the_one_that_umoci_unpacks() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    let layout = dist.path("layout");
    image().build().write_layout(&layout, "1").unwrap();
    registry.push_layout(&layout, "a/b:1");

    let reference = format!("{}/a/b:1", registry.host());
    let bundle = dist.path("bundle");
    run(Command::new("umoci").arg("unpack").arg("--image").arg(format!("{}:1", layout.display())).arg(&bundle));
    let theirs = Tree::of(&bundle.join("rootfs")).unwrap();
    for snapshotter in ["overlayfs", "erofs", "native"] {
        dist.ok(&format!("pull --snapshotter {snapshotter} {reference}"));
        let mounted = dist.path(snapshotter);
        dist.ok(&format!("images mount --snapshotter {snapshotter} {reference} {}", mounted.display()));
        let ours = Tree::of(&mounted);
        dist.ok(&format!("images unmount {}", mounted.display()));
        assert_same(&ours.unwrap(), &theirs);
    }
}

#[test]
fn the_digests_are_those_that_skopeo_copies() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    let layout = dist.path("layout");
    image().build().write_layout(&layout, "1").unwrap();
    registry.push_layout(&layout, "a/b:1");
    let copy = dist.path("copy");
    run(Command::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            "--src-no-creds",
            "--preserve-digests",
        ])
        .arg(format!("docker://{}/a/b:1", registry.host()))
        .arg(format!("oci:{}:1", copy.display())));
    dist.ok(&format!("fetch {}/a/b:1", registry.host()));
    let mut ours: Vec<String> = dist.ok("content ls -q").lines().map(str::to_owned).collect();
    let theirs = std::fs::read_dir(copy.join("blobs/sha256")).unwrap();
    let mut theirs: Vec<String> =
        theirs.map(|entry| format!("sha256:{}", entry.unwrap().file_name().to_str().unwrap())).collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}
