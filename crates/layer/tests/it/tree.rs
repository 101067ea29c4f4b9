//! Trees as text, to compare.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// What is compared beside names, types and contents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Nothing.
    Shape,
    /// Nothing, and names that are listed but lead nowhere are passed over.
    Reachable,
    /// Owner, mode, attributes, links and times.
    All,
}

/// Describes everything below a directory.
pub(crate) fn tree(root: &Path, detail: Detail) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    walk(root, root, detail, &mut inodes, &mut found);
    found
}

pub(crate) fn shape(root: &Path) -> Vec<String> {
    tree(root, Detail::Shape).into_iter().map(|(name, what)| format!("{name} {what}")).collect()
}

fn walk(
    root: &Path,
    dir: &Path,
    detail: Detail,
    inodes: &mut BTreeMap<(u64, u64), String>,
    found: &mut BTreeMap<String, String>,
) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let stat = match fs::symlink_metadata(&path) {
            Err(error) if detail == Detail::Reachable && error.kind() == std::io::ErrorKind::NotFound => continue,
            stat => stat.unwrap(),
        };
        let kind = stat.file_type();
        let device = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
        let mut what = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_char_device() {
            format!("char {device:?}")
        } else if kind.is_block_device() {
            format!("block {device:?}")
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            let data = fs::read(&path).unwrap();
            let hash = windlass_core::Digest::sha256(&data);
            if data.len() <= 40 {
                format!("{:?}", String::from_utf8_lossy(&data))
            } else {
                format!("{} {}", data.len(), hash.short())
            }
        };
        if detail == Detail::All {
            let first = inodes.entry((stat.dev(), stat.ino())).or_insert_with(|| name.clone());
            if !kind.is_dir() && *first != name {
                write!(what, " = {first}").unwrap();
            }
            write!(what, " {}:{} {:o} ", stat.uid(), stat.gid(), stat.mode() & 0o7777).unwrap();
            write!(what, "{}.{:09} {:?}", stat.mtime(), stat.mtime_nsec(), xattrs(&path)).unwrap();
        }
        found.insert(name, what);
        if kind.is_dir() {
            walk(root, &path, detail, inodes, found);
        }
    }
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0; 65536];
    let count = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut all = BTreeMap::new();
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let count = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        all.insert(name.escape_ascii().to_string(), value[..count].escape_ascii().to_string());
    }
    all
}
