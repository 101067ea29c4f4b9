//! Deletions: what a layer says is gone from the layers below it.
//!
//! OCI image-spec, `layer.md`, "Whiteouts": they apply to lower layers only, and before or after anything that the layer
//! itself has under the same name, whichever comes first in the archive.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags, fsetxattr, fstat, makedev, mknodat, openat2,
    statat, unlinkat,
};
use rustix::io::Errno;
use windlass_core::Result;

use super::dirs::Dir;
use super::metadata::{is_whiteout, mtime, names_of};
use super::remove::{Keep, known};
use super::resolve::Reached;
use super::{Beneath, Extractor, Outcome, os_error};
use crate::path::LayerPath;
use crate::target::Style;
use crate::walk::{Missing, Walk as _};

impl Extractor {
    /// Tells whether a file is the mark of a deleted name.
    pub(super) fn is_mark(&self, stat: &Stat) -> bool {
        self.style != Style::Remove && is_whiteout(stat)
    }

    /// All names in a directory are deleted.
    pub(super) fn opaque(&mut self, directory: &LayerPath, entry: &LayerPath) -> Result<Outcome> {
        let dir = match self.directory(directory, Missing::Stop)? {
            Reached::Directory(dir) => dir,
            Reached::Nowhere => return Ok(Outcome::Done),
            Reached::Below => return Ok(Outcome::needs_parent(entry)),
        };
        if self.keeps_anything() {
            self.remove_below(&dir)?;
        }
        if self.style == Style::Remove {
            return Ok(Outcome::Done);
        }
        if !dir.path.is_root() {
            self.hide_below(&dir)?;
            return Ok(Outcome::Done);
        }
        // An overlay's root always shows what is below it: its names are deleted one by one.
        if self.is_blind() {
            return Ok(Outcome::needs_parent(entry));
        }
        let names = match &self.beneath {
            Beneath::Lower(lower) => lower.root_names()?,
            Beneath::InPlace | Beneath::Unknown => BTreeSet::new(),
        };
        names.iter().try_for_each(|name| self.delete(&dir, name))?;
        Ok(Outcome::Done)
    }

    /// Tells whether the directory may have something that the layer did not bring.
    fn keeps_anything(&self) -> bool {
        !self.fresh || !self.copied.is_empty()
    }

    pub(super) fn delete(&mut self, dir: &Arc<Dir>, name: &[u8]) -> Result<()> {
        let path = dir.path.join(name);
        self.settle(dir, name)?;
        let attempt = |e| os_error(e, format!("delete {path}"));
        match statat(&**dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(e) => return Err(attempt(e)),
            Ok(stat) if self.is_mark(&stat) => return Ok(()),
            Ok(stat) => {
                let kind = FileType::from_raw_mode(stat.st_mode);
                let gone = self.keeps_anything() && self.remove(&**dir, dir.inode, (name, kind), &path, Keep::Ours)?;
                if !gone {
                    // It is the layer's own, and stays; what it stands for below does not show through.
                    if kind == FileType::Directory
                        && self.style != Style::Remove
                        && let Reached::Directory(own) = self.directory(&path, Missing::Stop)?
                    {
                        self.hide_below(&own)?;
                    }
                    return Ok(());
                }
            }
        }
        let exists_below = match &self.beneath {
            _ if self.style == Style::Remove || dir.hidden => false,
            Beneath::Lower(lower) => lower.find(&path)?.is_some(),
            Beneath::InPlace | Beneath::Unknown => true,
        };
        // A mark of nothing would show up in listings of a directory that is only in this layer.
        if exists_below {
            mknodat(&**dir, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).map_err(attempt)?;
            self.marked = true;
        }
        Ok(())
    }

    /// Removes from a directory what the layer did not bring.
    fn remove_below(&mut self, dir: &Dir) -> Result<()> {
        let names = names_of(&dir.fd).map_err(|e| os_error(e, format!("list {}", dir.path)))?;
        for (name, kind) in names {
            let path = dir.path.join(&name);
            let kind = known(dir, &name, kind).map_err(|e| os_error(e, format!("look at {path}")))?;
            self.remove(dir, dir.inode, (&name, kind), &path, Keep::Ours)?;
        }
        Ok(())
    }

    /// Lets nothing of what is below a directory show through it.
    pub(super) fn hide_below(&mut self, dir: &Dir) -> Result<()> {
        let Some(attribute) = self.style.opaque() else { return Ok(()) };
        let attempt = |e| os_error(e, format!("make {} opaque", dir.path));
        fsetxattr(&dir.fd, attribute, b"y", XattrFlags::empty()).map_err(attempt)?;
        self.opaque.insert(dir.path.clone());
        // Directories that are open further down know no better yet.
        self.dirs.forget();
        if self.marked {
            // A file on its way may be taking the place of a mark just now.
            self.writers.settle_all()?;
            self.remove_marks(&dir.fd, &dir.path)?;
        }
        Ok(())
    }

    /// Removes the marks of deleted names where nothing is below: they would show up in listings.
    fn remove_marks(&mut self, top: &OwnedFd, path: &LayerPath) -> Result<()> {
        let attempt = |e| os_error(e, format!("remove marks of deleted names in {path}"));
        let mut directories = vec![(b".".to_vec(), path.clone())];
        while let Some((directory, path)) = directories.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let dir = openat2(top, &directory[..], flags, Mode::empty(), inside).map_err(attempt)?;
            if self.times.some_are_set() {
                self.times.opened(&path, mtime(&fstat(&dir).map_err(attempt)?));
            }
            for (name, kind) in names_of(&dir).map_err(attempt)? {
                match known(&dir, &name, kind).map_err(attempt)? {
                    FileType::Directory => {
                        directories.push(([&directory[..], b"/", &name].concat(), path.join(&name)));
                    }
                    FileType::CharacterDevice
                        if is_whiteout(&statat(&dir, &name[..], AtFlags::SYMLINK_NOFOLLOW).map_err(attempt)?) =>
                    {
                        unlinkat(&dir, &name[..], AtFlags::empty()).map_err(attempt)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
