//! What only the EROFS snapshotter does.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use windlass_core::fsck::Problem;
use windlass_core::snapshot::{
    Commit, EROFS_LAYER, EROFS_LOWER, LAYER_DATA, LAYER_IMAGE, Mount, Snapshotter, TARGET_LABEL, UNPACK_LABEL,
};
use windlass_core::{Kind, Labels};
use windlass_erofs::{Attributes, Device, IMPLIED_ROOT, Limits, Packer, Time, Tree, Volume, What, Xattrs};
use windlass_snapshot::erofs::Erofs;
use windlass_snapshot::fsck::{Depth, inspect};
use windlass_snapshot::mount::{self, Temporary, mount_all, mounted_at};

use crate::{key, layer, name, within};

async fn open() -> (tempfile::TempDir, Erofs) {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Erofs::open(directory.path()).await.unwrap();
    (directory, snapshots)
}

/// What a layer says of `/`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    /// Nothing.
    Silent,
    /// That it has this mode, and an attribute.
    Mode(u16),
}

/// Writes the image of a layer where the mounts say.
fn unpack(mounts: &[Mount], root: Root, files: &[(&str, &str)], gone: &[&str]) {
    let [mount] = mounts else { panic!("{mounts:?}") };
    assert_eq!(mount.kind, EROFS_LAYER);
    let directory = Path::new(&mount.source);
    let (mut tree, mut packer) = (Tree::new(Limits::default()), Packer::new());
    let mut data = File::create(directory.join(LAYER_DATA)).unwrap();
    let top = tree.root();
    let mut volume = Volume { name: IMPLIED_ROOT, ..Volume::default() };
    if let Root::Mode(permissions) = root {
        let mtime = Time { seconds: 5, nanoseconds: 6 };
        let xattrs = Xattrs::from([(b"user.root".to_vec(), b"yes".to_vec())]);
        tree.set_attributes(top, &Attributes { permissions, uid: 7, gid: 8, mtime, xattrs }).unwrap();
        volume.name = [0; 16];
    }
    for (name, content) in files {
        let node = tree.add(top, name.as_bytes(), What::Regular, &Attributes::default()).unwrap();
        packer.begin(content.len() as u64, false).unwrap();
        tree.set_data(node, content.len() as u64, packer.end()).unwrap();
        let mut block = content.as_bytes().to_vec();
        block.resize(content.len().next_multiple_of(4096), 0);
        data.write_all(&block).unwrap();
    }
    for name in gone {
        tree.add(top, name.as_bytes(), What::Character(Device::default()), &Attributes::default()).unwrap();
    }
    volume.data_blocks = packer.blocks().max(1);
    data.set_len(u64::from(volume.data_blocks) * 4096).unwrap();
    tree.write(&volume, File::create(directory.join(LAYER_IMAGE)).unwrap()).unwrap();
}

/// Makes a layer in the way of a pull: by itself, and put onto its parent at the commit.
async fn image(snapshots: &Erofs, layer: &str, parent: Option<&str>, root: Root, files: &[(&str, &str)]) {
    let work = key(&format!("{layer}-work"));
    let labels = Labels::new().with(UNPACK_LABEL, "yes");
    let mounts = snapshots.prepare(&work, None, labels).await.unwrap();
    unpack(&mounts, root, files, &[]);
    let commit = Commit { parent: parent.map(name), ..Commit::default() };
    snapshots.commit(&name(layer), &work, commit).await.unwrap();
}

async fn three(snapshots: &Erofs) {
    image(snapshots, "a", None, Root::Mode(0o750), &[("one", "a"), ("two", "a")]).await;
    image(snapshots, "b", Some("a"), Root::Silent, &[("two", "b")]).await;
    image(snapshots, "c", Some("b"), Root::Mode(0o711), &[("three", "c")]).await;
}

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).unwrap()
}

fn kinds(mounts: &[Mount]) -> Vec<&str> {
    mounts.iter().map(|mount| mount.kind.as_str()).collect()
}

/// Counts the mounts at some places, or below them: other tests have theirs elsewhere.
fn mounts_below(places: &[PathBuf]) -> usize {
    let is_ours = |mounted: &mount::MountedAt| places.iter().any(|place| mounted.target.starts_with(place));
    mount::mounts().unwrap().iter().filter(|mounted| is_ours(mounted)).count()
}

