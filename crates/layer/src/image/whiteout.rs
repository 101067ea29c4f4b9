//! Deletions: what a layer says is gone from the layers below it, in overlayfs' own form. See the extractor's for the rules.

use windlass_core::Result;
use windlass_erofs::{Attributes, Device, FileType, Node, What};

use super::resolve::{Dir, Reached};
use super::{Beneath, Imager, failed};
use crate::extract::Outcome;
use crate::path::LayerPath;
use crate::walk::{Missing, Walk as _};

/// The attribute that hides what is below a directory.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

impl Imager {
    /// All names in a directory are deleted.
    pub(super) fn opaque(&mut self, directory: &LayerPath, entry: &LayerPath) -> Result<Outcome> {
        let dir = match self.directory(directory, Missing::Stop)? {
            Reached::Directory(dir) => dir,
            Reached::Nowhere => return Ok(Outcome::Done),
            Reached::Below => return Ok(Outcome::needs_parent(entry)),
        };
        if !self.marks() {
            return Ok(Outcome::Done);
        }
        if !dir.path.is_root() {
            self.hide_below(&dir)?;
            return Ok(Outcome::Done);
        }
        // An overlay's root always shows what is below it: its names are deleted one by one.
        let names = match &self.beneath {
            Beneath::Unknown => return Ok(Outcome::needs_parent(entry)),
            Beneath::Images(images) => images.root_names()?,
            Beneath::Nothing => return Ok(Outcome::Done),
        };
        self.prune_within(dir.node);
        names.iter().try_for_each(|name| self.delete(&dir, name))?;
        Ok(Outcome::Done)
    }

    pub(super) fn delete(&mut self, dir: &Dir, name: &[u8]) -> Result<()> {
        if let Some(node) = self.tree.find(dir.node, name) {
            if self.is_mark(node) {
                return Ok(());
            }
            if self.copied.is_empty() || !self.prune(dir.node, name, node) {
                // It is the layer's own, and stays; what it stands for below does not show through.
                if self.marks() && self.tree.file_type(node) == FileType::Directory {
                    let own = Dir { node, path: dir.path.join(name), hidden: dir.hidden };
                    self.hide_below(&own)?;
                }
                return Ok(());
            }
            self.tree.remove(dir.node, name);
            self.copied.remove(&(dir.node, name.to_vec()));
            self.last = None;
        }
        let exists_below = match &self.beneath {
            Beneath::Nothing => false,
            _ if dir.hidden => false,
            Beneath::Images(images) => images.find(&dir.path.join(name))?.is_some(),
            Beneath::Unknown => true,
        };
        // A mark of nothing would show up in listings of a directory that is only in this layer.
        if exists_below {
            let mark = What::Character(Device::default());
            self.tree.add(dir.node, name, mark, &Attributes::default()).map_err(failed)?;
            self.marked = true;
            // A link of that name, below, leads nowhere from now on.
            self.last = None;
        }
        Ok(())
    }

    /// Lets nothing of what is below a directory show through it.
    pub(super) fn hide_below(&mut self, dir: &Dir) -> Result<()> {
        if !self.marks() || !self.opaque.insert(dir.node) {
            return Ok(());
        }
        self.last = None;
        self.prune_within(dir.node);
        self.tree.set_xattr(dir.node, OPAQUE, b"y").map_err(failed)?;
        if self.marked {
            self.remove_marks(dir.node);
        }
        Ok(())
    }

    /// Removes what was taken over from below, as far as nothing of the layer's is in it; returns whether it is to go
    /// itself.
    fn prune(&mut self, parent: Node, name: &[u8], node: Node) -> bool {
        let own = !self.copied.contains(&(parent, name.to_vec()));
        if self.tree.file_type(node) != FileType::Directory {
            return !own || self.is_mark(node);
        }
        let stays = self.prune_within(node);
        !own && !stays
    }

    /// Prunes what is in a directory; returns whether anything stays.
    fn prune_within(&mut self, directory: Node) -> bool {
        if self.copied.is_empty() {
            return self.tree.children(directory).next().is_some();
        }
        let children: Vec<(Vec<u8>, Node)> =
            self.tree.children(directory).map(|(name, node)| (name.to_vec(), node)).collect();
        let mut stays = false;
        for (name, node) in children {
            if self.prune(directory, &name, node) {
                self.tree.remove(directory, &name);
                self.copied.remove(&(directory, name));
                self.last = None;
            } else {
                stays = true;
            }
        }
        stays
    }

    /// Removes the marks of deleted names where nothing is below: they would show up in listings.
    fn remove_marks(&mut self, top: Node) {
        let mut directories = vec![top];
        while let Some(directory) = directories.pop() {
            let mut marks = Vec::new();
            for (name, node) in self.tree.children(directory) {
                if self.tree.file_type(node) == FileType::Directory {
                    directories.push(node);
                } else if self.tree.is_whiteout(node) {
                    marks.push(name.to_vec());
                }
            }
            for name in marks {
                self.tree.remove(directory, &name);
            }
        }
    }
}

/// Tells whether an attribute hides what is below a directory.
pub(super) fn is_opaque(xattrs: &windlass_erofs::Xattrs) -> bool {
    xattrs.get(OPAQUE).is_some_and(|value| value == b"y")
}

/// Keeps the mark of a directory that hides what is below it.
pub(super) fn keep_opaque(attributes: &mut Attributes) {
    attributes.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
}
