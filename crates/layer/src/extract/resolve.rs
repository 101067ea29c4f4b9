//! Finding the directory that an entry is in, inside the target whatever links say, and making what is missing.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, fstat, mkdirat, readlinkat, statat};
use rustix::io::Errno;
use windlass_core::Result;

use super::dirs::{self, Dir};
use super::lower::Found;
use super::metadata::{self, Metadata};
use super::{Beneath, Extractor, os_error};
use crate::path::LayerPath;
use crate::walk::{Missing, Walk, not_a_directory};

/// What a path led to.
pub(crate) type Reached = crate::walk::Reached<Arc<Dir>>;

impl Walk for Extractor {
    type Dir = Arc<Dir>;

    fn root_dir(&self) -> Arc<Dir> {
        self.dirs.root()
    }

    fn path_of(dir: &Arc<Dir>) -> &LayerPath {
        &dir.path
    }

    fn directory(&mut self, path: &LayerPath, missing: Missing<'_>) -> Result<Reached> {
        if let Some(dir) = self.dirs.get(path) {
            return Ok(Reached::Directory(dir));
        }
        // From the nearest ancestor that is open, downwards.
        let mut names = Vec::new();
        let mut reached = path.clone();
        let mut dir = loop {
            let Some((parent, name)) = reached.split() else { break self.dirs.root() };
            names.push(name.to_vec());
            reached = parent;
            if let Some(dir) = self.dirs.get(&reached) {
                break dir;
            }
        };
        let mut links = 0;
        while let Some(name) = names.pop() {
            match self.enter(&dir, &name, missing, &mut links)? {
                Reached::Directory(next) => dir = next,
                elsewhere => return Ok(elsewhere),
            }
        }
        Ok(Reached::Directory(dir))
    }

    fn enter(&mut self, parent: &Arc<Dir>, name: &[u8], missing: Missing<'_>, links: &mut u32) -> Result<Reached> {
        let path = parent.path.join(name);
        if let Some(dir) = self.dirs.get(&path) {
            return Ok(Reached::Directory(dir));
        }
        self.settle(parent, name)?;
        let attempt = |e| os_error(e, format!("open {path}"));
        match dirs::open(parent, name) {
            Ok(fd) => return self.opened(parent, name, path, fd).map(Reached::Directory),
            Err(Errno::NOENT) => return self.absent(parent, name, missing, links),
            // What Linux says of a symbolic link, and of anything else.
            Err(Errno::LOOP | Errno::NOTDIR) => {}
            Err(e) => return Err(attempt(e)),
        }
        let stat = statat(&**parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(attempt)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let target = readlinkat(&**parent, name, Vec::new()).map_err(attempt)?;
            return self.follow(parent, target.as_bytes(), missing, links);
        }
        if self.is_mark(&stat) {
            let Missing::Create(entry) = missing else { return Ok(Reached::Nowhere) };
            self.displace(parent, name, &path, &stat)?;
            // What was deleted by this layer does not come back.
            self.opaque.insert(path);
            let dir = self.make(parent, name, entry)?;
            self.hide_below(&dir)?;
            return Ok(Reached::Directory(dir));
        }
        Err(not_a_directory(&path))
    }

    fn delete(&mut self, dir: &Arc<Dir>, name: &[u8]) -> Result<()> {
        Self::delete(self, dir, name)
    }
}

impl Extractor {
    /// Keeps a directory that was opened, and what has to be known of it.
    pub(super) fn opened(&mut self, parent: &Dir, name: &[u8], path: LayerPath, fd: OwnedFd) -> Result<Arc<Dir>> {
        let attempt = |e| os_error(e, format!("look at {path}"));
        let stat = fstat(&fd).map_err(attempt)?;
        let mut hidden = parent.hidden || self.opaque.contains(&path);
        if !self.fresh {
            if metadata::has_default_acl(&fd).map_err(attempt)? {
                self.habits.forget_modes();
            }
            if let Some(attribute) = self.style.opaque() {
                hidden = hidden || metadata::is_opaque(&fd, attribute).map_err(attempt)?;
            }
            // No entry may come for it, and then its time is not to change.
            if !self.is_ours(parent.inode, name, &path) {
                self.times.note_first(&path, metadata::mtime(&stat));
            }
        }
        self.times.opened(&path, metadata::mtime(&stat));
        let setgid = (stat.st_mode & 0o2000 != 0).then_some(stat.st_gid);
        let dir = Arc::new(Dir { fd, path, inode: stat.st_ino, setgid, hidden });
        self.dirs.put(&dir);
        Ok(dir)
    }

    /// Looks for a directory below the layer.
    fn absent(&mut self, parent: &Arc<Dir>, name: &[u8], missing: Missing<'_>, links: &mut u32) -> Result<Reached> {
        let path = parent.path.join(name);
        let below = match &self.beneath {
            Beneath::Lower(lower) if !parent.hidden => lower.find(&path)?,
            _ => None,
        };
        match (below, missing) {
            (Some(Found::Directory(fd)), _) => {
                let metadata = Metadata::read(&fd).map_err(|e| os_error(e, format!("read {path} below the layer")))?;
                self.take_over_directory(parent, name, &path, &metadata).map(Reached::Directory)
            }
            (Some(Found::Other(dir, stat)), _) => {
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Err(not_a_directory(&path));
                }
                let target = readlinkat(&dir, name, Vec::new()).map_err(|e| os_error(e, format!("read {path}")))?;
                self.follow(parent, target.as_bytes(), missing, links)
            }
            (None, _) if self.is_blind() && !parent.hidden => Ok(Reached::Below),
            (None, Missing::Create(entry)) => self.make(parent, name, entry).map(Reached::Directory),
            (None, Missing::Stop) => Ok(Reached::Nowhere),
        }
    }

    /// Makes a directory that no entry was for so far: mode 0755, as everybody does.
    fn make(&mut self, parent: &Arc<Dir>, name: &[u8], entry: &LayerPath) -> Result<Arc<Dir>> {
        let path = parent.path.join(name);
        tracing::debug!(directory = %path, %entry, "made a directory that the layer has no entry for");
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        self.make_directory(parent, name, &path, &metadata)?;
        self.note(parent, name, &path);
        let fd = dirs::open(&**parent, name).map_err(|e| os_error(e, format!("open {path}")))?;
        self.opened(parent, name, path, fd)
    }

    /// Makes a directory as it is below the layer.
    fn take_over_directory(
        &mut self,
        parent: &Arc<Dir>,
        name: &[u8],
        path: &LayerPath,
        metadata: &Metadata,
    ) -> Result<Arc<Dir>> {
        self.make_directory(parent, name, path, metadata)?;
        self.times.note(path, metadata.mtime);
        self.copied.insert(path.clone());
        let fd = dirs::open(&**parent, name).map_err(|e| os_error(e, format!("open {path}")))?;
        self.opened(parent, name, path.clone(), fd)
    }

    /// Makes a directory where there is nothing.
    pub(super) fn make_directory(
        &mut self,
        parent: &Dir,
        name: &[u8],
        path: &LayerPath,
        metadata: &Metadata,
    ) -> Result<()> {
        self.note_directory(parent, name);
        mkdirat(parent, name, Mode::from_raw_mode(metadata.mode & 0o777))
            .map_err(|e| os_error(e, format!("make directory {path}")))?;
        if metadata.xattrs.contains_key(metadata::DEFAULT_ACL) {
            self.habits.forget_modes();
        }
        metadata::New { parent, name, kind: FileType::Directory }.set(&self.habits, metadata)
    }
}
