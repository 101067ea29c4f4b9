//! Writing the entries of a layer into a directory that they cannot leave.
//!
//! [`Extractor`] is given one entry after the other, and holds to this:
//!
//! - Nothing outside of the target is ever opened: every directory is opened relative to its parent and without following
//!   links, and links on the way are resolved here, with the target as their root.
//! - What an entry finds in its place goes, but for a directory in the place of a directory, which gets the new metadata.
//! - Whiteouts are for what is below the layer, never for what the layer itself brings, in whatever order they come.
//! - Directories have the times of their entries at the end, whatever came into them later.
//!
//! Not here: where the bytes come from, what the archive's digest is, and making anything durable.

mod create;
mod dirs;
mod files;
mod lower;
mod metadata;
mod remove;
mod resolve;
mod times;
mod whiteout;
mod writers;

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, utimensat};
use rustix::io::Errno;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result, ResultExt as _};

use self::dirs::{Dir, Dirs};
use self::lower::Lower;
use self::metadata::{Habits, Metadata};
pub(crate) use self::metadata::{is_overlays_own, is_whiteout, mtime, names_of, xattr};
use self::resolve::Reached;
use self::times::Times;
use self::writers::Writers;
use crate::Devices;
use crate::path::{LayerPath, Marker, shown};
use crate::tar::{Entry, Kind};
use crate::target::{Below, Style, Target};
use crate::walk::{Missing, Walk as _};
use crate::writeback::Writeback;

/// Whether a layer can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It can.
    Done,
    /// Not without what is below it, which is not known here.
    NeedsParent {
        /// The entry that needs it.
        path: String,
    },
}

impl Outcome {
    pub(crate) fn needs_parent(entry: &LayerPath) -> Self {
        Self::NeedsParent { path: String::from_utf8_lossy(entry.as_bytes()).into_owned() }
    }
}

/// A layer on its way into a directory.
#[derive(Debug)]
pub struct Extractor {
    style: Style,
    beneath: Beneath,
    /// The directory was empty: what is in it now is the layer's.
    fresh: bool,
    dirs: Dirs,
    habits: Habits,
    /// What the layer brought, by directory and name; of a directory that was empty only the directories.
    ours: HashSet<u64>,
    hash: RandomState,
    /// What was taken over from below so that entries could refer to it; not the layer's.
    copied: BTreeSet<LayerPath>,
    /// Directories that hide what is below them.
    opaque: HashSet<LayerPath>,
    /// Whether there are marks of deleted names in the directory.
    marked: bool,
    /// Times that directories get at the end.
    times: Times,
    root_listed: bool,
    writers: Writers,
    devices: Devices,
}

/// What is below the layer.
#[derive(Debug)]
enum Beneath {
    /// Whatever is in the directory.
    InPlace,
    /// The lower directories of an overlay.
    Lower(Lower),
    /// It comes under the directory later.
    Unknown,
}

