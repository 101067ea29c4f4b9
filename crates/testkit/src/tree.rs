//! Directories as comparable lists of entries: what one tool unpacked against what another did.
//!
//! ```
//! use windlass_testkit::tree::Tree;
//!
//! let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
//! std::fs::write(one.path().join("file"), "1").unwrap();
//! let differences = Tree::of(one.path()).unwrap().differences(&Tree::of(two.path()).unwrap());
//! assert!(differences.iter().any(|difference| difference.starts_with("file: only on the left")));
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use windlass_core::digest::Algorithm;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Digest, Result};

/// Attributes that say where a file lies, not what it is: overlayfs' own, and labels that the system puts on everything.
const INCIDENTAL: [&str; 3] = ["trusted.overlay.", "user.overlay.", "security.selinux"];

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file, with its size and the digest of its content.
    File(u64, Digest),
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(String),
    /// A character device, with major and minor number.
    CharDevice(u32, u32),
    /// A block device, with major and minor number.
    BlockDevice(u32, u32),
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permissions, with setuid, setgid and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// When it was modified: seconds since 1970, and nanoseconds.
    pub mtime: (i64, i64),
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The first of the paths that are the same file, when there are several.
    pub same_as: Option<String>,
}

/// The entries below a directory, by path; the directory itself is `.`. Bytes of a path that are no UTF-8 are escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// Reads a directory with everything below it.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn of(root: &Path) -> Result<Self> {
        let mut walk = Walk::default();
        walk.visit(root, ".")?;
        let mut entries = walk.entries;
        for paths in walk.files.into_values().filter(|paths| paths.len() > 1) {
            let first = paths.iter().min().cloned();
            for path in paths {
                if let Some(entry) = entries.get_mut(&path) {
                    entry.same_as.clone_from(&first);
                }
            }
        }
        Ok(Self { entries })
    }

    /// Leaves out a path and what is below it, such as what a tool adds of its own.
    pub fn without(mut self, path: &str) -> Self {
        let below = format!("{path}/");
        self.entries.retain(|entry, _| entry != path && !entry.starts_with(&below));
        self
    }

    /// Leaves out when the entries were modified, of those that the function names.
    pub fn without_mtimes(mut self, of: impl Fn(&str, &Entry) -> bool) -> Self {
        for (path, entry) in &mut self.entries {
            if of(path, entry) {
                entry.mtime = (0, 0);
            }
        }
        self
    }

    /// Returns a line for each path whose entries differ: the path, what differs, both values.
    pub fn differences(&self, right: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, entry) in &self.entries {
            match right.entries.get(path) {
                Some(other) if other != entry => lines.push(format!("{path}: {}", entry.difference(other))),
                Some(_) => {}
                None => lines.push(format!("{path}: only on the left: {entry}")),
            }
        }
        let added = right.entries.iter().filter(|(path, _)| !self.entries.contains_key(*path));
        lines.extend(added.map(|(path, entry)| format!("{path}: only on the right: {entry}")));
        lines.sort();
        lines
    }
}

/// Asserts that two trees are equal; otherwise shows the first differences.
///
/// # Panics
/// When they are not.
#[track_caller]
pub fn assert_same(left: &Tree, right: &Tree) {
    const SHOWN: usize = 40;
    let differences = left.differences(right);
    if differences.is_empty() {
        return;
    }
    let shown: Vec<&str> = differences.iter().take(SHOWN).map(String::as_str).collect();
    panic!(
        "{} of {} entries differ (left / right):\n{}",
        differences.len(),
        left.entries.len().max(right.entries.len()),
        shown.join("\n")
    );
}

#[derive(Default)]
struct Walk {
    entries: BTreeMap<String, Entry>,
    /// The paths of each file that has several names, by device and inode.
    files: BTreeMap<(u64, u64), Vec<String>>,
}

