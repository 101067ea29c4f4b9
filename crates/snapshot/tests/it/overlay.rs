//! What only the overlayfs snapshotter does.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use windlass_core::snapshot::{Commit, Key, Mount, Snapshotter};
use windlass_core::{Kind, Labels};
use windlass_snapshot::mount::{self, Temporary};
use windlass_snapshot::overlay::Overlay;

use crate::{key, layer, name, within};

async fn open() -> (tempfile::TempDir, Overlay) {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Overlay::open(directory.path()).await.unwrap();
    (directory, snapshots)
}

fn option<'a>(mount: &'a Mount, key: &str) -> Option<&'a str> {
    mount.options.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
}

/// Returns the directory behind a snapshot without a parent.
fn own_tree(mounts: &[Mount]) -> PathBuf {
    PathBuf::from(&mounts[0].source)
}

async fn rebased(snapshots: &Overlay, layer: &str, parent: Option<&str>, fill: impl FnOnce(&Path)) {
    let work: Key = key(&format!("{layer}-work"));
    let mounts = snapshots.prepare(&work, None, Labels::new()).await.unwrap();
    fill(&own_tree(&mounts));
    let commit = Commit { parent: parent.map(name), ..Commit::default() };
    snapshots.commit(&name(layer), &work, commit).await.unwrap();
}

#[tokio::test]
async fn overlays_can_be_made_here_and_the_probe_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    Overlay::supported(directory.path()).unwrap();
    Overlay::supported(&directory.path().join("not/there/yet")).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_filesystem_that_cannot_carry_overlays_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let lower = directory.path().join("lower");
    let upper = directory.path().join("upper");
    for path in [&lower, &upper, &directory.path().join("work")] {
        fs::create_dir(path).unwrap();
    }
    let options = vec![
        format!("lowerdir={}", lower.display()),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", directory.path().join("work").display()),
    ];
    let overlay = Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options };
    within(&[overlay], |root| {
        let error = Overlay::supported(root).unwrap_err();
        assert!(error.is(Kind::FailedPrecondition), "{error:?}");
        assert!(error.to_string().contains("itself on an overlay"), "{error}");
        assert!(error.hint_text().unwrap().contains("native"));
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    });
}

#[tokio::test]
async fn mounts_have_containerds_shapes() {
    let (directory, snapshots) = open().await;
    let tree = |id: u32| directory.path().join(format!("snapshots/{id}/fs")).display().to_string();
    let bind = |source: String, mode: &str| Mount {
        kind: "bind".into(),
        source,
        target: String::new(),
        options: vec![mode.into(), "rbind".into()],
    };
    assert_eq!(snapshots.prepare(&key("a"), None, Labels::new()).await.unwrap(), [bind(tree(1), "rw")]);
    assert_eq!(snapshots.view(&key("v"), None, Labels::new()).await.unwrap(), [bind(tree(2), "ro")]);
    snapshots.commit(&name("A"), &key("a"), Commit::default()).await.unwrap();
    assert_eq!(snapshots.view(&key("w"), Some(&name("A")), Labels::new()).await.unwrap(), [bind(tree(1), "ro")]);

    let mounts = snapshots.prepare(&key("b"), Some(&name("A")), Labels::new()).await.unwrap();
    assert_eq!((mounts.len(), mounts[0].kind.as_str()), (1, "overlay"));
    assert_eq!(option(&mounts[0], "lowerdir"), Some(tree(1).as_str()));
    assert_eq!(option(&mounts[0], "upperdir"), Some(tree(4).as_str()));
    assert!(option(&mounts[0], "workdir").unwrap().ends_with("/4/work"));
    snapshots.commit(&name("B"), &key("b"), Commit::default()).await.unwrap();

    let mounts = snapshots.view(&key("x"), Some(&name("B")), Labels::new()).await.unwrap();
    assert_eq!(option(&mounts[0], "lowerdir"), Some(format!("{}:{}", tree(4), tree(1)).as_str()));
    assert_eq!((option(&mounts[0], "upperdir"), option(&mounts[0], "workdir")), (None, None));
}

