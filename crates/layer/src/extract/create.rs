//! Making one entry of each kind.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, linkat, makedev, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

use super::dirs::{self, Dir};
use super::files::{NewFile, create_file};
use super::lower::Found;
use super::metadata::{self, Metadata, New};
use super::resolve::Reached;
use super::{Beneath, Extractor, Outcome, os_error};
use crate::path::{LayerPath, shown};
use crate::tar::{Device, Entry, Kind};
use crate::walk::{Missing, Walk as _, no_link_target};

impl Extractor {
    pub(super) fn create(&mut self, parent: &Arc<Dir>, name: &[u8], path: LayerPath, mut entry: Entry) -> Result<()> {
        let plain = Mode::from_raw_mode(entry.mode & 0o777);
        let kind = std::mem::replace(&mut entry.kind, Kind::Directory);
        let metadata = Metadata::from(entry);
        self.devices.admit(&kind, &path)?;
        let kind = match kind {
            Kind::Regular { size, sparse } => {
                let (parent, habits) = (Arc::clone(parent), self.habits);
                return self.file(NewFile { parent, path, metadata, habits, size, sparse, made: None });
            }
            Kind::Directory | Kind::Link { .. } => return self.create_directory(parent, name, &path, &metadata),
            Kind::Symlink { target } => {
                if target.is_empty() {
                    return Err(Error::data_loss("the symbolic link points nowhere"));
                }
                self.place(parent, name, &path, || symlinkat(&target[..], &**parent, name))?;
                FileType::Symlink
            }
            Kind::Character(device) => {
                self.create_node(parent, name, &path, (FileType::CharacterDevice, device), plain)?
            }
            Kind::Block(device) => self.create_node(parent, name, &path, (FileType::BlockDevice, device), plain)?,
            Kind::Fifo => self.create_node(parent, name, &path, (FileType::Fifo, Device::default()), plain)?,
        };
        self.note(parent, name, &path);
        New { parent, name, kind }.set(&self.habits, &metadata)
    }

    /// Begins a regular file.
    fn file(&mut self, mut new: NewFile) -> Result<()> {
        let parent = Arc::clone(&new.parent);
        let path = new.path.clone();
        let name = path.name();
        let hash = self.hashed(parent.inode, name);
        // Whatever has its name is known to be no directory, and to be nobody else's: it can be made beside this thread.
        let beside = self.fresh && self.writers.are_beside() && !self.ours.contains(&hash);
        if !beside {
            let plain = Mode::from_raw_mode(new.metadata.mode & 0o777);
            new.made = Some(self.place(&parent, name, &path, || create_file(&parent, name, plain))?);
        }
        self.note(&parent, name, &path);
        self.writers.begin(new, beside.then_some(hash))
    }

    fn create_node(
        &mut self,
        parent: &Arc<Dir>,
        name: &[u8],
        path: &LayerPath,
        (kind, device): (FileType, Device),
        mode: Mode,
    ) -> Result<FileType> {
        self.place(parent, name, path, || mknodat(&**parent, name, kind, mode, makedev(device.major, device.minor)))?;
        Ok(kind)
    }

