//! Bytes of any kind behind a first block that is sound: they are refused or read, and reading ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_erofs::{Attributes, Image, Limits, Tree, Volume, What, change_root};

fuzz_target!(|bytes: &[u8]| {
    let mut tree = Tree::new(Limits::default());
    let root = tree.root();
    let attributes = Attributes::default();
    for number in 0..40u32 {
        let directory = tree.add(root, format!("directory-{number}").as_bytes(), What::Directory, &attributes);
        let directory = directory.expect("a directory is added");
        for number in 0..5u32 {
            tree.add(directory, format!("link-{number}").as_bytes(), What::Symlink(b"target"), &attributes)
                .expect("a link is added");
        }
    }
    let mut image = Vec::new();
    tree.write(&Volume::default(), &mut image).expect("it is written");
    // What the checksum covers stays as it is: a change there would be all that is found.
    for change in bytes.chunks_exact(4) {
        let at = 4096 + usize::from(u16::from_le_bytes([change[0], change[1]])) * 4 + usize::from(change[2] % 4);
        if let Some(byte) = image.get_mut(at) {
            *byte = change[3];
        }
    }
    for reader in [&image[..], bytes] {
        if let Ok(image) = Image::open(reader) {
            drop(Tree::of(&image, Limits { memory: 16 << 20 }));
        }
        drop(change_root(&mut reader.to_vec(), &attributes));
    }
});