#[tokio::test]
async fn layers_filled_side_by_side_are_put_onto_each_other_with_their_whiteouts() {
    let (_directory, snapshots) = open().await;
    assert!(snapshots.capabilities().rebase);
    rebased(&snapshots, "one", None, |root| {
        fs::write(root.join("gone"), "1").unwrap();
        fs::create_dir(root.join("opaque")).unwrap();
        fs::write(root.join("opaque/below"), "1").unwrap();
        fs::write(root.join("stays"), "1").unwrap();
    })
    .await;
    rebased(&snapshots, "two", Some("one"), |root| {
        rustix::fs::mknodat(CWD, root.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        fs::create_dir(root.join("opaque")).unwrap();
        rustix::fs::setxattr(root.join("opaque"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        fs::write(root.join("opaque/above"), "2").unwrap();
    })
    .await;
    assert_eq!(snapshots.stat(&key("two")).await.unwrap().parent, Some(name("one")));
    assert!(snapshots.remove(&key("one")).await.unwrap_err().is(Kind::FailedPrecondition));
    let mounts = snapshots.view(&key("view"), Some(&name("two")), Labels::new()).await.unwrap();
    within(&mounts, |root| {
        assert!(!root.join("gone").exists() && root.join("stays").exists());
        assert!(!root.join("opaque/below").exists() && root.join("opaque/above").exists());
    });
    let mounts = snapshots.view(&key("alone"), Some(&name("one")), Labels::new()).await.unwrap();
    within(&mounts, |root| assert!(root.join("gone").exists()));
}

#[tokio::test]
async fn only_a_snapshot_without_a_parent_gets_another_one() {
    let (_directory, snapshots) = open().await;
    rebased(&snapshots, "one", None, |_| {}).await;
    rebased(&snapshots, "two", None, |_| {}).await;
    snapshots.prepare(&key("work"), Some(&name("one")), Labels::new()).await.unwrap();
    let onto = |parent: &str| Commit { parent: Some(name(parent)), ..Commit::default() };
    let error = snapshots.commit(&name("x"), &key("work"), onto("two")).await.unwrap_err();
    assert!(error.is(Kind::FailedPrecondition), "{error:?}");
    snapshots.prepare(&key("free"), None, Labels::new()).await.unwrap();
    let error = snapshots.commit(&name("y"), &key("free"), onto("absent")).await.unwrap_err();
    assert!(error.is(Kind::NotFound), "{error:?}");
    let error = snapshots.commit(&name("y"), &key("free"), onto("work")).await.unwrap_err();
    assert!(error.is(Kind::FailedPrecondition), "{error:?}");
    snapshots.commit(&name("x"), &key("work"), onto("one")).await.unwrap();
    snapshots.commit(&name("y"), &key("free"), onto("x")).await.unwrap();
}

#[tokio::test]
async fn the_root_directory_is_the_parents_unless_the_layer_says_otherwise() {
    let (_directory, snapshots) = open().await;
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_001);
    let say = |root: &Path, mode: u32, owner: u32| {
        std::os::unix::fs::chown(root, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(mode)).unwrap();
        fs::File::open(root).unwrap().set_modified(long_ago).unwrap();
    };
    rebased(&snapshots, "base", None, |root| say(root, 0o2555, 7)).await;
    rebased(&snapshots, "silent", Some("base"), |root| fs::write(root.join("file"), "").unwrap()).await;
    rebased(&snapshots, "default", Some("base"), |root| say(root, 0o755, 0)).await;
    rebased(&snapshots, "own", Some("base"), |root| say(root, 0o700, 9)).await;
    for (parent, mode, owner) in [("silent", 0o2555, 7), ("default", 0o755, 0), ("own", 0o700, 9)] {
        for (number, mounts) in [
            snapshots.view(&key(&format!("view-{parent}")), Some(&name(parent)), Labels::new()).await.unwrap(),
            snapshots.prepare(&key(&format!("work-{parent}")), Some(&name(parent)), Labels::new()).await.unwrap(),
        ]
        .into_iter()
        .enumerate()
        {
            within(&mounts, |root| {
                let metadata = fs::metadata(root).unwrap();
                assert_eq!(
                    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
                    (mode, owner, owner),
                    "{parent} {number}"
                );
            });
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_is_mounted_is_not_removed() {
    let (directory, snapshots) = open().await;
    layer(&snapshots, "one", None, |root| fs::write(root.join("file"), "1").unwrap()).await;
    layer(&snapshots, "two", Some("one"), |_| {}).await;
    let refused = async |snapshot: &str, mounted: &Temporary| {
        let error = snapshots.remove(&key(snapshot)).await.unwrap_err();
        assert!(error.is(Kind::FailedPrecondition), "{error:?}");
        let target = mounted.path().display().to_string();
        assert!(error.to_string().contains(&target) && error.hint_text().unwrap().contains(&target), "{error:?}");
    };

    let mounts = snapshots.prepare(&key("work"), Some(&name("two")), Labels::new()).await.unwrap();
    let mounted = Temporary::mount(&mounts, directory.path()).unwrap();
    refused("work", &mounted).await;
    mounted.close().unwrap();
    snapshots.remove(&key("work")).await.unwrap();

    let mounts = snapshots.prepare(&key("alone"), None, Labels::new()).await.unwrap();
    let mounted = Temporary::mount(&mounts, directory.path()).unwrap();
    refused("alone", &mounted).await;
    mounted.close().unwrap();
    snapshots.remove(&key("alone")).await.unwrap();

    // The view's record may go, what it shows may not.
    let mounts = snapshots.view(&key("view"), Some(&name("two")), Labels::new()).await.unwrap();
    let mounted = Temporary::mount(&mounts, directory.path()).unwrap();
    snapshots.remove(&key("view")).await.unwrap();
    refused("two", &mounted).await;
    assert_eq!(fs::read_to_string(mounted.path().join("file")).unwrap(), "1");
    mounted.close().unwrap();
    snapshots.remove(&key("two")).await.unwrap();
    snapshots.remove(&key("one")).await.unwrap();
    assert_eq!(fs::read_dir(directory.path().join("snapshots")).unwrap().count(), 0);
}

#[tokio::test]
async fn usage_is_a_layers_own_and_stored_when_it_is_committed() {
    let (directory, snapshots) = open().await;
    layer(&snapshots, "one", None, |root| fs::write(root.join("big"), vec![1; 1 << 20]).unwrap()).await;
    let mounts = snapshots.prepare(&key("work"), Some(&name("one")), Labels::new()).await.unwrap();
    assert_eq!(snapshots.usage(&key("work")).await.unwrap().inodes, 1);
    within(&mounts, |root| {
        fs::write(root.join("small"), vec![1; 5000]).unwrap();
        fs::remove_file(root.join("big")).unwrap();
    });
    assert!(fs::symlink_metadata(directory.path().join("snapshots/2/fs/big")).unwrap().file_type().is_char_device());
    let live = snapshots.usage(&key("work")).await.unwrap();
    assert_eq!(live.inodes, 3);
    assert!((5000..64 << 10).contains(&live.bytes), "{live:?}");
    snapshots.commit(&name("two"), &key("work"), Commit::default()).await.unwrap();
    assert_eq!(snapshots.usage(&key("two")).await.unwrap(), live);
    let one = snapshots.usage(&key("one")).await.unwrap();
    assert!(one.bytes >= 1 << 20 && one.inodes == 2, "{one:?}");
}

#[tokio::test]
async fn a_deep_stack_is_mounted() {
    let (_directory, snapshots) = open().await;
    for number in 0..120 {
        let parent = (number > 0).then(|| format!("layer-{}", number - 1));
        rebased(&snapshots, &format!("layer-{number}"), parent.as_deref(), |root| {
            fs::write(root.join(format!("file-{number}")), "").unwrap();
        })
        .await;
    }
    let mounts = snapshots.prepare(&key("work"), Some(&name("layer-119")), Labels::new()).await.unwrap();
    within(&mounts, |root| assert_eq!(fs::read_dir(root).unwrap().count(), 120));
}

#[tokio::test]
async fn a_path_that_options_cannot_carry_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for bad in ["a:b", "a,b", "a\\b", "a\nb"] {
        let error = Overlay::open(&directory.path().join(bad)).await.err().unwrap();
        assert!(error.is(Kind::InvalidArgument) && error.hint_text().is_some(), "{error:?}");
    }
    let error = mount::mount_all(&[], directory.path()).unwrap_err();
    assert!(error.is(Kind::InvalidArgument));
}

#[tokio::test]
async fn only_root_may_look_into_the_snapshots() {
    let (directory, _snapshots) = open().await;
    assert_eq!(fs::metadata(directory.path().join("snapshots")).unwrap().mode() & 0o777, 0o700);
}
