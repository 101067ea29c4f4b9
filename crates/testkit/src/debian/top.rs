//! The last layer: it has every kind of entry, and changes what is below in every way a layer can.

use super::bottom::{DIRECTORY_THEN_FILE, FILE_THEN_DIRECTORY, REMOVED, REPLACED};
use crate::image::Layer;

/// `struct vfs_cap_data` of `linux/capability.h`, little-endian: revision 2 and effective, `CAP_NET_RAW` permitted.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn layer() -> Layer {
    let long = format!("srv/windlass/{}/file", "a-long-name-".repeat(15));
    Layer::new()
        .device("dev/null", 1, 3)
        .whiteout(REMOVED)
        .whiteout("usr/share/doc/bash")
        .dir(REPLACED, 0o700)
        .opaque(REPLACED)
        .file(&format!("{REPLACED}/new"), "this is new\n")
        .dir(FILE_THEN_DIRECTORY, 0o755)
        .file(&format!("{FILE_THEN_DIRECTORY}/file"), "in a directory that was a file\n")
        .file(DIRECTORY_THEN_FILE, "a file that was a directory\n")
        .file("etc/hostname", "top\n")
        .file("srv/windlass/setuid", "#!/bin/sh\n")
        .mode(0o4755)
        .dir("srv/windlass/sticky", 0o1777)
        .dir("srv/windlass/setgid", 0o2775)
        .owner(0, 50)
        .file("srv/windlass/capable", "not a program\n")
        .mode(0o755)
        .xattr("security.capability", CAPABILITY)
        .file("srv/windlass/linked", "one file, three names\n")
        .hardlink("srv/windlass/linked-again", "srv/windlass/linked")
        .hardlink("srv/windlass/sticky/linked-elsewhere", "srv/windlass/linked")
        .symlink("srv/windlass/dangling", "/nowhere/at/all")
        .fifo("srv/windlass/fifo")
        .device("srv/windlass/null", 1, 3)
        .block_device("srv/windlass/loop0", 7, 0)
        .file("srv/windlass/owned", "by a large id\n")
        .owner(4_000_000, 3_000_000)
        .file("srv/windlass/nanoseconds", "modified between two seconds\n")
        .mtime(1_600_000_000, 123_456_789)
        .file(&long, "below a long name\n")
        .file("srv/windlass/empty", "")
}