#[tokio::test]
async fn a_stack_of_images_is_one_mount_whatever_their_number() {
    let (directory, snapshots) = open().await;
    three(&snapshots).await;
    let view = snapshots.view(&key("view"), Some(&name("c")), Labels::new()).await.unwrap();
    assert_eq!(kinds(&view), [EROFS_LOWER, EROFS_LOWER, EROFS_LOWER, "overlay"]);
    let target = tempfile::tempdir().unwrap();
    let below = [directory.path(), target.path()].map(|path| path.canonicalize().unwrap());
    mount_all(&view, target.path()).unwrap();
    assert_eq!(mounts_below(&below), 1);
    assert_eq!(["one", "two", "three"].map(|file| read(target.path(), file)), ["a", "b", "c"]);
    let lowers = mounted_at(target.path()).unwrap().unwrap().layers().unwrap().lowers;
    let root = directory.path().canonicalize().unwrap().join("snapshots");
    assert_eq!(lowers, [3, 2, 1].map(|id| root.join(format!("{id}/fs"))));

    // What it is made of is in use, though only the table of mounts says so.
    snapshots.remove(&key("view")).await.unwrap();
    let error = snapshots.remove(&key("c")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    mount::unmount_all(&view, target.path()).unwrap();
    assert_eq!(mounts_below(&below), 0);
    snapshots.remove(&key("c")).await.unwrap();
}

#[tokio::test]
async fn a_view_of_one_image_is_a_mount_that_anybody_can_make() {
    let (directory, snapshots) = open().await;
    three(&snapshots).await;
    let view = snapshots.view(&key("view"), Some(&name("a")), Labels::new()).await.unwrap();
    let root = directory.path().canonicalize().unwrap().join("snapshots/1");
    let options = vec!["ro".to_owned(), format!("device={}", root.join(LAYER_DATA).display())];
    let source = root.join(LAYER_IMAGE).display().to_string();
    assert_eq!(view, [Mount { kind: "erofs".into(), source, target: String::new(), options }]);
    let target = tempfile::tempdir().unwrap();
    let mounted = Temporary::mount(&view, target.path()).unwrap();
    assert_eq!(read(mounted.path(), "two"), "a");
    assert_eq!(fs::write(mounted.path().join("two"), "").unwrap_err().raw_os_error(), Some(30));
    snapshots.remove(&key("view")).await.unwrap();
    snapshots.remove(&key("c")).await.unwrap();
    snapshots.remove(&key("b")).await.unwrap();
    let error = snapshots.remove(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    mounted.close().unwrap();
    snapshots.remove(&key("a")).await.unwrap();
}

#[tokio::test]
async fn what_is_written_to_a_snapshot_on_images_becomes_a_layer_on_them() {
    let (_directory, snapshots) = open().await;
    three(&snapshots).await;
    layer(&snapshots, "d", Some("c"), |root| {
        fs::write(root.join("one"), "d").unwrap();
        fs::remove_file(root.join("two")).unwrap();
        assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o7777, 0o711);
    })
    .await;
    image(&snapshots, "e", Some("d"), Root::Silent, &[("three", "e")]).await;
    let view = snapshots.view(&key("view"), Some(&name("e")), Labels::new()).await.unwrap();
    assert_eq!(kinds(&view), [EROFS_LOWER, EROFS_LOWER, EROFS_LOWER, EROFS_LOWER, "overlay"]);
    within(&view, |root| {
        assert_eq!(["one", "three"].map(|file| read(root, file)), ["d", "e"]);
        assert!(!root.join("two").exists());
        let metadata = fs::metadata(root).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o711, 7, 8));
    });
    let on = Labels::new().with(UNPACK_LABEL, "yes");
    let error = snapshots.prepare(&key("onto"), Some(&name("e")), on).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
}

#[tokio::test]
async fn a_layer_that_is_silent_about_the_root_has_the_one_below() {
    let (_directory, snapshots) = open().await;
    three(&snapshots).await;
    // Of "b", which was silent: that of "a", with its attribute, for which there was no room in the image.
    for (layer, mode) in [("b", 0o750), ("c", 0o711)] {
        let view = snapshots.view(&key("view"), Some(&name(layer)), Labels::new()).await.unwrap();
        within(&view, |root| {
            let metadata = fs::metadata(root).unwrap();
            let found = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime());
            assert_eq!(found, (mode, 7, 8, 5), "{layer}");
            let mut value = [0; 8];
            assert_eq!(rustix::fs::getxattr(root, "user.root", &mut value[..]), Ok(3), "{layer}");
        });
        snapshots.remove(&key("view")).await.unwrap();
    }
    image(&snapshots, "silent", None, Root::Silent, &[("x", "x")]).await;
    image(&snapshots, "on it", Some("silent"), Root::Silent, &[("y", "y")]).await;
    let view = snapshots.view(&key("view"), Some(&name("on it")), Labels::new()).await.unwrap();
    within(&view, |root| assert_eq!(fs::metadata(root).unwrap().mode() & 0o7777, 0o755));
}

