//! Owners, modes, extended attributes and times, with as few calls as will do.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{
    AtFlags, Dir as Listing, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, futimens, lsetxattr, major, minor,
    openat, utimensat,
};
use rustix::io::Errno;
use windlass_core::Result;

use super::dirs::Dir;
use super::os_error;
use crate::path::shown;
use crate::tar::{Entry, Timestamp};

/// The longest value of an extended attribute and the longest list of names that Linux has: `XATTR_SIZE_MAX`.
const XATTR_MAX: usize = 64 << 10;

/// Owner, mode, times and attributes of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Metadata {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl From<Entry> for Metadata {
    fn from(entry: Entry) -> Self {
        let Entry { mode, uid, gid, mtime, xattrs, .. } = entry;
        Self { uid, gid, mode, mtime, xattrs }
    }
}

impl Metadata {
    /// Reads what an open file has, but for overlayfs' own attributes.
    pub(super) fn read(file: impl AsFd) -> Result<Self, Errno> {
        let file = file.as_fd();
        let mut metadata = Self::of(&fstat(file)?);
        for name in xattr_names(file)? {
            if let Some(value) = xattr(file, &name)?.filter(|_| !is_overlays_own(&name)) {
                metadata.xattrs.insert(name, value);
            }
        }
        Ok(metadata)
    }

    /// Takes what a stat says.
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            mtime: mtime(stat),
            xattrs: BTreeMap::new(),
        }
    }
}

pub(crate) fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// How this process creates files here, so that nothing is set that is right already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    uid: u32,
    /// Nothing when the file system takes the directory's group.
    gid: Option<u32>,
    /// Mode bits that new files do not get: the umask, or what an inherited access control list takes.
    masked: u32,
}

impl Habits {
    /// Finds out with a file that never gets a name.
    pub(super) fn probe(root: impl AsFd, stat: &Stat) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let careful = Self { uid, gid: None, masked: 0o7777 };
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let Ok(file) = openat(root, ".", flags, Mode::from_raw_mode(0o777)) else { return careful };
        let Ok(made) = fstat(&file) else { return careful };
        let inherits = stat.st_mode & 0o2000 != 0;
        Self {
            uid: made.st_uid,
            gid: Some(gid).filter(|gid| inherits || *gid == made.st_gid),
            masked: 0o777 & !made.st_mode,
        }
    }

    /// From now on nothing is known: directories with a default access control list have habits of their own.
    pub(super) fn forget_modes(&mut self) {
        self.masked = 0o7777;
    }

    /// Tells whether a new file in that directory has another owner than it should have.
    fn owner_differs(&self, parent: &Dir, metadata: &Metadata) -> bool {
        self.uid != metadata.uid || parent.setgid.or(self.gid) != Some(metadata.gid)
    }

    /// Tells whether a new file has another mode than it was created with.
    fn mode_differs(&self, mode: u32) -> bool {
        mode & (self.masked | 0o7000) != 0 || self.masked == 0o7777
    }
}

/// Something new in a directory, to be given its metadata.
pub(super) struct New<'a> {
    pub(super) parent: &'a Dir,
    pub(super) name: &'a [u8],
    pub(super) kind: FileType,
}

