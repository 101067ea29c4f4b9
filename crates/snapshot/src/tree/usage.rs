//! What a tree takes up.

use std::collections::HashSet;
use std::path::Path;

use rustix::fs::{FileType, Stat};
use windlass_core::error::Result;
use windlass_core::snapshot::Usage;

use super::walk::{Step, Walk};

/// The unit of `st_blocks`, in bytes, whatever the filesystem's block size. stat(2).
const BLOCK: u64 = 512;

/// Counts the inodes of a tree, the root among them, and their bytes on disk. A file with several names counts once;
/// what is mounted on top of the tree does not count.
pub(crate) fn usage(root: &Path) -> Result<Usage> {
    let mut walk = Walk::open(root)?;
    let top = walk.stat(c".")?;
    let mut seen = HashSet::new();
    let mut usage = Usage { inodes: 1, bytes: on_disk(&top) };
    loop {
        match walk.next()? {
            Step::Entry { name, kind } => {
                let stat = walk.stat(&name)?;
                if stat.st_dev != top.st_dev {
                    continue;
                }
                let directory = kind == FileType::Directory;
                if directory || stat.st_nlink < 2 || seen.insert(stat.st_ino) {
                    usage.inodes += 1;
                    usage.bytes += on_disk(&stat);
                }
                if directory {
                    walk.enter(&name)?;
                }
            }
            Step::End => {
                if walk.leave()?.is_none() {
                    return Ok(usage);
                }
            }
        }
    }
}

fn on_disk(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or_default() * BLOCK
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once_and_holes_do_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(root.join("sub/file"), root.join("again")).unwrap();
        fs::File::create(root.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let blocks = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().blocks() * 512;
        let usage = usage(root).unwrap();
        assert_eq!(usage.inodes, 4);
        assert_eq!(usage.bytes, blocks(".") + blocks("sub") + blocks("sub/file") + blocks("sparse"));
        assert!((100_000..1_000_000).contains(&usage.bytes), "{}", usage.bytes);
    }
}
