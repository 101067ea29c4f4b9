//! Finding the directory that an entry is in, whatever links say, and making what is missing.

use windlass_core::Result;
use windlass_erofs::{Attributes, FileType, Node, What};

use super::below::Found;
use super::{Beneath, Imager, failed, implied};
use crate::path::LayerPath;
use crate::walk::{Missing, Walk, not_a_directory};

/// A directory of the layer.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    pub(super) node: Node,
    /// Where it is; none of the names is a link.
    pub(super) path: LayerPath,
    /// Whether it shows nothing of what is below the layer.
    pub(super) hidden: bool,
}

/// What a path led to.
pub(crate) type Reached = crate::walk::Reached<Dir>;

impl Walk for Imager {
    type Dir = Dir;

    fn root_dir(&self) -> Dir {
        Dir { node: self.tree.root(), path: LayerPath::default(), hidden: false }
    }

    fn path_of(dir: &Dir) -> &LayerPath {
        &dir.path
    }

    fn directory(&mut self, path: &LayerPath, missing: Missing<'_>) -> Result<Reached> {
        let mut dir = self.root_dir();
        let mut links = 0;
        for name in path.components() {
            match self.enter(&dir, name, missing, &mut links)? {
                Reached::Directory(next) => dir = next,
                elsewhere => return Ok(elsewhere),
            }
        }
        Ok(Reached::Directory(dir))
    }

    fn enter(&mut self, parent: &Dir, name: &[u8], missing: Missing<'_>, links: &mut u32) -> Result<Reached> {
        let Some(node) = self.tree.find(parent.node, name) else {
            return self.absent(parent, name, missing, links);
        };
        match self.tree.file_type(node) {
            FileType::Directory => Ok(Reached::Directory(self.child(parent, name, node))),
            FileType::Symlink => {
                let target = self.tree.target(node).to_vec();
                self.follow(parent, &target, missing, links)
            }
            _ if self.is_mark(node) => {
                let Missing::Create(entry) = missing else { return Ok(Reached::Nowhere) };
                // What was deleted by this layer does not come back.
                let dir = self.make(parent, name, entry)?;
                self.hide_below(&dir)?;
                Ok(Reached::Directory(Dir { hidden: true, ..dir }))
            }
            _ => Err(not_a_directory(&parent.path.join(name))),
        }
    }

    fn delete(&mut self, dir: &Dir, name: &[u8]) -> Result<()> {
        Self::delete(self, dir, name)
    }
}

impl Imager {
    /// Returns the directory that an entry is in; most are in the same as the one before.
    pub(super) fn parent(&mut self, path: LayerPath, missing: Missing<'_>) -> Result<Reached> {
        if let Some((last, dir)) = &self.last
            && *last == path
        {
            return Ok(Reached::Directory(dir.clone()));
        }
        let reached = self.directory(&path, missing)?;
        if let Reached::Directory(dir) = &reached {
            self.last = Some((path, dir.clone()));
        }
        Ok(reached)
    }

    fn child(&self, parent: &Dir, name: &[u8], node: Node) -> Dir {
        Dir { node, path: parent.path.join(name), hidden: parent.hidden || self.opaque.contains(&node) }
    }

    /// Looks for a directory below the layer.
    fn absent(&mut self, parent: &Dir, name: &[u8], missing: Missing<'_>, links: &mut u32) -> Result<Reached> {
        let path = parent.path.join(name);
        let below = match &self.beneath {
            Beneath::Images(images) if !parent.hidden => images.find(&path)?,
            _ => None,
        };
        match (below, missing) {
            (Some(Found { inode, at, .. }), _) if inode.file_type == FileType::Directory => {
                let Beneath::Images(images) = &self.beneath else { return Ok(Reached::Nowhere) };
                let attributes = images.attributes(at, &inode)?;
                let dir = self.make_directory(parent, name, &attributes)?;
                self.copied.insert((parent.node, name.to_vec()));
                Ok(Reached::Directory(dir))
            }
            (Some(Found { inode, at, .. }), _) if inode.file_type == FileType::Symlink => {
                let Beneath::Images(images) = &self.beneath else { return Ok(Reached::Nowhere) };
                let target = images.target(at, &inode)?;
                self.follow(parent, &target, missing, links)
            }
            (Some(_), _) => Err(not_a_directory(&path)),
            (None, _) if self.is_blind() && !parent.hidden => Ok(Reached::Below),
            (None, Missing::Create(entry)) => self.make(parent, name, entry).map(Reached::Directory),
            (None, Missing::Stop) => Ok(Reached::Nowhere),
        }
    }

    /// Makes a directory that no entry was for so far: mode 0755, as everybody does.
    fn make(&mut self, parent: &Dir, name: &[u8], entry: &LayerPath) -> Result<Dir> {
        let dir = self.make_directory(parent, name, &implied())?;
        tracing::debug!(directory = %dir.path, %entry, "made a directory that the layer has no entry for");
        Ok(dir)
    }

    fn make_directory(&mut self, parent: &Dir, name: &[u8], attributes: &Attributes) -> Result<Dir> {
        let node = self.tree.add(parent.node, name, What::Directory, attributes).map_err(failed)?;
        Ok(self.child(parent, name, node))
    }

    /// Tells whether a node is the mark of a deleted name.
    pub(super) fn is_mark(&self, node: Node) -> bool {
        self.marks() && self.tree.is_whiteout(node)
    }
}