impl New<'_> {
    /// Sets owner, mode, attributes and time of something that was just created with its plain mode; times of
    /// directories are left for later.
    pub(super) fn set(&self, habits: &Habits, metadata: &Metadata) -> Result<()> {
        let attempt = |what: &'static str| move |e| os_error(e, what.to_owned());
        // Changing the owner takes away setuid and capabilities: it comes first.
        if habits.owner_differs(self.parent, metadata) {
            let (uid, gid) = owner(metadata);
            chownat(self.parent, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(attempt("set the owner"))?;
        }
        let is_dir = self.kind == FileType::Directory;
        // A directory inherits the bit from its parent.
        let inherited = is_dir && self.parent.setgid.is_some();
        if self.kind != FileType::Symlink && (inherited || habits.mode_differs(metadata.mode)) {
            let mode = Mode::from_raw_mode(metadata.mode);
            chmodat(self.parent, self.name, mode, AtFlags::empty()).map_err(attempt("set the mode"))?;
        }
        if !metadata.xattrs.is_empty() {
            // There is no call that sets an attribute relative to a directory. The last component is not followed.
            let mut path = format!("/proc/self/fd/{}/", self.parent.as_fd().as_raw_fd()).into_bytes();
            path.extend_from_slice(self.name);
            for (name, value) in &metadata.xattrs {
                let result = lsetxattr(&path[..], &name[..], value, XattrFlags::empty());
                set_xattr(self.kind, name, result)?;
            }
        }
        if !is_dir {
            utimensat(self.parent, self.name, &times(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(attempt("set the time"))?;
        }
        Ok(())
    }
}

/// Sets owner, mode, attributes and time of a regular file that was just created and written.
pub(super) fn set_new_file(file: impl AsFd, parent: &Dir, habits: &Habits, metadata: &Metadata) -> Result<()> {
    let file = file.as_fd();
    let attempt = |what: &'static str| move |e| os_error(e, what.to_owned());
    if habits.owner_differs(parent, metadata) {
        let (uid, gid) = owner(metadata);
        fchown(file, uid, gid).map_err(attempt("set the owner"))?;
    }
    if habits.mode_differs(metadata.mode) {
        fchmod(file, Mode::from_raw_mode(metadata.mode)).map_err(attempt("set the mode"))?;
    }
    // Writing takes capabilities away: attributes come after the data.
    set_xattrs(file, FileType::RegularFile, &metadata.xattrs)?;
    futimens(file, &times(metadata.mtime)).map_err(attempt("set the time"))
}

/// Gives an existing directory other metadata, but for the time.
pub(super) fn set_directory(dir: impl AsFd, metadata: &Metadata) -> Result<()> {
    let dir = dir.as_fd();
    let attempt = |what: &'static str| move |e| os_error(e, what.to_owned());
    let (uid, gid) = owner(metadata);
    fchown(dir, uid, gid).map_err(attempt("set the owner"))?;
    // The attributes of the directory that was here are not this one's.
    for name in xattr_names(dir).map_err(attempt("list extended attributes"))? {
        if !metadata.xattrs.contains_key(&name) && !is_overlays_own(&name) && name != b"security.selinux" {
            match fremovexattr(dir, &name[..]) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(e) => return Err(os_error(e, format!("remove extended attribute {}", shown(&name)))),
            }
        }
    }
    set_xattrs(dir, FileType::Directory, &metadata.xattrs)?;
    // After the attributes: an access control list changes the mode.
    fchmod(dir, Mode::from_raw_mode(metadata.mode)).map_err(attempt("set the mode"))
}

fn set_xattrs(file: impl AsFd, kind: FileType, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    xattrs.iter().try_for_each(|(name, value)| {
        set_xattr(kind, name, fsetxattr(file.as_fd(), &name[..], value, XattrFlags::empty()))
    })
}

/// Judges the setting of an attribute: what the file system does not have is left out, as containerd does.
fn set_xattr(kind: FileType, name: &[u8], result: Result<(), Errno>) -> Result<()> {
    // Only files and directories can have attributes of users, xattr(7).
    let users = name.starts_with(b"user.") && !matches!(kind, FileType::RegularFile | FileType::Directory);
    match result {
        Ok(()) => Ok(()),
        Err(e) if e == Errno::OPNOTSUPP || users && e == Errno::PERM => {
            tracing::warn!(attribute = %shown(name), "extended attribute left out: the file system does not have such");
            Ok(())
        }
        Err(e) => Err(os_error(e, format!("set extended attribute {}", shown(name)))),
    }
}

fn owner(metadata: &Metadata) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))
}

/// The time of access is not recorded in layers; it gets the same, so that trees are alike however often they are made.
pub(super) fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Tells whether an attribute is how overlayfs keeps its own records: a layer must not write them.
pub(crate) fn is_overlays_own(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Tells whether a file is overlayfs' mark of a deleted name.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (0, 0)
}

/// Tells whether overlayfs hides what is below a directory.
pub(super) fn is_opaque(dir: impl AsFd, attribute: &str) -> Result<bool, Errno> {
    Ok(xattr(dir, attribute.as_bytes())?.as_deref() == Some(b"y"))
}

/// Tells whether new files in a directory inherit an access control list.
pub(super) fn has_default_acl(dir: impl AsFd) -> Result<bool, Errno> {
    Ok(xattr(dir, DEFAULT_ACL)?.is_some())
}

/// The attribute that new files in a directory inherit, acl(5).
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

pub(crate) fn xattr(file: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = Vec::with_capacity(256);
    loop {
        match fgetxattr(file.as_fd(), name, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => return Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if value.capacity() < XATTR_MAX => value.reserve(XATTR_MAX),
            Err(e) => return Err(e),
        }
    }
}

fn xattr_names(file: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::with_capacity(256);
    loop {
        match flistxattr(file.as_fd(), rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => break,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if names.capacity() < XATTR_MAX => names.reserve(XATTR_MAX),
            Err(e) => return Err(e),
        }
    }
    Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Lists the names in a directory, with their types where the file system tells.
pub(crate) fn names_of(dir: impl AsFd) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Listing::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}