    /// Makes something; whatever has its name goes, and is looked at only then.
    fn place<T>(
        &mut self,
        parent: &Arc<Dir>,
        name: &[u8],
        path: &LayerPath,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T> {
        self.settle(parent, name)?;
        let attempt = |e| os_error(e, format!("create {path}"));
        match make() {
            Err(Errno::EXIST) => {
                let stat = statat(&**parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(attempt)?;
                self.displace(parent, name, path, &stat)?;
                make().map_err(attempt)
            }
            made => made.map_err(attempt),
        }
    }

    fn create_directory(
        &mut self,
        parent: &Arc<Dir>,
        name: &[u8],
        path: &LayerPath,
        metadata: &Metadata,
    ) -> Result<()> {
        let attempt = |e| os_error(e, format!("make directory {path}"));
        let mut hides = false;
        self.settle(parent, name)?;
        self.note_directory(parent, name);
        match mkdirat(&**parent, name, Mode::from_raw_mode(metadata.mode & 0o777)) {
            Ok(()) => New { parent, name, kind: FileType::Directory }.set(&self.habits, metadata)?,
            Err(Errno::EXIST) => {
                let stat = statat(&**parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(attempt)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    self.merge_directory(parent, name, &stat, metadata)?;
                } else {
                    self.displace(parent, name, path, &stat)?;
                    self.make_directory(parent, name, path, metadata)?;
                    // What was there hid what is below, or is the mark that does so.
                    hides = true;
                }
            }
            Err(e) => return Err(attempt(e)),
        }
        self.note(parent, name, path);
        self.times.note(path, metadata.mtime);
        if hides && self.style.opaque().is_some() {
            let fd = dirs::open(&**parent, name).map_err(attempt)?;
            let dir = self.opened(parent, name, path.clone(), fd)?;
            self.hide_below(&dir)?;
        }
        Ok(())
    }

    /// Gives a directory that is there the metadata of an entry.
    fn merge_directory(&mut self, parent: &Dir, name: &[u8], stat: &Stat, metadata: &Metadata) -> Result<()> {
        let attempt = |e| os_error(e, format!("open directory {}", shown(name)));
        // Files on their way into it are made under the rules that it had when they came.
        self.writers.settle_all()?;
        let fd = dirs::open(parent, name).map_err(attempt)?;
        metadata::set_directory(&fd, metadata)?;
        // Files in it may get another group from now on.
        if (stat.st_mode | metadata.mode) & 0o2000 != 0 {
            self.dirs.forget();
        }
        Ok(())
    }

    /// Gives a file another name. Its metadata came with the file itself.
    pub(super) fn link(&mut self, parent: &Arc<Dir>, name: &[u8], target: &[u8], path: &LayerPath) -> Result<Outcome> {
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
        let target_path = from.path.join(target_name);
        self.settle(&from, target_name)?;
        self.settle(parent, name)?;
        if target_path == *path {
            // Written by archivers that are given a name twice. Nothing changes, if it is a file at all.
            return match self.existing(&from, target_name, path)? {
                Existing::File => Ok(Outcome::Done),
                Existing::Directory => Err(Error::failed_precondition(format!("{target} is a directory"))),
                Existing::Below => Ok(Outcome::needs_parent(path)),
                Existing::Nothing => Err(missing()),
            };
        }
        if self.marked && matches!(self.existing(&from, target_name, &target_path)?, Existing::Nothing) {
            return Err(missing());
        }
        let make = || linkat(&*from, target_name, &**parent, name, AtFlags::empty());
        let attempt = |e| os_error(e, format!("link {path} to {target}"));
        let mut made = make();
        if made == Err(Errno::NOENT) {
            if self.is_blind() && !from.hidden {
                return Ok(Outcome::needs_parent(path));
            }
            if from.hidden || !self.take_over_file(&from, target_name, &target_path)? {
                return Err(missing());
            }
            made = make();
        }
        if made == Err(Errno::EXIST) {
            let stat = statat(&**parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(attempt)?;
            self.displace(parent, name, path, &stat)?;
            made = make();
        }
        match made {
            Ok(()) => {}
            Err(Errno::PERM) if rustix::process::geteuid().is_root() => {
                return Err(Error::failed_precondition(format!("{target} cannot have a hard link")));
            }
            Err(e) => return Err(attempt(e)),
        }
        self.note(parent, name, path);
        Ok(Outcome::Done)
    }

    /// Tells what there is of that name, here or below.
    fn existing(&self, dir: &Dir, name: &[u8], path: &LayerPath) -> Result<Existing> {
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if self.is_mark(&stat) => return Ok(Existing::Nothing),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Ok(Existing::Directory);
            }
            Ok(_) => return Ok(Existing::File),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(os_error(e, format!("look at {path}"))),
        }
        match &self.beneath {
            Beneath::Unknown if !dir.hidden => Ok(Existing::Below),
            Beneath::Lower(lower) if !dir.hidden => Ok(match lower.find(path)? {
                None => Existing::Nothing,
                Some(Found::Directory(_)) => Existing::Directory,
                Some(Found::Other(..)) => Existing::File,
            }),
            _ => Ok(Existing::Nothing),
        }
    }

    /// Copies a file from below the layer, so that it can have another name. Returns whether there was one.
    fn take_over_file(&mut self, parent: &Arc<Dir>, name: &[u8], path: &LayerPath) -> Result<bool> {
        let Beneath::Lower(lower) = &self.beneath else { return Ok(false) };
        let (dir, stat) = match lower.find(path)? {
            Some(Found::Other(dir, stat)) => (dir, stat),
            Some(Found::Directory(_)) => return Err(Error::failed_precondition(format!("{path} is a directory"))),
            None => return Ok(false),
        };
        let attempt = |e| os_error(e, format!("copy {path} from below the layer"));
        let kind = FileType::from_raw_mode(stat.st_mode);
        let plain = Mode::from_raw_mode(stat.st_mode & 0o777);
        if kind == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut from = File::from(openat(&dir, name, flags, Mode::empty()).map_err(attempt)?);
            let mut to = create_file(parent, name, plain).map_err(attempt)?;
            let metadata = Metadata::read(&from).map_err(attempt)?;
            std::io::copy(&mut from, &mut to).attempt(|| format!("copy {path} from below the layer"))?;
            metadata::set_new_file(&to, parent, &self.habits, &metadata)?;
        } else {
            match kind {
                FileType::Symlink => {
                    let target = readlinkat(&dir, name, Vec::new()).map_err(attempt)?;
                    symlinkat(&target, &**parent, name).map_err(attempt)?;
                }
                _ => mknodat(&**parent, name, kind, plain, stat.st_rdev).map_err(attempt)?,
            }
            New { parent, name, kind }.set(&self.habits, &Metadata::of(&stat))?;
        }
        self.copied.insert(path.clone());
        Ok(true)
    }
}

/// What there is of a name.
enum Existing {
    Nothing,
    Directory,
    File,
    /// Only the layers below know.
    Below,
}
