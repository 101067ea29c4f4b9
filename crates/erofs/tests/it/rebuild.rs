//! Images that are changed, or made again.

use std::fs::{self, File};

use windlass_erofs::{
    Attributes, BLOCK_BITS, Device, IMPLIED_ROOT, Image, Limits, Time, Tree, Volume, What, change_root,
};

use crate::sample::{Maker, list_image, plain, xattrs};

#[test]
fn a_root_is_changed_in_place_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut maker = Maker::new(directory.path());
    let root = maker.root();
    maker.file(root, "file", &[1; 10_000]);
    maker.write();
    let path = directory.path().join("image");
    let before = list_image(directory.path());
    let mut bytes = fs::read(&path).unwrap();
    let (first, rest) = bytes.split_at_mut(1 << BLOCK_BITS);
    let attributes = Attributes { uid: 70_000, gid: 3, ..plain(0o1750) };
    assert!(change_root(first, &attributes).unwrap());
    let with_xattrs = Attributes { xattrs: xattrs(&[("user.a", b"1")]), ..plain(0o755) };
    assert!(!change_root(first, &with_xattrs).unwrap());
    assert!(change_root(&mut first.to_vec()[..2048], &attributes).is_err());
    let all = [&*first, &*rest].concat();
    fs::write(&path, all).unwrap();
    let image = Image::open(File::open(&path).unwrap()).unwrap();
    assert_eq!(image.name(), [0; 16]);
    let mut after = list_image(directory.path());
    after.entry(Vec::new()).and_modify(|root| {
        assert_eq!(root.attributes, attributes);
        root.attributes = before[&b""[..]].attributes.clone();
    });
    assert_eq!(after, before);
}

#[test]
fn an_image_that_is_made_again_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut maker = Maker::new(directory.path());
    let root = maker.root();
    let with_xattrs = Attributes { xattrs: xattrs(&[("user.a", b"1")]), ..plain(0o755) };
    for number in 0..500 {
        let below = maker.add(root, &format!("directory-{number}"), What::Directory, &with_xattrs);
        let file = maker.file(below, "file", &vec![1; number * 100]);
        maker.tree.link(root, format!("link-{number}").as_bytes(), file).unwrap();
        maker.add(below, "symlink", What::Symlink(&vec![b'x'; number * 8 + 1]), &plain(0o777));
    }
    let sparse = maker.add(root, "sparse", What::Regular, &plain(0o600));
    maker.fill(sparse, 1 << 32, &[(0, b"a"), (4096, b"b"), (1 << 31, b"c")], true);
    let hole = maker.add(root, "hole", What::Regular, &plain(0o600));
    maker.fill(hole, 1 << 20, &[], true);
    maker.write();
    let bytes = fs::read(directory.path().join("image")).unwrap();
    let image = Image::open(&bytes[..]).unwrap();
    let tree = Tree::of(&image, Limits::default()).unwrap();
    let volume = Volume { uuid: image.uuid(), name: image.name(), data_blocks: image.data_blocks() };
    let mut again = Vec::new();
    tree.write(&volume, &mut again).unwrap();
    assert!(bytes == again);
    assert!(image.name() != IMPLIED_ROOT);
}

/// A tree with something of everything that is documented.
fn golden(directory: &std::path::Path) -> Vec<u8> {
    let mut maker = Maker::new(directory);
    let root = maker.root();
    maker.tree.set_attributes(root, &plain(0o755)).unwrap();
    let shared = Attributes { xattrs: xattrs(&[("user.shared", b"value")]), ..plain(0o644) };
    for name in ["a", "b"] {
        let file = maker.add(root, name, What::Regular, &shared);
        maker.fill(file, 5, &[(0, b"hello")], false);
    }
    let own = Attributes {
        uid: 70_000,
        xattrs: xattrs(&[("security.capability", &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]),
        ..plain(0o4755)
    };
    let file = maker.add(root, "capable", What::Regular, &own);
    maker.fill(file, 10_000, &[(8_192, b"end")], true);
    maker.tree.link(root, b"other name", file).unwrap();
    let directory = maker.add(root, "directory", What::Directory, &Attributes { uid: 3, ..plain(0o750) });
    for number in 0..300 {
        maker.add(directory, &format!("file-{number}"), What::Regular, &plain(0o600));
    }
    maker.add(root, "gone", What::Character(Device::default()), &Attributes::default());
    maker.add(root, "link", What::Symlink(b"directory/file-1"), &plain(0o777));
    maker.add(root, "long link", What::Symlink(&[b'x'; 3_000]), &plain(0o777));
    maker.add(root, "pipe", What::Fifo, &Attributes { mtime: Time { seconds: -1, nanoseconds: 1 }, ..plain(0o600) });
    maker.write();
    fs::read(maker.directory.join("image")).unwrap()
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden.erofs");

#[test]
fn an_image_is_what_it_always_was() {
    let directory = tempfile::tempdir().unwrap();
    let made = golden(directory.path());
    let here = concat!(env!("CARGO_TARGET_TMPDIR"), "/golden.erofs");
    fs::write(here, &made).unwrap();
    assert!(
        made == fs::read(GOLDEN).unwrap(),
        "what is written has changed, and images that are kept have not: {here}"
    );
    crate::kernel::check(directory.path());
}