impl Walk {
    fn visit(&mut self, place: &Path, path: &str) -> Result<()> {
        let attempt = || format!("read {}", place.display());
        let metadata = std::fs::symlink_metadata(place).attempt(attempt)?;
        let entry = Entry {
            kind: kind(place, &metadata)?,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            xattrs: xattrs(place)?,
            same_as: None,
        };
        self.entries.insert(path.to_owned(), entry);
        if !metadata.is_dir() {
            if metadata.nlink() > 1 {
                self.files.entry((metadata.dev(), metadata.ino())).or_default().push(path.to_owned());
            }
            return Ok(());
        }
        for child in std::fs::read_dir(place).attempt(attempt)? {
            let child = child.attempt(attempt)?;
            let name = text(child.file_name().as_bytes());
            let path = if path == "." { name } else { format!("{path}/{name}") };
            self.visit(&child.path(), &path)?;
        }
        Ok(())
    }
}

fn kind(place: &Path, metadata: &Metadata) -> Result<Kind> {
    let device = |rdev: u64| (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Ok(Kind::Directory);
    }
    if kind.is_symlink() {
        let target = std::fs::read_link(place).attempt(|| format!("read {}", place.display()))?;
        return Ok(Kind::Symlink(text(target.as_os_str().as_bytes())));
    }
    if kind.is_char_device() {
        let (major, minor) = device(metadata.rdev());
        return Ok(Kind::CharDevice(major, minor));
    }
    if kind.is_block_device() {
        let (major, minor) = device(metadata.rdev());
        return Ok(Kind::BlockDevice(major, minor));
    }
    if kind.is_fifo() {
        return Ok(Kind::Fifo);
    }
    if kind.is_socket() {
        return Ok(Kind::Socket);
    }
    Ok(Kind::File(metadata.len(), digest(place)?))
}

fn digest(place: &Path) -> Result<Digest> {
    let attempt = || format!("read {}", place.display());
    let mut file = std::fs::File::open(place).attempt(attempt)?;
    let mut hasher = Algorithm::Sha256.hasher();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let length = file.read(&mut buffer).attempt(attempt)?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..length).unwrap_or_default());
    }
}

fn xattrs(place: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    // xattr(7): names are listed and values are stored in at most 64 KiB.
    let mut buffer = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(place, &mut buffer[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        listed => listed.attempt(|| format!("list the attributes of {}", place.display()))?,
    };
    let names = buffer.get(..length).unwrap_or_default().to_vec();
    let mut xattrs = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let key = text(name);
        if INCIDENTAL.iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        let length = rustix::fs::lgetxattr(place, name, &mut buffer[..])
            .attempt(|| format!("read attribute {key} of {}", place.display()))?;
        xattrs.insert(key, buffer.get(..length).unwrap_or_default().to_vec());
    }
    Ok(xattrs)
}