impl Extractor {
    /// Opens the directory of a target. That many threads write files beside the one that calls; without any, it does.
    /// What they write is on its way to the disk if somebody is there for that.
    ///
    /// # Errors
    /// Those of the file system, and `ResourceExhausted` when there can be no more threads.
    pub fn new(target: &Target, writers: usize, writeback: Option<&Writeback>) -> Result<Self> {
        let at = target.root.display();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, &target.root, flags, Mode::empty()).attempt(|| format!("open {at}"))?;
        let stat = fstat(&fd).attempt(|| format!("look at {at}"))?;
        let fresh = names_of(&fd).attempt(|| format!("list {at}"))?.is_empty();
        let mut habits = Habits::probe(&fd, &stat);
        if metadata::has_default_acl(&fd).attempt(|| format!("look at {at}"))? {
            habits.forget_modes();
        }
        let beneath = match (&target.below, target.style.opaque()) {
            (Below::Lower(paths), Some(opaque)) => Beneath::Lower(Lower::open(paths, opaque)?),
            (Below::Unknown, Some(_)) => Beneath::Unknown,
            _ => Beneath::InPlace,
        };
        let mut times = Times::default();
        // An empty root in place may be the copy of an empty parent's: its time is not to change either.
        if !fresh || matches!(beneath, Beneath::InPlace) {
            times.note(&LayerPath::default(), mtime(&stat));
        }
        let setgid = (stat.st_mode & 0o2000 != 0).then_some(stat.st_gid);
        let watch = writeback.map(|writeback| writeback.watch(&fd)).transpose()?;
        let root = Dir { fd, path: LayerPath::default(), inode: stat.st_ino, setgid, hidden: false };
        Ok(Self {
            style: target.style,
            beneath,
            fresh,
            dirs: Dirs::new(root),
            habits,
            ours: HashSet::new(),
            hash: RandomState::new(),
            copied: BTreeSet::new(),
            opaque: HashSet::new(),
            marked: !fresh,
            times,
            root_listed: false,
            writers: Writers::start(writers, watch)?,
            devices: Devices::default(),
        })
    }

    /// Chooses what becomes of device nodes.
    pub fn devices(self, devices: Devices) -> Self {
        Self { devices, ..self }
    }

    /// Begins an entry.
    ///
    /// # Errors
    /// `FailedPrecondition` for one that would leave the root or cannot be there, `PermissionDenied`,
    /// `ResourceExhausted`.
    pub fn entry(&mut self, entry: Entry) -> Result<Outcome> {
        let name = entry.path.clone();
        self.begin(entry).context(|| format!("extract {}", shown(&name)))
    }

    fn begin(&mut self, mut entry: Entry) -> Result<Outcome> {
        if self.times.are_many() {
            self.writers.wait()?;
            self.set_times()?;
            // Whatever is opened again says what time it has.
            self.dirs.forget();
        }
        let path = LayerPath::clean(&entry.path)?;
        if Marker::is_reserved(&path) {
            tracing::debug!(entry = %path, "left out: it is AUFS' own");
            return Ok(Outcome::Done);
        }
        let Some((parent, name)) = path.split() else {
            return self.root(entry);
        };
        entry.xattrs.retain(|name, _| {
            let own = is_overlays_own(name);
            if own {
                tracing::warn!(entry = %path, attribute = %shown(name), "extended attribute left out: it is overlayfs' own");
            }
            !own
        });
        match Marker::of(name)? {
            Marker::None | Marker::Reserved => {}
            Marker::Whiteout(target) => return self.whiteout(&parent, target, &path),
            Marker::Opaque => return self.opaque(&parent, &path),
        }
        let parent = match self.directory(&parent, Missing::Create(&path))? {
            Reached::Directory(parent) => parent,
            Reached::Below => return Ok(Outcome::needs_parent(&path)),
            Reached::Nowhere => return Err(Error::internal(format!("no directory for {path}"))),
        };
        let path = parent.path.join(name);
        if entry.xattrs.contains_key(metadata::DEFAULT_ACL) {
            self.habits.forget_modes();
        }
        if let Kind::Link { target } = &entry.kind {
            return self.link(&parent, name, target, &path);
        }
        self.create(&parent, name, path.clone(), entry)?;
        Ok(Outcome::Done)
    }

    /// Takes bytes of the current entry. They may be written later.
    ///
    /// # Errors
    /// Those of the file system, `ResourceExhausted` among them; also of files that came earlier.
    pub fn data(&mut self, offset: u64, bytes: Bytes) -> Result<()> {
        self.writers.data(offset, bytes)
    }

    /// Completes the current entry.
    ///
    /// # Errors
    /// Those of the file system; also of files that came earlier.
    pub fn end_of_entry(&mut self) -> Result<()> {
        self.writers.end()
    }

    /// Says that what comes next may take a while: whatever was kept, to be handed over in one go, goes on its way.
    ///
    /// # Errors
    /// Those of files that came earlier.
    pub fn flush(&mut self) -> Result<()> {
        self.writers.flush()
    }

    /// Completes the layer.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self) -> Result<()> {
        self.writers.wait()?;
        if self.fresh && !self.root_listed {
            self.take_over_root()?;
        }
        self.set_times()?;
        let Some(time) = self.times.take_root() else { return Ok(()) };
        rustix::fs::futimens(&self.dirs.root().fd, &metadata::times(time))
            .map_err(|e| os_error(e, "set the time of the root".to_owned()))
    }

    /// Gives directories their times, when nothing is on its way into them.
    fn set_times(&mut self) -> Result<()> {
        let times = self.times.take();
        for (path, time) in &times {
            let Some((parent, name)) = path.split() else { continue };
            let Reached::Directory(parent) = self.directory(&parent, Missing::Stop)? else {
                return Err(Error::internal(format!("the directory of {path} is gone")));
            };
            utimensat(&*parent, name, &metadata::times(*time), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| os_error(e, format!("set the time of {path}")))?;
        }
        self.times.are_set(times.keys());
        Ok(())
    }

    /// An entry for the root: the directory is there and gets the metadata.
    fn root(&mut self, entry: Entry) -> Result<Outcome> {
        if entry.kind != Kind::Directory {
            return Err(Error::failed_precondition("the entry stands for the root, but is not a directory"));
        }
        self.writers.settle_all()?;
        let root = self.dirs.root();
        let metadata = Metadata::from(entry);
        metadata::set_directory(&root.fd, &metadata)?;
        self.times.note(&LayerPath::default(), metadata.mtime);
        self.root_listed = true;
        self.reopen_root()?;
        Ok(Outcome::Done)
    }

    /// A layer without an entry for the root leaves the root as it is below.
    fn take_over_root(&mut self) -> Result<()> {
        let Beneath::Lower(lower) = &self.beneath else { return Ok(()) };
        let Some(below) = lower.root() else { return Ok(()) };
        let attempt = |e| os_error(e, "read the root of the layer below".to_owned());
        let metadata = Metadata::read(below).map_err(attempt)?;
        metadata::set_directory(&self.dirs.root().fd, &metadata).context(|| "take over the root".to_owned())?;
        self.times.note(&LayerPath::default(), metadata.mtime);
        Ok(())
    }

    /// Looks at the root again, whose group may have become its files' group.
    fn reopen_root(&mut self) -> Result<()> {
        let root = self.dirs.root();
        let stat = fstat(&root.fd).attempt(|| "look at the root".to_owned())?;
        let setgid = (stat.st_mode & 0o2000 != 0).then_some(stat.st_gid);
        if setgid != root.setgid {
            let fd = root.fd.try_clone().attempt(|| "keep the root open".to_owned())?;
            self.dirs = Dirs::new(Dir { fd, path: LayerPath::default(), setgid, ..*root });
        }
        Ok(())
    }

    /// Tells whether what is below the layer cannot be known here.
    fn is_blind(&self) -> bool {
        matches!(self.beneath, Beneath::Unknown)
    }

    /// Notes that the layer brought a name.
    fn note(&mut self, parent: &Dir, name: &[u8], path: &LayerPath) {
        if !self.copied.is_empty() {
            self.copied.remove(path);
        }
        if !self.fresh {
            self.ours.insert(self.hashed(parent.inode, name));
        }
    }

    /// Notes that there is a directory of that name, or may be.
    fn note_directory(&mut self, parent: &Dir, name: &[u8]) {
        if self.fresh {
            self.ours.insert(self.hashed(parent.inode, name));
        }
    }

    /// Tells whether something that is there was brought by the layer.
    fn is_ours(&self, parent_inode: u64, name: &[u8], path: &LayerPath) -> bool {
        !self.copied.contains(path) && (self.fresh || self.ours.contains(&self.hashed(parent_inode, name)))
    }

    /// What a name in a directory is remembered by.
    fn hashed(&self, parent_inode: u64, name: &[u8]) -> u64 {
        self.hash.hash_one((parent_inode, name))
    }

    /// Waits until a file of that name, if one is on its way, is there. Everything that looks at a name or makes one
    /// comes after this.
    fn settle(&mut self, parent: &Dir, name: &[u8]) -> Result<()> {
        if self.writers.has_claims() { self.writers.settle(self.hashed(parent.inode, name)) } else { Ok(()) }
    }
}

/// Makes an error of a failed call. What a hostile or broken layer causes is the layer's fault, and what takes root says
/// so.
pub(crate) fn os_error(errno: Errno, attempt: String) -> Error {
    match errno {
        Errno::NAMETOOLONG | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::MLINK | Errno::EXIST => {
            Error::failed_precondition(attempt).source(std::io::Error::from(errno))
        }
        Errno::PERM | Errno::ACCESS => Error::io(attempt, errno.into()).hint("run as root"),
        _ => Error::io(attempt, errno.into()),
    }
}
