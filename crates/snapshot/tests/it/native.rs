//! What only the native snapshotter does: copies that are equal in everything.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev};
use windlass_core::snapshot::{Commit, Snapshotter};
use windlass_core::{Kind, Labels};
use windlass_snapshot::native::Native;

use crate::{key, layer, name, within};

/// Everything that can be seen of an entry; inodes by the order in which they turn up, so that links can be compared.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    device: u64,
    modified: (i64, i64),
    link: Option<std::path::PathBuf>,
    content: Option<windlass_core::Digest>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    same_as: Option<Vec<u8>>,
}

fn look(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    visit(root, root, &mut seen, &mut first_names);
    seen
}

fn visit(root: &Path, path: &Path, all: &mut BTreeMap<Vec<u8>, Seen>, first: &mut BTreeMap<u64, Vec<u8>>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    let several = metadata.nlink() > 1 && !metadata.is_dir();
    let same_as = several.then(|| first.entry(metadata.ino()).or_insert_with(|| relative.clone()).clone());
    let seen = Seen {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        size: if metadata.is_dir() { 0 } else { metadata.size() },
        device: metadata.rdev(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        link: metadata.is_symlink().then(|| fs::read_link(path).unwrap()),
        content: metadata.is_file().then(|| windlass_core::Digest::sha256(&fs::read(path).unwrap())),
        attributes: attributes(path),
        same_as,
    };
    all.insert(relative, seen);
    if metadata.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for name in names {
            visit(root, &name, all, first);
        }
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

fn fill(root: &Path) {
    let stamp = |path: &Path, nanoseconds: u32| {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_400_000_000, nanoseconds);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    let weird = root.join(std::ffi::OsStr::from_bytes(b"weird \n\xff\\name"));
    fs::write(&weird, "weird").unwrap();
    let tool = root.join("usr/bin/tool");
    fs::write(&tool, vec![7; 300_000]).unwrap();
    std::os::unix::fs::chown(&tool, Some(70_000), Some(5)).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o6755)).unwrap();
    // cap_net_raw+ep, revision 2: linux/capability.h.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(&tool, "security.capability", &capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&tool, "user.long", &[b'x'; 2000], XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("usr"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    stamp(&tool, 123_456_789);
    fs::hard_link(&tool, root.join("a-second-name")).unwrap();
    fs::hard_link(&tool, root.join("usr/third")).unwrap();
    symlink("../nowhere\n", root.join("usr/link")).unwrap();
    rustix::fs::lsetxattr(root.join("usr/link"), "trusted.x", b"1", XattrFlags::empty()).unwrap();
    fs::hard_link(root.join("usr/link"), root.join("usr/link-again")).unwrap();
    std::os::unix::fs::lchown(root.join("usr/link"), Some(3), Some(4)).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("null", FileType::CharacterDevice, makedev(1, 3));
    node("block", FileType::BlockDevice, makedev(259, 300));
    node("fifo", FileType::Fifo, 0);
    node("socket", FileType::Socket, 0);
    node("whiteout", FileType::CharacterDevice, 0);
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 20 << 20).unwrap();
    fs::File::create(root.join("hole")).unwrap().set_len(5 << 20).unwrap();
    fs::create_dir(root.join("sticky")).unwrap();
    fs::set_permissions(root.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(root.join("closed")).unwrap();
    fs::write(root.join("closed/file"), "x").unwrap();
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    stamp(&root.join("usr"), 1);
    stamp(root, 999_999_999);
    fs::set_permissions(root, fs::Permissions::from_mode(0o750)).unwrap();
}

#[tokio::test]
async fn a_copy_equals_its_parent_in_everything() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Native::open(directory.path()).await.unwrap();
    let mounts = snapshots.prepare(&key("work"), None, Labels::new()).await.unwrap();
    within(&mounts, fill);
    let tree = directory.path().join("snapshots/1/fs");
    let before = look(&tree);
    assert_eq!(before.len(), 19);
    snapshots.commit(&name("base"), &key("work"), Commit::default()).await.unwrap();
    let mounts = snapshots.prepare(&key("copy"), Some(&name("base")), Labels::new()).await.unwrap();
    let after = within(&mounts, look);
    for (path, seen) in &before {
        assert_eq!(after.get(path), Some(seen), "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(after.len(), before.len());
    let blocks = fs::metadata(directory.path().join("snapshots/2/fs/sparse")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "holes stay holes: {blocks} blocks");
    let (base, copy) = (snapshots.usage(&key("base")).await.unwrap(), snapshots.usage(&key("copy")).await.unwrap());
    assert_eq!(base.inodes, copy.inodes);
    assert_eq!(fs::read_dir(directory.path().join("snapshots/2")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_tree_deeper_than_any_path_is_copied_measured_and_removed() {
    const DEPTH: u32 = 3000;
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Native::open(directory.path()).await.unwrap();
    layer(&snapshots, "base", None, |root| {
        fs::write(root.join("linked"), "x").unwrap();
        let pool = rustix::fs::open(root, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        let mut current = rustix::fs::open(root, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&current, "e", Mode::RWXU).unwrap();
            current = rustix::fs::openat(&current, "d", rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        }
        rustix::fs::linkat(&pool, "linked", &current, "deep", rustix::fs::AtFlags::empty()).unwrap();
    })
    .await;
    snapshots.prepare(&key("copy"), Some(&name("base")), Labels::new()).await.unwrap();
    for snapshot in ["base", "copy"] {
        assert_eq!(snapshots.usage(&key(snapshot)).await.unwrap().inodes, u64::from(2 * DEPTH) + 2);
    }
    snapshots.remove(&key("copy")).await.unwrap();
    snapshots.remove(&key("base")).await.unwrap();
    assert_eq!(fs::read_dir(directory.path().join("snapshots")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_native_snapshot_is_not_put_onto_a_parent_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Native::open(directory.path()).await.unwrap();
    assert!(!snapshots.capabilities().rebase);
    layer(&snapshots, "base", None, |_| {}).await;
    snapshots.prepare(&key("work"), None, Labels::new()).await.unwrap();
    let commit = Commit { parent: Some(name("base")), ..Commit::default() };
    let error = snapshots.commit(&name("done"), &key("work"), commit).await.unwrap_err();
    assert!(error.is(Kind::FailedPrecondition) && error.hint_text().is_some(), "{error:?}");
}