/// Returns bytes as text; those that are none are escaped, and so is what escapes.
fn text(bytes: &[u8]) -> String {
    let mut all = String::new();
    for chunk in bytes.utf8_chunks() {
        all.push_str(&chunk.valid().replace('\\', "\\\\"));
        all.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    all
}

impl Entry {
    fn difference(&self, other: &Self) -> String {
        let mut parts = Vec::new();
        let mut compare = |what: &str, left: &dyn fmt::Display, right: &dyn fmt::Display, differs: bool| {
            if differs {
                parts.push(format!("{what} {left} / {right}"));
            }
        };
        let mode = |mode: u32| format!("{mode:04o}");
        let owner = |(uid, gid): (u32, u32)| format!("{uid}:{gid}");
        let mtime = |(seconds, nanoseconds): (i64, i64)| format!("{seconds}.{nanoseconds:09}");
        let same_as = |path: &Option<String>| path.clone().unwrap_or_else(|| "nothing".to_owned());
        compare("kind", &self.kind, &other.kind, self.kind != other.kind);
        compare("mode", &mode(self.mode), &mode(other.mode), self.mode != other.mode);
        compare("owner", &owner(self.owner), &owner(other.owner), self.owner != other.owner);
        compare("mtime", &mtime(self.mtime), &mtime(other.mtime), self.mtime != other.mtime);
        let (left, right) = (format!("{:?}", self.xattrs), format!("{:?}", other.xattrs));
        compare("xattrs", &left, &right, self.xattrs != other.xattrs);
        let differs = self.same_as != other.same_as;
        compare("same file as", &same_as(&self.same_as), &same_as(&other.same_as), differs);
        parts.join(", ")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(size, digest) => write!(f, "file of {size} bytes ({})", digest.short()),
            Self::Directory => f.write_str("directory"),
            Self::Symlink(target) => write!(f, "symlink to {target:?}"),
            Self::CharDevice(major, minor) => write!(f, "character device {major}:{minor}"),
            Self::BlockDevice(major, minor) => write!(f, "block device {major}:{minor}"),
            Self::Fifo => f.write_str("fifo"),
            Self::Socket => f.write_str("socket"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uid, gid) = self.owner;
        write!(f, "{}, mode {:04o}, owner {uid}:{gid}", self.kind, self.mode)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn fill(root: &Path) {
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/one"), "x").unwrap();
        std::fs::hard_link(root.join("d/one"), root.join("d/two")).unwrap();
        symlink("one", root.join("d/link")).unwrap();
        std::fs::write(root.join(OsStr::from_bytes(b"b\\\xff")), "").unwrap();
    }

    type Change = fn(&Path);

    fn same_times(tree: Tree) -> Tree {
        tree.without_mtimes(|_, _| true)
    }

    #[test]
    fn equal_trees_have_no_differences() {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        fill(one.path());
        fill(two.path());
        let [one, two] = [one, two].map(|root| same_times(Tree::of(root.path()).unwrap()));
        assert_same(&one, &two);
        let paths: Vec<&str> = one.entries.keys().map(String::as_str).collect();
        assert_eq!(paths, [".", "b\\\\\\xff", "d", "d/link", "d/one", "d/two"]);
        assert_eq!(one.entries["d/two"].same_as.as_deref(), Some("d/one"));
        assert_eq!(one.entries["d/link"].kind, Kind::Symlink("one".into()));
    }

    #[test]
    fn every_property_is_compared() {
        let changes: [(&str, Change); 6] = [
            ("d/one: kind file of 1 bytes", |root| std::fs::write(root.join("d/one"), "y").unwrap()),
            ("d: mode", |root| {
                std::fs::set_permissions(root.join("d"), std::fs::Permissions::from_mode(0o1700)).unwrap();
            }),
            ("d/link: kind symlink to \"one\" / symlink to \"two\"", |root| {
                std::fs::remove_file(root.join("d/link")).unwrap();
                symlink("two", root.join("d/link")).unwrap();
            }),
            ("d/two: same file as d/one / nothing", |root| {
                std::fs::remove_file(root.join("d/two")).unwrap();
                std::fs::write(root.join("d/two"), "x").unwrap();
            }),
            ("new: only on the right: directory", |root| std::fs::create_dir(root.join("new")).unwrap()),
            ("d/link: only on the left: symlink", |root| std::fs::remove_file(root.join("d/link")).unwrap()),
        ];
        for (expected, change) in changes {
            let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
            fill(one.path());
            fill(two.path());
            change(two.path());
            let [one, two] = [one, two].map(|root| same_times(Tree::of(root.path()).unwrap()));
            let differences = one.differences(&two);
            assert!(differences.iter().any(|line| line.starts_with(expected)), "{expected:?} in {differences:?}");
            assert!(one.clone().without("d").without("new").entries.len() < one.entries.len());
        }
    }

    #[test]
    fn times_are_compared_to_the_nanosecond() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), "x").unwrap();
        let set = |nanoseconds| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, nanoseconds);
            std::fs::File::open(root.path().join("f")).unwrap().set_modified(time).unwrap();
            Tree::of(root.path()).unwrap()
        };
        let differences = set(1).differences(&set(2));
        assert_eq!(differences, ["f: mtime 1600000000.000000001 / 1600000000.000000002"]);
    }
}