#[tokio::test]
async fn a_layer_that_needs_its_parent_is_told_where_that_is() {
    let (directory, snapshots) = open().await;
    three(&snapshots).await;
    let labels = Labels::new().with(TARGET_LABEL, "d");
    let mounts = snapshots.prepare(&key("work"), Some(&name("c")), labels).await.unwrap();
    let root = directory.path().canonicalize().unwrap().join("snapshots");
    let below = |id: u64| format!("lower={}", root.join(id.to_string()).display());
    assert_eq!(mounts[0].options, [below(3), below(2), below(1)]);
    assert_eq!(snapshots.mounts(&key("work")).await.unwrap(), mounts);
    // Nobody can take it for something to write to.
    let target = tempfile::tempdir().unwrap();
    assert_eq!(mount_all(&mounts, target.path()).unwrap_err().kind(), Kind::FailedPrecondition);
    unpack(&mounts, Root::Mode(0o755), &[("four", "d")], &["one"]);
    snapshots.commit(&name("d"), &key("work"), Commit::default()).await.unwrap();
    let view = snapshots.view(&key("view"), Some(&name("d")), Labels::new()).await.unwrap();
    within(&view, |root| {
        assert!(!root.join("one").exists());
        assert_eq!(read(root, "four"), "d");
    });
}

#[tokio::test]
async fn a_layer_is_a_handful_of_inodes_and_one_that_lost_a_file_is_found() {
    let (directory, snapshots) = open().await;
    three(&snapshots).await;
    let usage = snapshots.usage(&key("c")).await.unwrap();
    assert_eq!(usage.inodes, 3);
    assert!((8192..65_536).contains(&usage.bytes), "{usage:?}");
    drop(snapshots);
    let look = || inspect(directory.path(), "erofs", Depth::Files).unwrap().findings;
    assert_eq!(look(), []);
    fs::remove_file(directory.path().join("snapshots/2").join(LAYER_IMAGE)).unwrap();
    let [found] = &look()[..] else { panic!("{:?}", look()) };
    assert!(matches!(&found.problem, Problem::TreeChanged { inner, .. } if inner == "b"), "{found:?}");
}

#[tokio::test]
async fn a_mount_of_images_is_known_to_the_check() {
    let (directory, snapshots) = open().await;
    three(&snapshots).await;
    let target = tempfile::tempdir().unwrap();
    let shown = |path: &Path| -> Vec<(PathBuf, bool)> {
        let inspected = inspect(directory.path(), "erofs", Depth::Directories).unwrap();
        let shown = windlass_snapshot::fsck::shown(directory.path(), &inspected.snapshots).unwrap();
        shown.into_iter().filter(|shown| shown.target.starts_with(path)).map(|s| (s.target, s.kept)).collect()
    };
    for layer in ["a", "c"] {
        let view = snapshots.view(&key("view"), Some(&name(layer)), Labels::new()).await.unwrap();
        let mounted = Temporary::mount(&view, target.path()).unwrap();
        let path = mounted.path().canonicalize().unwrap();
        assert_eq!(shown(&path), [(path.clone(), true)], "{layer}");
        snapshots.remove(&key("view")).await.unwrap();
        assert_eq!(shown(&path), [(path.clone(), false)], "{layer}");
        mounted.close().unwrap();
        assert_eq!(shown(&path), [], "{layer}");
    }
}

#[tokio::test]
async fn a_hundred_images_stack() {
    let (_directory, snapshots) = open().await;
    let mut parent: Option<String> = None;
    for number in 0..100 {
        let layer = format!("layer-{number}");
        let file = format!("file-{number}");
        image(&snapshots, &layer, parent.as_deref(), Root::Silent, &[(&file, "x"), ("last", &file)]).await;
        parent = Some(layer);
    }
    let mounts = snapshots.prepare(&key("work"), Some(&name("layer-99")), Labels::new()).await.unwrap();
    within(&mounts, |root| {
        assert_eq!(fs::read_dir(root).unwrap().count(), 101);
        assert_eq!(read(root, "last"), "file-99");
        fs::write(root.join("file-0"), "changed").unwrap();
    });
}

#[tokio::test]
async fn a_damaged_image_is_refused_when_it_is_mounted() {
    let (directory, snapshots) = open().await;
    three(&snapshots).await;
    let path = directory.path().join("snapshots/1").join(LAYER_IMAGE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1024..1028].fill(0);
    fs::write(&path, bytes).unwrap();
    let view = snapshots.view(&key("view"), Some(&name("b")), Labels::new()).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    let error = mount_all(&view, target.path()).unwrap_err();
    assert!(error.to_string().contains("layer.erofs"), "{error}");
    let below = [directory.path(), target.path()].map(|path| path.canonicalize().unwrap());
    assert_eq!(mounts_below(&below), 0);
}
