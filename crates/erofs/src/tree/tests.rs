//! What a tree takes, refuses and counts.

use super::*;

fn tree() -> Tree {
    Tree::new(Limits::default())
}

#[test]
fn what_comes_later_takes_the_place_and_everything_below_goes() {
    let (mut tree, attributes) = (tree(), Attributes::default());
    let root = tree.root();
    let dir = tree.add(root, b"a", What::Directory, &attributes).unwrap();
    let file = tree.add(dir, b"f", What::Regular, &attributes).unwrap();
    tree.link(root, b"g", file).unwrap();
    assert_eq!(tree.record(file).nlink, 2);
    let link = tree.add(root, b"a", What::Symlink(b"g"), &attributes).unwrap();
    assert_eq!((tree.find(root, b"a"), tree.find(dir, b"f")), (Some(link), None));
    assert_eq!((tree.record(file).nlink, tree.target(link)), (1, &b"g"[..]));
    let again = tree.add(root, b"a", What::Directory, &attributes).unwrap();
    assert_eq!(tree.find(again, b"f"), None);
    assert!(tree.remove(root, b"a") && !tree.remove(root, b"a") && !tree.remove(root, b"none"));
    assert_eq!(tree.find(root, b"g"), Some(file));
}

#[test]
fn names_and_attributes_that_cannot_be_are_refused() {
    let (mut tree, attributes) = (tree(), Attributes::default());
    let root = tree.root();
    let file = tree.add(root, b"f", What::Regular, &attributes).unwrap();
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'n'; 256]] {
        assert!(tree.add(root, name, What::Regular, &attributes).is_err(), "{name:?}");
    }
    assert!(tree.add(file, b"x", What::Regular, &attributes).is_err());
    assert!(tree.link(root, b"x", root).is_err());
    assert!(tree.set_xattr(file, b"system.other", b"").is_err());
}

#[test]
fn memory_is_limited_and_little() {
    let mut tree = Tree::new(Limits { memory: 200_000 });
    let root = tree.root();
    let add = |number: u32, tree: &mut Tree| {
        let name = format!("a-file-named-{number:07}");
        tree.add(root, name.as_bytes(), What::Regular, &Attributes::default()).map(drop)
    };
    let refused = (0..2_000).find_map(|number| add(number, &mut tree).err().map(|error| (number, error)));
    let (number, error) = refused.unwrap();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    assert!(number > 1_500, "only {number} files in 200,000 bytes");
}

#[test]
fn holes_take_no_room_and_indexes_of_sparse_files_count() {
    let mut tree = Tree::new(Limits { memory: 4 << 20 });
    let root = tree.root();
    for number in 0..1000 {
        let file = tree.add(root, format!("{number}").as_bytes(), What::Regular, &Attributes::default()).unwrap();
        tree.set_data(file, 256 << 20, Data::Nothing).unwrap();
    }
    let written = tree.write(&crate::Volume::default(), std::io::sink()).unwrap();
    assert!(written.bytes < 1 << 20, "{} bytes", written.bytes);
    let sparse = |_| {
        let runs = vec![Run { first: 0, count: 1, block: 0 }];
        let file = root_file(&mut tree);
        tree.set_data(file, 256 << 20, Data::Chunks { bits: chunk_bits(256 << 20), runs })
    };
    assert!((0..8).map(sparse).any(|set| matches!(set, Err(Error::TooLarge(_)))));
}

fn root_file(tree: &mut Tree) -> Node {
    tree.add(tree.root(), b"sparse", What::Regular, &Attributes::default()).unwrap()
}

#[test]
fn chunks_grow_with_the_file() {
    for (size, bits) in [(0, 0), (1 << 28, 0), ((1 << 28) + 1, 1), (1 << 40, 12), (u64::MAX, 31)] {
        assert_eq!(chunk_bits(size), bits, "{size}");
    }
}
