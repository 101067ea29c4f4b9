//! A snapshotter of somebody else: Debian's containerd keeps the snapshots of our daemon.

use std::path::PathBuf;
use std::time::Duration;

use windlass_testkit::registry::DockerRegistry;
use windlass_testkit::tree::Tree;

use crate::archives::Containerd;
use crate::dist::Dist;
use crate::fixture;
use crate::remote::Daemon;

/// Mounts an image and returns what is in it.
fn tree(dist: &Dist, snapshotter: &str, reference: &str) -> Tree {
    let directory = dist.path("mounted");
    dist.ok(&format!("images mount --snapshotter {snapshotter} {reference} {}", directory.display()));
    let tree = Tree::of(&directory).unwrap();
    dist.ok(&format!("images unmount {}", directory.display()));
    tree
}

/// Returns the snapshots that containerd has of our daemon, as it lists them.
fn listed(containerd: &Containerd, snapshotter: &str) -> Vec<String> {
    let arguments = ["-n", "windlass", "snapshots", "--snapshotter", snapshotter, "ls"];
    containerd.ctr(&arguments).ok().lines().skip(1).map(ToOwned::to_owned).collect()
}

/// Returns the directories in which containerd keeps snapshots.
fn directories(dist: &Dist, snapshotter: &str) -> Vec<PathBuf> {
    let kept = dist.path("containerd root").join(format!("io.containerd.snapshotter.v1.{snapshotter}/snapshots"));
    std::fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The name of a proxy is the name of the snapshotter that is asked for behind it, so it takes the place of ours.
#[test]
fn images_are_unpacked_by_containerd_s_snapshotters_and_go_from_them() {
    let (alone, theirs) = (Dist::new(), Dist::new());
    let registry = DockerRegistry::start();
    registry.push_layout(fixture::directory(&alone), "a/b:1");
    let reference = format!("{}/a/b:1", registry.host());
    alone.ok(&format!("pull --snapshotter native {reference}"));
    let expected = tree(&alone, "native", &reference);

    let containerd = Containerd::start(&theirs);
    for snapshotter in ["overlayfs", "native"] {
        let dist = Dist::new();
        let _daemon = Daemon::configured(
            &dist,
            &format!(
                "disabled_plugins = [\"io.containerd.snapshotter.v1.{snapshotter}\"]\n\
                 [proxy_plugins.{snapshotter}]\ntype = \"snapshot\"\naddress = {:?}\n",
                containerd.socket
            ),
        );
        dist.ok(&format!("pull --snapshotter {snapshotter} {reference}"));
        let ours = || dist.ok(&format!("snapshots ls -q --snapshotter {snapshotter}")).lines().count();
        let kept = listed(&containerd, snapshotter);
        assert_eq!((ours(), kept.len()), (3, 3), "{kept:?}");
        assert!(kept.iter().all(|line| line.contains("Committed")), "{kept:?}");
        assert!(!dist.root().join("snapshots").join(snapshotter).exists(), "nothing of it is kept here");
        let mut differences = expected.differences(&tree(&dist, snapshotter, &reference));
        // The image says nothing of its root, and a copy of containerd's loses times of directories, and that two names are one link.
        let copied = |it: &str| snapshotter == "native" && (it.contains(": mtime ") || it.contains(": same file as "));
        differences.retain(|it| !it.starts_with(".: mtime ") && !copied(it));
        assert!(differences.is_empty(), "{snapshotter}: {differences:#?}");
        assert_eq!(listed(&containerd, snapshotter).len(), 3, "what was mounted is gone");
        dist.ok(&format!("images rm {reference}"));
        dist.ok("gc");
        assert_eq!(listed(&containerd, snapshotter), Vec::<String>::new(), "{snapshotter}");
        assert_eq!(ours(), 0);
        // It removes directories when it collects, which it may have done before the last of them went.
        containerd.ctr(&["leases", "create", "--id", "collect"]).ok();
        containerd.ctr(&["leases", "delete", "--sync", "collect"]).ok();
        for _ in 0..600 {
            if directories(&theirs, snapshotter).is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(directories(&theirs, snapshotter), Vec::<PathBuf>::new(), "{snapshotter}");
    }
}
