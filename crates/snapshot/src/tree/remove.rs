//! Removing a tree.

use std::ffi::CStr;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use windlass_core::error::{IoResultExt as _, Kind, Result};

use super::walk::{Step, Walk};

/// How often a directory is gone through again that is not empty after all its entries were removed: a listing may skip
/// entries when others are removed meanwhile.
const PASSES: usize = 64;

/// Removes a directory and everything in it; one that is not there is success.
///
/// # Errors
/// Those of the filesystem, naming the entry: `Unavailable` for one that something is mounted on.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let mut passes = 0;
    loop {
        match Walk::open(path) {
            Err(error) if error.is(Kind::NotFound) => return Ok(()),
            opened => empty(opened?, &mut passes)?,
        }
        match std::fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && passes < PASSES => passes += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => return removed.attempt(|| format!("remove {}", path.display())),
        }
    }
}

/// Removes everything below the root of a walk.
fn empty(mut walk: Walk, passes: &mut usize) -> Result<()> {
    loop {
        match walk.next()? {
            Step::Entry { name, kind: FileType::Directory } => walk.enter(&name)?,
            Step::Entry { name, .. } => unlink(&walk, &name, AtFlags::empty())?,
            Step::End => {
                let Some(name) = walk.leave()? else { return Ok(()) };
                match unlink(&walk, &name, AtFlags::REMOVEDIR) {
                    Err(error) if error.is(Kind::FailedPrecondition) && *passes < PASSES => {
                        *passes += 1;
                        walk.enter(&name)?;
                    }
                    removed => removed?,
                }
            }
        }
    }
}

fn unlink(walk: &Walk, name: &CStr, flags: AtFlags) -> Result<()> {
    match rustix::fs::unlinkat(walk.current(), name, flags) {
        Err(Errno::NOENT) => Ok(()),
        unlinked => unlinked.attempt(|| format!("remove {}", walk.path(Some(name)).display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_symlink_goes_and_what_it_points_at_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        fs::write(tree.join("a/b/\u{1b}[31m\n"), "x").unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove(&tree).unwrap();
    }

    #[test]
    fn a_directory_of_many_entries_goes_completely() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for number in 0..5_000 {
            fs::write(tree.join(format!("a-rather-long-name-to-fill-the-listing-{number}")), "").unwrap();
            if number % 50 == 0 {
                fs::create_dir_all(tree.join(format!("directory-{number}/x"))).unwrap();
            }
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
