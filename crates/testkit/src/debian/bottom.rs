//! What the first layer begins with: the merged `/usr`, and what maintainer scripts would have made.

use crate::image::Layer;

/// The directories that are links into `/usr` on a system with a merged one.
pub(super) const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// A file that the last layer removes, and a directory that it replaces.
pub(super) const REMOVED: &str = "srv/windlass/removed";
pub(super) const REPLACED: &str = "srv/windlass/replaced";
/// A file that the last layer makes a directory, and a directory that it makes a file.
pub(super) const FILE_THEN_DIRECTORY: &str = "srv/windlass/file-then-directory";
pub(super) const DIRECTORY_THEN_FILE: &str = "srv/windlass/directory-then-file";

/// base-passwd, `passwd.master` and `group.master`, as far as a shell needs them.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nstaff:x:50:\nmail:x:8:\nnogroup:x:65534:\n";

pub(super) fn layer() -> Layer {
    let mut layer = Layer::new().dir("usr", 0o755);
    for name in MERGED {
        layer = layer.dir(&format!("usr/{name}"), 0o755).symlink(name, &format!("usr/{name}"));
    }
    layer
        .symlink("usr/bin/sh", "dash")
        .dir("etc", 0o755)
        .file("etc/passwd", PASSWD)
        .file("etc/group", GROUP)
        .file("etc/hostname", "windlass\n")
        .dir("srv", 0o755)
        .dir("srv/windlass", 0o755)
        .file(REMOVED, "the last layer removes this\n")
        .dir(REPLACED, 0o755)
        .file(&format!("{REPLACED}/old"), "the last layer hides this\n")
        .file(FILE_THEN_DIRECTORY, "the last layer has a directory here\n")
        .dir(DIRECTORY_THEN_FILE, 0o755)
        .file(&format!("{DIRECTORY_THEN_FILE}/file"), "the last layer has a file where the directory is\n")
}
