//! How paths of a layer are followed, whatever is written: links mean what they mean with the layer's root as the root.
//!
//! Directories on a filesystem and those of an image are found in different ways; where a link leads, and what a whiteout
//! says, is the same for both.

use windlass_core::{Error, Result};

use crate::extract::Outcome;
use crate::path::LayerPath;

/// How many symbolic links a path may lead through: as many as in the kernel, path_resolution(7).
const MAX_LINKS: u32 = 40;

/// What becomes of a directory that is nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Missing<'a> {
    /// It is made, for this entry.
    Create(&'a LayerPath),
    /// The search is over.
    Stop,
}

/// What a path led to.
#[derive(Debug)]
pub(crate) enum Reached<D> {
    /// This directory.
    Directory(D),
    /// Nothing.
    Nowhere,
    /// Something that only the layers below know: a directory with its properties, or a link to another one. What the
    /// layer says of that name later does not help, because entries mean what is there when their turn comes.
    Below,
}

/// Somebody who has directories.
pub(crate) trait Walk {
    /// A directory, cheap to clone.
    type Dir: Clone;

    /// Returns the root.
    fn root_dir(&self) -> Self::Dir;

    /// Returns where a directory is; none of the names is a link.
    fn path_of(dir: &Self::Dir) -> &LayerPath;

    /// Returns the directory of a path, with its links resolved. Directories that are only below the layer are taken over.
    fn directory(&mut self, path: &LayerPath, missing: Missing<'_>) -> Result<Reached<Self::Dir>>;

    /// Goes into a directory by its name, or where a link of that name points.
    fn enter(
        &mut self,
        parent: &Self::Dir,
        name: &[u8],
        missing: Missing<'_>,
        links: &mut u32,
    ) -> Result<Reached<Self::Dir>>;

    /// Deletes a name.
    fn delete(&mut self, dir: &Self::Dir, name: &[u8]) -> Result<()>;

    /// Goes where a symbolic link in a directory points.
    fn follow(
        &mut self,
        from: &Self::Dir,
        target: &[u8],
        missing: Missing<'_>,
        links: &mut u32,
    ) -> Result<Reached<Self::Dir>> {
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Error::failed_precondition(format!("too many symbolic links at {}", Self::path_of(from))));
        }
        let mut dir = if target.starts_with(b"/") { self.root_dir() } else { from.clone() };
        for name in target.split(|byte| *byte == b'/') {
            let next = match name {
                b"" | b"." => continue,
                // The directory's own path has no links: its parent is the one in the path, and the root's is the root.
                b".." => match Self::path_of(&dir).split() {
                    None => continue,
                    Some((parent, _)) => self.directory(&parent, missing)?,
                },
                _ => self.enter(&dir, name, missing, links)?,
            };
            match next {
                Reached::Directory(next) => dir = next,
                elsewhere => return Ok(elsewhere),
            }
        }
        Ok(Reached::Directory(dir))
    }

    /// A name in a directory is deleted, says an entry.
    fn whiteout(&mut self, parent: &LayerPath, name: &[u8], entry: &LayerPath) -> Result<Outcome> {
        match self.directory(parent, Missing::Stop)? {
            Reached::Directory(dir) => self.delete(&dir, name)?,
            // There is nothing to delete.
            Reached::Nowhere => {}
            Reached::Below => return Ok(Outcome::needs_parent(entry)),
        }
        Ok(Outcome::Done)
    }
}

/// Returns the error of a path that leads through something else.
pub(crate) fn not_a_directory(path: &LayerPath) -> Error {
    Error::failed_precondition(format!("{path} is not a directory"))
        .hint("the layer puts a file into something that is none; it does not fit the layers below, or is broken")
}

/// Returns the error of a hard link to nothing.
pub(crate) fn no_link_target(target: &LayerPath) -> Error {
    Error::failed_precondition(format!("the hard link points at {target}, which is not there"))
        .hint("the layer does not fit the layers below, or is broken")
}
