//! Images mounted by the kernel and checked by `fsck.erofs`, against what our own reader says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{SeekFrom, seek};
use rustix::mount::{MountFlags, UnmountFlags};
use windlass_erofs::{Attributes, Device, FileType, Time, What, Xattrs};

use crate::sample::{Content, Listing, Maker, Seen, list_image, not_zero, plain, settle, xattrs};

/// A mounted image, unmounted when it goes.
struct Mounted(PathBuf);

impl Mounted {
    fn new(directory: &Path) -> Self {
        let target = directory.join("mnt");
        fs::create_dir(&target).unwrap();
        let options = format!("device={}\0", directory.join("data").display());
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
        rustix::mount::mount(directory.join("image"), &target, "erofs", MountFlags::RDONLY, options).unwrap();
        Self(target)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Checks an image in every way there is, and returns what is in it.
pub(crate) fn check(directory: &Path) -> Listing {
    let listing = list_image(directory);
    let checked = Command::new("fsck.erofs")
        .arg(format!("--device={}", directory.join("data").display()))
        .arg("-d3")
        .arg("--extract")
        .arg(directory.join("image"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("No errors found"), "{said}");
    let mounted = Mounted::new(directory);
    let seen = list_mounted(&mounted.0);
    for (path, expected) in &listing {
        assert_eq!(seen.get(path), Some(expected), "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(seen.len(), listing.len());
    listing
}

fn list_mounted(root: &Path) -> Listing {
    let (mut listing, mut names) = (Listing::new(), BTreeMap::new());
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let full = root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path)));
        let metadata = fs::symlink_metadata(&full).unwrap();
        if metadata.is_dir() {
            for entry in fs::read_dir(&full).unwrap() {
                open.push([&path[..], b"/", entry.unwrap().file_name().as_bytes()].concat());
            }
        }
        let same_as = names.entry(metadata.ino()).or_insert_with(|| path.clone()).clone();
        listing.insert(path, see(&full, &metadata, same_as));
    }
    settle(&mut listing);
    listing
}

fn see(path: &Path, metadata: &fs::Metadata, same_as: Vec<u8>) -> Seen {
    let mode = metadata.mode();
    let file_type = match mode >> 12 {
        0o1 => FileType::Fifo,
        0o2 => FileType::Character,
        0o4 => FileType::Directory,
        0o6 => FileType::Block,
        0o10 => FileType::Regular,
        0o12 => FileType::Symlink,
        _ => FileType::Socket,
    };
    let mut content = Content::default();
    if file_type == FileType::Symlink {
        content.0.insert(0, fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec());
    } else if file_type == FileType::Regular {
        read(path, metadata.len(), &mut content);
    }
    let rdev = metadata.rdev();
    let device = Device { major: rustix::fs::major(rdev), minor: rustix::fs::minor(rdev) };
    let attributes = Attributes {
        permissions: u16::try_from(mode & 0o7777).unwrap(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: Time { seconds: metadata.mtime(), nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap() },
        xattrs: read_xattrs(path),
    };
    let size = if file_type == FileType::Directory { 0 } else { metadata.len() };
    Seen { file_type, attributes, nlink: u32::try_from(metadata.nlink()).unwrap(), size, device, content, same_as }
}

/// Reads what the kernel does not call a hole.
fn read(path: &Path, size: u64, content: &mut Content) {
    let file = File::open(path).unwrap();
    let mut at = 0;
    while at < size {
        let Ok(start) = seek(&file, SeekFrom::Data(at)) else { break };
        let end = seek(&file, SeekFrom::Hole(start)).unwrap();
        let mut offset = start;
        while offset < end {
            let mut bytes = vec![0; usize::try_from((end - offset).min(1 << 20)).unwrap()];
            file.read_exact_at(&mut bytes, offset).unwrap();
            not_zero(content, offset, &bytes);
            offset += bytes.len() as u64;
        }
        at = end;
    }
}

fn read_xattrs(path: &Path) -> Xattrs {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names.get(..length).unwrap().split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A list of access rights for one more user, as acl(5) has it in memory.
fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn an_empty_tree() {
    let directory = scratch();
    Maker::new(directory.path()).write();
    assert_eq!(check(directory.path()).len(), 1);
}

#[test]
fn every_kind_of_file() {
    let directory = scratch();
    let mut maker = Maker::new(directory.path());
    let root = maker.root();
    maker.tree.set_attributes(root, &Attributes { uid: 3, ..plain(0o1777) }).unwrap();
    let owner = Attributes { uid: 70_000, gid: 4_000_000_000, ..plain(0o6755) };
    let file = maker.add(root, "file", What::Regular, &owner);
    maker.fill(file, 5, &[(0, b"hello")], false);
    maker.add(root, "empty", What::Regular, &plain(0));
    maker.add(root, "link", What::Symlink(b"file"), &plain(0o777));
    maker.add(root, "long", What::Symlink(&[b'l'; 2048]), &plain(0o777));
    maker.add(root, "longer", What::Symlink(&[b'm'; 2049]), &plain(0o777));
    maker.add(root, "longest", What::Symlink(&[b'n'; 4095]), &plain(0o777));
    maker.add(root, "null", What::Character(Device { major: 1, minor: 3 }), &plain(0o666));
    maker.add(root, "gone", What::Character(Device::default()), &plain(0));
    maker.add(root, "disk", What::Block(Device { major: 259, minor: 70_000 }), &plain(0o660));
    maker.add(root, "pipe", What::Fifo, &plain(0o600));
    maker.add(root, "socket", What::Socket, &plain(0o600));
    maker.tree.link(root, b"other name", file).unwrap();
    let below = maker.dir(root, "!before the dots");
    maker.tree.link(below, b"third", file).unwrap();
    for (name, seconds, nanoseconds) in [("1960", -315_619_200, 1), ("2500", 16_725_225_600, 999_999_999)] {
        let mtime = Time { seconds, nanoseconds };
        maker.add(below, name, What::Regular, &Attributes { mtime, ..plain(0o600) });
    }
    maker.write();
    let listing = check(directory.path());
    assert_eq!(listing.len(), 17);
    assert_eq!(listing[&b"/file"[..]].nlink, 3);
    assert_eq!(listing[&b"/other name"[..]].same_as, b"/!before the dots/third");
    assert_eq!(listing[&b"/file"[..]].attributes, owner);
    assert_eq!(listing[&b""[..]].nlink, 3);
}

#[test]
fn extended_attributes_alone_and_shared() {
    let directory = scratch();
    let mut maker = Maker::new(directory.path());
    let root = maker.root();
    let many: Vec<(String, Vec<u8>)> = (0..40u8).map(|n| (format!("user.number-{n}"), vec![n; 50])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
    let sets = [
        xattrs(&[("security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]),
        xattrs(&[("system.posix_acl_access", &acl())]),
        xattrs(&[("user.a", b""), ("trusted.overlay.opaque", b"y"), ("security.other", b"x")]),
        xattrs(&many),
        xattrs(&[("user.large", &vec![9; 60_000])]),
    ];
    for (number, xattrs) in sets.iter().enumerate() {
        for copy in 0..=number % 3 {
            let permissions = if xattrs.contains_key(&b"system.posix_acl_access"[..]) { 0o664 } else { 0o644 };
            let attributes = Attributes { xattrs: xattrs.clone(), ..plain(permissions) };
            let node = maker.add(root, &format!("{number}-{copy}"), What::Regular, &attributes);
            maker.fill(node, 3, &[(0, b"abc")], false);
            let directory = maker.add(root, &format!("{number}-{copy}-dir"), What::Directory, &attributes);
            maker.file(directory, "inside", b"x");
        }
    }
    let default = Attributes { xattrs: xattrs(&[("system.posix_acl_default", &acl())]), ..plain(0o755) };
    maker.add(root, "default", What::Directory, &default);
    maker.write();
    let listing = check(directory.path());
    assert_eq!(listing[&b"/3-0"[..]].attributes.xattrs.len(), 40);
    assert_eq!(listing[&b"/default"[..]].attributes, default);
}

#[test]
fn the_last_inode_may_end_where_a_block_does() {
    // Names of other lengths move the inodes behind them.
    let ends_with_a_block = |length: &usize| {
        let directory = scratch();
        let mut maker = Maker::new(directory.path());
        let root = maker.root();
        maker.add(root, &"x".repeat(*length), What::Fifo, &plain(0o600));
        for pipe in 0..52 {
            maker.add(root, &format!("pipe-{pipe}"), What::Fifo, &plain(0o600));
        }
        maker.write();
        check(directory.path());
        let image = fs::read(directory.path().join("image")).unwrap();
        let (inodes, behind) = image.split_at(4096);
        let last = inodes.last_chunk::<32>().unwrap();
        last.iter().any(|byte| *byte != 0) && behind.iter().all(|byte| *byte == 0)
    };
    assert!((1..=64).any(|length| ends_with_a_block(&length)));
}

#[test]
fn sizes_around_blocks_and_holes() {
    let directory = scratch();
    let mut maker = Maker::new(directory.path());
    let root = maker.root();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8 + 1).collect();
    for size in [1, 511, 512, 4095, 4096, 4097, 8191, 8192, 8193, 65_536, 300_000] {
        maker.file(root, &format!("size-{size}"), &bytes[..size]);
    }
    let sparse = |maker: &mut Maker, name: &str, size: u64, parts: &[(u64, &[u8])]| {
        let node = maker.add(root, name, What::Regular, &plain(0o644));
        maker.fill(node, size, parts, true);
    };
    sparse(&mut maker, "only-hole", 10_000, &[]);
    sparse(&mut maker, "holes", 100_000, &[(5_000, &bytes[..5_000]), (99_999, b"z")]);
    sparse(
        &mut maker,
        "more than 4 GiB",
        (5 << 30) + 7,
        &[(1, b"first"), (4 << 30, &bytes[..200_000]), ((5 << 30) + 6, b"last")],
    );
    sparse(&mut maker, "a tebibyte", 1 << 40, &[(1 << 39, b"middle")]);
    let attributes = Attributes { xattrs: xattrs(&[("user.odd", b"123")]), ..plain(0o600) };
    let node = maker.add(root, "odd", What::Regular, &attributes);
    maker.fill(node, 20_000, &[(8_192, &bytes[..100])], true);
    maker.write();
    let listing = check(directory.path());
    assert_eq!(listing[&b"/only-hole"[..]].content, Content::default());
    assert_eq!(listing[&b"/more than 4 GiB"[..]].content.0.len(), 51);
    assert!(fs::metadata(directory.path().join("data")).unwrap().blocks() * 512 < 2 << 20);
}

#[test]
fn names_of_every_length_and_many_of_them() {
    let directory = scratch();
    let mut maker = Maker::new(directory.path());
    let root = maker.root();
    let lengths = maker.dir(root, "lengths");
    for length in 1..=255 {
        maker.add(lengths, &"n".repeat(length), What::Regular, &plain(0o644));
    }
    // Directories whose last block is just full, or one byte over.
    for count in [313, 314, 315, 627, 628] {
        let parent = maker.dir(root, &format!("of-{count}"));
        for number in 0..count {
            maker.add(parent, &number.to_string(), What::Fifo, &plain(0o600));
        }
    }
    let bytes = maker.dir(root, "bytes");
    for byte in (1..=255u8).filter(|byte| !matches!(byte, b'/' | b'.')) {
        maker.tree.add(bytes, &[byte], What::Regular, &plain(0o600)).unwrap();
        maker.tree.add(bytes, &[b'.', byte], What::Regular, &plain(0o600)).unwrap();
    }
    let mut deep = root;
    for number in 0..300 {
        deep = maker.dir(deep, &format!("deep-{number}"));
    }
    maker.file(deep, "bottom", b"here");
    maker.write();
    assert_eq!(check(directory.path()).len(), 1 + 1 + 255 + 5 + 2197 + 1 + 253 * 2 + 301);
}

#[test]
fn a_directory_of_a_hundred_thousand() {
    let directory = scratch();
    let mut maker = Maker::new(directory.path());
    let root = maker.root();
    let large = maker.dir(root, "large");
    for number in 0..100_000 {
        maker.add(large, &format!("file-{number}"), What::Regular, &plain(0o644));
    }
    let per_file = maker.tree.memory() / 100_000;
    assert!(per_file < 130, "{per_file} bytes a file");
    maker.write();
    let mounted = Mounted::new(directory.path());
    assert_eq!(fs::read_dir(mounted.0.join("large")).unwrap().count(), 100_000);
    for number in [0, 1, 9_999, 50_000, 99_999] {
        assert_eq!(fs::metadata(mounted.0.join(format!("large/file-{number}"))).unwrap().len(), 0);
    }
}

#[test]
fn what_was_replaced_or_removed_is_not_there() {
    let directory = scratch();
    let mut maker = Maker::new(directory.path());
    let root = maker.root();
    let old = maker.dir(root, "a");
    let inside = maker.file(old, "inside", b"old");
    maker.tree.link(root, b"kept", inside).unwrap();
    maker.file(root, "b", b"old");
    maker.file(root, "a", b"new");
    let new = maker.dir(root, "b");
    maker.file(new, "inside", b"new");
    maker.file(root, "c", b"gone");
    maker.tree.remove(root, b"c");
    maker.write();
    let listing = check(directory.path());
    let paths: Vec<_> = listing.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(paths, ["", "/a", "/b", "/b/inside", "/kept"]);
    assert_eq!(listing[&b"/kept"[..]].nlink, 1);
}

#[test]
fn the_same_tree_makes_the_same_bytes() {
    let images: Vec<Vec<u8>> = [false, true]
        .map(|reverse| {
            let directory = scratch();
            let mut maker = Maker::new(directory.path());
            let root = maker.root();
            let below = maker.dir(root, "dir");
            let mut names: Vec<u32> = (0..1000).collect();
            if reverse {
                names.reverse();
            }
            for number in names {
                maker.add(below, &number.to_string(), What::Regular, &plain(0o644));
            }
            maker.write();
            fs::read(directory.path().join("image")).unwrap()
        })
        .into();
    assert!(images[0] == images[1]);
}
