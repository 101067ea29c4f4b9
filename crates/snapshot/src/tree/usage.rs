//! What a tree takes up.

use std::collections::HashSet;
use std::path::Path;

use rustix::fs::{FileType, Stat};
use windlass_core::error::Result;
use windlass_core::snapshot::Usage;

use super::walk::{Step, Walk};

/// The unit of `st_blocks`, in bytes, whatever the filesystem's block size. stat(2).
const BLOCK: u64 = 512;

/// Which bytes on disk count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// Those of contents, of which there are as many as before while nobody touches a file.
    OfContents,
    /// Those by which a filesystem finds contents as well, where it says so: ext4 has a tree of a file's extents, which is larger while a
    /// file is being written.
    All,
}

/// Counts the inodes of a tree, the root among them, and their bytes on disk. A file with several names counts once;
/// what is mounted on top of the tree does not count.
pub(crate) fn usage(root: &Path, blocks: Blocks) -> Result<Usage> {
    let mut walk = Walk::open(root)?;
    let top = walk.stat(c".")?;
    let mut seen = HashSet::new();
    let mut usage = Usage { inodes: 1, bytes: on_disk(&top, blocks) };
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
                    usage.bytes += on_disk(&stat, blocks);
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

/// Returns how many bytes a file takes up.
pub(crate) fn on_disk(stat: &Stat, blocks: Blocks) -> u64 {
    let all = u64::try_from(stat.st_blocks).unwrap_or_default() * BLOCK;
    if blocks == Blocks::All || !FileType::from_raw_mode(stat.st_mode).is_file() {
        return all;
    }
    let (size, block) =
        (u64::try_from(stat.st_size).unwrap_or_default(), u64::try_from(stat.st_blksize).unwrap_or_default());
    size.checked_next_multiple_of(block.max(BLOCK)).map_or(all, |contents| all.min(contents))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fs::FallocateFlags;

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
        let usage = usage(root, Blocks::OfContents).unwrap();
        assert_eq!(usage.inodes, 4);
        assert_eq!(usage.bytes, blocks(".") + blocks("sub") + blocks("sub/file") + blocks("sparse"));
        assert!((100_000..1_000_000).contains(&usage.bytes), "{}", usage.bytes);
    }
    #[test]
    fn what_a_file_has_behind_its_contents_is_none_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = fs::File::create(directory.path().join("file")).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        file.set_len(5000).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let contents = on_disk(&stat, Blocks::OfContents);
        assert!((5000..=5000 + u64::try_from(stat.st_blksize).unwrap()).contains(&contents), "{contents}");
        assert!(on_disk(&stat, Blocks::All) >= 1 << 20);
    }
}
