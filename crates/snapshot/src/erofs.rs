//! The EROFS snapshotter: a layer is an image, and a stack of layers is mounted as one overlay of their images.
//!
//! ```text
//! snapshots/<id>/layer.erofs   names and attributes of a layer
//! snapshots/<id>/layer.data    the bytes of its files: an extra device of the image
//! snapshots/<id>/fs            where the image is seen while an overlay is made; what was written to a snapshot that is
//!                              not a layer's
//! snapshots/<id>/work          overlayfs' scratch space, of the latter
//! ```
//!
//! A snapshot that a layer is unpacked into has no mount that anybody could write through: its mount says where the image is
//! to be put ([`EROFS_LAYER`]). One that is written to stays a directory when it is committed, and is a layer as it is.
//!
//! A layer is two files on the disk, whatever is in it: syncing those two, and the directory, makes it durable.

mod probe;
mod root;
pub(crate) mod sample;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use windlass_core::error::{Error, IoResultExt as _, Result};
use windlass_core::snapshot::{EROFS_LAYER, EROFS_LOWER, LAYER_DATA, LAYER_IMAGE, Mount, State};

use crate::native::bind;
use crate::overlay::{self, features, is_plain, options};
use crate::snapshots::{Layout, Purpose, Snapshots, tree_of};
use crate::tree;

/// The EROFS snapshotter.
pub type Erofs = Snapshots<Images>;

impl Erofs {
    /// Opens the snapshotter in a directory, which is created if need be. Deletes nothing, mounts nothing.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, `DataLoss` for a damaged database, `FailedPrecondition` for one
    /// of a newer format; `InvalidArgument` when the path has a character that the options of a mount cannot carry.
    pub async fn open(directory: &Path) -> Result<Self> {
        Self::open_with(directory, Images { options: features::mount_options()? }).await
    }
}

/// Every layer is an image.
pub struct Images {
    /// Those of overlays.
    options: Vec<String>,
}

impl Layout for Images {
    const REBASE: bool = true;

    fn check(&self, root: &Path) -> Result<()> {
        is_plain(root)
    }

    fn probe(&self, directory: &Path) -> Result<()> {
        probe::probe(directory, &self.options)
    }

    fn create(&self, directory: &Path, purpose: Purpose, parent: Option<&Path>) -> Result<()> {
        let tree = tree_of(directory);
        tree::make(&tree, 0o755)?;
        if purpose == Purpose::Unpack {
            return Ok(());
        }
        if purpose == Purpose::Write {
            tree::make(&directory.join("work"), 0o711)?;
        }
        // The root of an overlay has the properties of the topmost layer's root.
        parent.map_or(Ok(()), |parent| root::copy(parent, &tree))
    }

    /// A layer that says nothing about `/` leaves it as the parent has it: whoever wrote the image noted that in it.
    fn rebase(&self, directory: &Path, parent: &Path, _begun_at: SystemTime) -> Result<()> {
        if has_image(directory)? { root::take_over(directory, parent) } else { root::copy(parent, &tree_of(directory)) }
    }

    /// The files of a layer by themselves; what was written through mounts is any number of files.
    ///
    /// 1. the data  2. the image, which refers to it  3. the directory that has them  4. the directory that has that
    fn few_files(&self, directory: &Path) -> Result<Option<Vec<PathBuf>>> {
        if !has_image(directory)? {
            return Ok(None);
        }
        let mut files = vec![directory.join(LAYER_DATA), directory.join(LAYER_IMAGE), directory.to_owned()]; // 1. to 3.
        files.extend(directory.parent().map(Path::to_owned)); // 4.
        Ok(Some(files))
    }

    fn mounts(&self, state: State, directory: &Path, parents: &[PathBuf]) -> Result<Vec<Mount>> {
        let written_to = state == State::Active && exists(&directory.join("work"))?;
        match (state, parents) {
            (State::View, []) => return Ok(vec![bind(directory, "ro")]),
            (State::View, [parent]) if !has_image(parent)? => return Ok(vec![bind(parent, "ro")]),
            (State::View, [parent]) => return Ok(vec![image(parent)]),
            (State::View, _) => {}
            _ if !written_to => return unpack(directory, parents).map(|mount| vec![mount]),
            (_, []) => return Ok(vec![bind(directory, "rw")]),
            _ => {}
        }
        let mut mounts = Vec::with_capacity(parents.len() + 1);
        for parent in parents {
            if has_image(parent)? {
                let mut mount = image(parent);
                EROFS_LOWER.clone_into(&mut mount.kind);
                mount.options.push(format!("at={}", tree_of(parent).display()));
                mounts.push(mount);
            }
        }
        mounts.push(overlay::overlay(options(&self.options, written_to.then_some(directory), parents)));
        Ok(mounts)
    }
}

/// Returns the mount of an image.
fn image(directory: &Path) -> Mount {
    Mount {
        kind: "erofs".to_owned(),
        source: directory.join(LAYER_IMAGE).display().to_string(),
        target: String::new(),
        options: vec!["ro".to_owned(), format!("device={}", directory.join(LAYER_DATA).display())],
    }
}

/// Returns what says where an image is to be put, and what is below it.
fn unpack(directory: &Path, parents: &[PathBuf]) -> Result<Mount> {
    for parent in parents {
        if !has_image(parent)? {
            return Err(Error::failed_precondition(format!(
                "a layer cannot be unpacked onto {}, which was written through a mount",
                parent.display()
            ))
            .hint("use the overlayfs snapshotter for such images"));
        }
    }
    let lower = |parent: &PathBuf| format!("lower={}", parent.display());
    Ok(Mount {
        kind: EROFS_LAYER.to_owned(),
        source: directory.display().to_string(),
        target: String::new(),
        options: parents.iter().map(lower).collect(),
    })
}

/// Tells whether the layer in a directory is an image.
pub(crate) fn has_image(directory: &Path) -> Result<bool> {
    exists(&directory.join(LAYER_IMAGE))
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().attempt(|| format!("look for {}", path.display()))
}
