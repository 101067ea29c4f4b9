//! Finding the directory that an entry is in, inside the target whatever links say, and making what is missing.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, fstat, mkdirat, readlinkat, statat};
use rustix::io::Errno;
use windlass_core::{Error, Result};

use super::dirs::{self, Dir};
use super::lower::{Found, Lower};
use super::metadata::{self, Metadata};
use super::{Beneath, Extractor, os_error};
use crate::path::{LayerPath, shown};

/// How many symbolic links a path may lead through: as many as in the kernel, path_resolution(7).
const MAX_LINKS: u32 = 40;

/// What becomes of a directory that is nowhere.
#[derive(Debug, Clone, Copy)]
pub(super) enum Missing<'a> {
    /// It is made, for this entry.
    Create(&'a LayerPath),
    /// It is made for this entry, if it may be below the layer after all; otherwise the search is over.
    CreateUnlessNew(&'a LayerPath),
    /// The search is over.
    Stop,
}

impl Extractor {
    /// Returns the directory of a path, with its links resolved inside the target. Directories that are only below the
    /// layer are taken over; nothing is returned for one that is nowhere, if that ends the search.
    pub(super) fn directory(&mut self, path: &LayerPath, missing: Missing<'_>) -> Result<Option<Arc<Dir>>> {
        if let Some(dir) = self.dirs.get(path) {
            return Ok(Some(dir));
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
            let Some(next) = self.enter(&dir, &name, missing, &mut links)? else { return Ok(None) };
            reached = reached.join(&name);
            self.dirs.put(reached.clone(), &next);
            dir = next;
        }
        Ok(Some(dir))
    }

    fn enter(
        &mut self,
        parent: &Arc<Dir>,
        name: &[u8],
        missing: Missing<'_>,
        links: &mut u32,
    ) -> Result<Option<Arc<Dir>>> {
        let path = parent.path.join(name);
        let attempt = |e| os_error(e, format!("open {path}"));
        match dirs::open(parent, name) {
            Ok(fd) => return self.opened(parent, name, path, fd).map(Some),
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
            let Missing::Create(entry) = missing else { return Ok(None) };
            self.displace(parent, name, &path, &stat)?;
            // What was deleted by this layer does not come back.
            self.opaque.insert(path);
            let dir = self.make(parent, name, entry)?;
            self.hide_below(&dir)?;
            return Ok(Some(dir));
        }
        Err(not_a_directory(&path))
    }

    /// Goes where a symbolic link points, the target being the root.
    fn follow(
        &mut self,
        from: &Arc<Dir>,
        target: &[u8],
        missing: Missing<'_>,
        links: &mut u32,
    ) -> Result<Option<Arc<Dir>>> {
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Error::failed_precondition(format!("too many symbolic links at {}", from.path)));
        }
        let mut dir = if target.starts_with(b"/") { self.dirs.root() } else { Arc::clone(from) };
        for name in target.split(|byte| *byte == b'/') {
            let next = match name {
                b"" | b"." => continue,
                // The directory's own path has no links: its parent is the one in the path, and the root's is the root.
                b".." => match dir.path.split() {
                    None => continue,
                    Some((parent, _)) => self.directory(&parent, missing)?,
                },
                _ => self.enter(&dir, name, missing, links)?,
            };
            let Some(next) = next else { return Ok(None) };
            dir = next;
        }
        Ok(Some(dir))
    }

    /// Keeps what has to be known of a directory that was opened.
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
                self.times.entry(path.clone()).or_insert(metadata::mtime(&stat));
            }
        }
        let setgid = (stat.st_mode & 0o2000 != 0).then_some(stat.st_gid);
        Ok(Arc::new(Dir { fd, path, inode: stat.st_ino, setgid, hidden }))
    }

    /// Looks for a directory below the layer.
    fn absent(
        &mut self,
        parent: &Arc<Dir>,
        name: &[u8],
        missing: Missing<'_>,
        links: &mut u32,
    ) -> Result<Option<Arc<Dir>>> {
        let path = parent.path.join(name);
        let below = match &self.beneath {
            Beneath::Lower(lower) if !parent.hidden => lower.find(&path)?,
            _ => None,
        };
        match (below, missing) {
            (Some(Found::Directory(fd)), _) => {
                let metadata = Metadata::read(&fd).map_err(|e| os_error(e, format!("read {path} below the layer")))?;
                self.take_over_directory(parent, name, &path, &metadata).map(Some)
            }
            (Some(Found::Other(dir, stat)), _) => {
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Err(not_a_directory(&path));
                }
                let target = readlinkat(&dir, name, Vec::new()).map_err(|e| os_error(e, format!("read {path}")))?;
                self.follow(parent, target.as_bytes(), missing, links)
            }
            (None, Missing::CreateUnlessNew(entry) | Missing::Create(entry)) if self.is_blind() && !parent.hidden => {
                let needed_by = || String::from_utf8_lossy(entry.as_bytes()).into_owned();
                self.implied.entry(path.clone()).or_insert_with(needed_by);
                let dir = self.make(parent, name, entry)?;
                if matches!(missing, Missing::CreateUnlessNew(_)) {
                    self.copied.insert(path);
                }
                Ok(Some(dir))
            }
            (None, Missing::Create(entry)) => self.make(parent, name, entry).map(Some),
            (None, Missing::CreateUnlessNew(_) | Missing::Stop) => Ok(None),
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
        self.times.insert(path.clone(), metadata.mtime);
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
        mkdirat(parent, name, Mode::from_raw_mode(metadata.mode & 0o777))
            .map_err(|e| os_error(e, format!("make directory {path}")))?;
        if metadata.xattrs.contains_key(metadata::DEFAULT_ACL) {
            self.habits.forget_modes();
        }
        metadata::New { parent, name, kind: FileType::Directory }.set(&self.habits, metadata)
    }
}

fn not_a_directory(path: &LayerPath) -> Error {
    Error::failed_precondition(format!("{path} is not a directory"))
        .hint("the layer puts a file into something that is none; it does not fit the layers below, or is broken")
}

impl Lower {
    /// Looks a file up, for messages and copies.
    pub(super) fn find_file(&self, path: &LayerPath) -> Result<Option<(OwnedFd, rustix::fs::Stat)>> {
        match self.find(path)? {
            Some(Found::Other(dir, stat)) => Ok(Some((dir, stat))),
            Some(Found::Directory(_)) => {
                Err(Error::failed_precondition(format!("{} is a directory", shown(path.as_bytes()))))
            }
            None => Ok(None),
        }
    }
}
