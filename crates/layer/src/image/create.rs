//! Making one entry of each kind.

use windlass_core::{Error, Result};
use windlass_erofs::{Device, FileType, Node, What};

use super::below::Found;
use super::resolve::{Dir, Reached};
use super::whiteout::keep_opaque;
use super::{Beneath, Imager, NO_PLACES, attributes, failed};
use crate::extract::{Outcome, is_overlays_own};
use crate::path::{LayerPath, shown};
use crate::tar::{Entry, Kind};
use crate::walk::{Missing, Walk as _, no_link_target};

/// Leaves out the attributes that a layer must not bring, or that there is no place for.
pub(super) fn drop_unwanted(entry: &mut Entry, path: &LayerPath) {
    // Only files and directories can have attributes of users, xattr(7).
    let users = matches!(entry.kind, Kind::Regular { .. } | Kind::Directory);
    entry.xattrs.retain(|name, _| {
        let overlays = is_overlays_own(name);
        let fits = windlass_erofs::is_xattr_supported(name) && (users || !name.starts_with(b"user."));
        if overlays {
            tracing::warn!(entry = %path, attribute = %shown(name), "extended attribute left out: it is overlayfs' own");
        } else if !fits {
            tracing::warn!(entry = %path, attribute = %shown(name), "extended attribute left out: there is no place for it");
        }
        fits && !overlays
    });
}

impl Imager {
    pub(super) fn create(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<()> {
        let mut about = attributes(entry);
        let device = |device: crate::tar::Device| Device { major: device.major, minor: device.minor };
        let what = match &entry.kind {
            Kind::Regular { .. } => What::Regular,
            Kind::Directory | Kind::Link { .. } => What::Directory,
            Kind::Symlink { target } if target.is_empty() => {
                return Err(Error::data_loss("the symbolic link points nowhere"));
            }
            Kind::Symlink { target } if target.len() > crate::path::MAX_LEN => {
                return Err(Error::failed_precondition("the target of the symbolic link is too long"));
            }
            Kind::Symlink { target } => What::Symlink(target),
            Kind::Character(numbers) => What::Character(device(*numbers)),
            Kind::Block(numbers) => What::Block(device(*numbers)),
            Kind::Fifo => What::Fifo,
        };
        let there = self.tree.find(dir.node, name);
        if what == What::Directory
            && let Some(node) = there
            && self.tree.file_type(node) == FileType::Directory
        {
            if self.opaque.contains(&node) {
                keep_opaque(&mut about);
            }
            self.copied.remove(&(dir.node, name.to_vec()));
            return self.tree.set_attributes(node, &about).map_err(failed);
        }
        if there.is_some() {
            self.last = None;
            self.copied.remove(&(dir.node, name.to_vec()));
        }
        let node = self.tree.add(dir.node, name, what, &about).map_err(failed)?;
        if let Kind::Regular { size, sparse } = entry.kind {
            self.packer.begin(size, sparse).map_err(failed)?;
            self.tree.set_data(node, 0, NO_PLACES).map_err(failed)?;
            self.current = Some((node, size));
        }
        if what == What::Directory && there.is_some() {
            // What was there hid what is below, or is the mark that does so.
            self.hide_below(&Dir { node, path: dir.path.join(name), hidden: dir.hidden })?;
        }
        Ok(())
    }

    /// Gives a file another name. Its attributes came with the file itself.
    pub(super) fn link(&mut self, dir: &Dir, name: &[u8], target: &[u8], path: &LayerPath) -> Result<Outcome> {
        let target = LayerPath::clean(target)?;
        let Some((target_parent, target_name)) = target.split() else {
            return Err(Error::failed_precondition("the hard link points at the root"));
        };
        let missing = || no_link_target(&target);
        let from = match self.directory(&target_parent, Missing::Stop)? {
            Reached::Directory(from) => from,
            Reached::Below => return Ok(Outcome::needs_parent(path)),
            Reached::Nowhere => return Err(missing()),
        };
        let itself = from.node == dir.node && target_name == name;
        let node = match self.tree.find(from.node, target_name) {
            Some(node) if self.is_mark(node) => return Err(missing()),
            Some(node) => node,
            None if self.is_blind() && !from.hidden => return Ok(Outcome::needs_parent(path)),
            None if from.hidden => return Err(missing()),
            None if itself => match self.file_below(&target)? {
                Some(_) => return Ok(Outcome::Done),
                None => return Err(missing()),
            },
            None => match self.take_over_file(&from, target_name)? {
                Some(node) => node,
                None => return Err(missing()),
            },
        };
        if self.tree.file_type(node) == FileType::Directory {
            return Err(Error::failed_precondition(format!("{target} is a directory")));
        }
        // Archivers that are given a name twice link it to itself. Nothing changes.
        if itself {
            return Ok(Outcome::Done);
        }
        self.last = None;
        self.copied.remove(&(dir.node, name.to_vec()));
        self.tree.link(dir.node, name, node).map_err(failed)?;
        Ok(Outcome::Done)
    }

    /// Returns a file below the layer, if there is one.
    fn file_below(&self, path: &LayerPath) -> Result<Option<Found>> {
        let Beneath::Images(images) = &self.beneath else { return Ok(None) };
        let found = images.find(path)?;
        if found.is_some_and(|found| found.inode.file_type == FileType::Directory) {
            return Err(Error::failed_precondition(format!("{path} is a directory")));
        }
        Ok(found)
    }

    /// Copies a file from below the layer, so that it can have another name. Returns it, if there was one.
    fn take_over_file(&mut self, dir: &Dir, name: &[u8]) -> Result<Option<Node>> {
        let Some(found) = self.file_below(&dir.path.join(name))? else { return Ok(None) };
        let Beneath::Images(images) = &self.beneath else { return Ok(None) };
        let inode = found.inode;
        let about = images.attributes(found.at, &inode)?;
        let target = if inode.file_type == FileType::Symlink { images.target(found.at, &inode)? } else { Vec::new() };
        let what = match inode.file_type {
            FileType::Symlink => What::Symlink(&target),
            FileType::Character => What::Character(inode.device),
            FileType::Block => What::Block(inode.device),
            FileType::Fifo => What::Fifo,
            FileType::Socket => What::Socket,
            FileType::Regular | FileType::Directory => What::Regular,
        };
        let node = self.tree.add(dir.node, name, what, &about).map_err(failed)?;
        self.copied.insert((dir.node, name.to_vec()));
        if inode.file_type == FileType::Regular {
            self.copy(found.at, &inode, node)?;
        }
        Ok(Some(node))
    }

    fn copy(&mut self, at: usize, inode: &windlass_erofs::Inode, node: Node) -> Result<()> {
        let Beneath::Images(images) = &self.beneath else { return Ok(()) };
        let pieces = images.extents(at, inode)?;
        let sparse = pieces.len() != 1;
        self.packer.begin(inode.size, sparse).map_err(failed)?;
        for piece in pieces {
            let mut done = 0;
            while done < piece.length {
                let Beneath::Images(images) = &self.beneath else { return Ok(()) };
                let bytes = images.read(at, piece.at + done, piece.length - done)?;
                done += bytes.len() as u64;
                self.store(piece.offset + done - bytes.len() as u64, &bytes)?;
            }
        }
        let places = self.packer.end();
        self.tree.set_data(node, inode.size, places).map_err(failed)
    }
}
