//! A filesystem in memory, and layers that change it: what is expected of whoever unpacks them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use windlass_core::Digest;
use windlass_testkit::image::Layer;
use windlass_testkit::tree::{Entry, Kind, Tree};

/// The names that paths are made of: few, so that they meet often.
const NAMES: [&str; 5] = ["a", "b", "c", "ünïcödé with space", LONG];
/// As long as a name can be, with room for what deletes it.
const LONG: &str = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\
    nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";

/// Something that a layer does, if it fits what is there by then.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    what: What,
    path: String,
    /// Another path, for what has two.
    other: String,
    number: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Directory,
    File,
    Large,
    Sparse,
    Symlink,
    Link,
    Device,
    Fifo,
    Deep,
    Root,
    Whiteout,
    Opaque,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let what = prop_oneof![
        6 => Just(What::Directory),
        8 => Just(What::File),
        1 => Just(What::Large),
        1 => Just(What::Sparse),
        2 => Just(What::Symlink),
        3 => Just(What::Link),
        1 => Just(What::Device),
        1 => Just(What::Fifo),
        1 => Just(What::Deep),
        1 => Just(What::Root),
        3 => Just(What::Whiteout),
        1 => Just(What::Opaque),
    ];
    let path = || {
        let name = prop_oneof![6 => 0..3usize, 1 => 3..5usize].prop_map(|number| NAMES[number]);
        prop::collection::vec(name, 1..5).prop_map(|names| names.join("/"))
    };
    let step = (what, path(), path(), any::<u32>());
    let step = step.prop_map(|(what, path, other, number)| Step { what, path, other, number });
    prop::collection::vec(step, 0..24)
}

/// A filesystem.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// Which file is at a path; the root is the empty one.
    paths: BTreeMap<String, usize>,
    files: Vec<Entry>,
    /// Files with a lower number are of earlier layers.
    earlier: usize,
}

fn is_below(path: &str, directory: &str) -> bool {
    directory.is_empty() && !path.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn ancestors(path: &str) -> Vec<&str> {
    let mut all: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
    all.insert(0, "");
    all
}

impl Model {
    /// Changes the filesystem as the steps say that fit, and returns the layer that does the same. A layer that lists its
    /// directories has an entry for every directory that it has something in.
    pub(crate) fn layer(&mut self, steps: &[Step], lists: bool) -> Layer {
        self.earlier = self.files.len();
        let mut writing = Writing { layer: Layer::new(), lists, listed: BTreeSet::new() };
        if self.paths.is_empty() {
            self.put("", entry(Kind::Directory, 7), &mut writing);
        }
        // Deletions are of what is below, wherever in the layer they are.
        let deleted = self.delete(steps);
        for (number, step) in steps.iter().enumerate() {
            let path = &step.path;
            if deleted.contains(&number) {
                self.list(path, step.what == What::Opaque, &mut writing);
                writing.layer = match step.what {
                    What::Opaque => writing.layer.opaque(path),
                    _ => writing.layer.whiteout(path),
                };
                continue;
            }
            // Nothing but a directory can be where something was deleted in.
            let in_use = deleted.iter().any(|number| {
                let deletion = &steps[*number];
                is_below(&deletion.path, path) || deletion.what == What::Opaque && deletion.path == *path
            });
            if in_use && step.what != What::Directory || !self.has_directories(path) {
                continue;
            }
            self.carry_out(step, &mut writing);
        }
        writing.layer
    }

    /// Carries out the deletions that fit, and returns which they are.
    fn delete(&mut self, steps: &[Step]) -> BTreeSet<usize> {
        let mut deleted: BTreeSet<usize> = BTreeSet::new();
        for (number, Step { what, path, .. }) in steps.iter().enumerate() {
            let is_directory = || self.kind(path) == Some(&Kind::Directory);
            let fits = match what {
                What::Whiteout => self.paths.contains_key(path),
                What::Opaque => is_directory(),
                _ => false,
            };
            let meets =
                |other: &Step| path == &other.path || is_below(path, &other.path) || is_below(&other.path, path);
            if !fits || deleted.iter().any(|number| meets(&steps[*number])) {
                continue;
            }
            deleted.insert(number);
            let itself = *what == What::Whiteout;
            self.paths.retain(|other, _| !(is_below(other, path) || itself && other == path));
        }
        deleted
    }

    fn carry_out(&mut self, Step { what, path, other, number }: &Step, writing: &mut Writing) {
        let number = *number;
        match what {
            What::Directory => self.put(path, entry(Kind::Directory, number), writing),
            What::File | What::Large | What::Sparse => {
                let data = data(*what, number);
                let file = entry(Kind::File(data.len() as u64, Digest::sha256(&data)), number);
                self.replace(path, file, writing);
                self.write(path, Some(&data), *what == What::Sparse, writing);
            }
            What::Symlink => self.put(path, entry(Kind::Symlink(other.clone()), number), writing),
            What::Device if number.is_multiple_of(2) => self.put(path, entry(Kind::CharDevice(1, 3), number), writing),
            What::Device => self.put(path, entry(Kind::BlockDevice(7, number % 200), number), writing),
            What::Fifo => self.put(path, entry(Kind::Fifo, number), writing),
            What::Root => self.put("", entry(Kind::Directory, number), writing),
            What::Deep => {
                let mut path = path.clone();
                for _ in 0..30 {
                    self.put(&path, entry(Kind::Directory, number), writing);
                    path.push_str("/deep");
                }
            }
            What::Link => self.link(path, other, writing),
            What::Whiteout | What::Opaque => {}
        }
    }

    fn link(&mut self, path: &str, target: &str, writing: &mut Writing) {
        let Some(file) = self.paths.get(target).copied() else { return };
        let names = self.paths.values().filter(|other| **other == file).count();
        // Overlayfs copies a file up alone: its other names below keep the old one.
        let breaks = file < self.earlier && names > 1;
        if self.files[file].kind == Kind::Directory || breaks || path == target || is_below(target, path) {
            return;
        }
        self.list(path, false, writing);
        self.remove(path);
        self.paths.insert(path.to_owned(), file);
        writing.layer = std::mem::take(&mut writing.layer).hardlink(path, target);
    }

    fn kind(&self, path: &str) -> Option<&Kind> {
        self.paths.get(path).map(|file| &self.files[*file].kind)
    }

    fn has_directories(&self, path: &str) -> bool {
        ancestors(path).iter().all(|directory| self.kind(directory) == Some(&Kind::Directory))
    }

    fn remove(&mut self, path: &str) {
        self.paths.retain(|other, _| other != path && !is_below(other, path));
    }

    fn put(&mut self, path: &str, entry: Entry, writing: &mut Writing) {
        self.replace(path, entry, writing);
        self.write(path, None, false, writing);
    }

    /// A directory in the place of a directory keeps what is in it.
    fn replace(&mut self, path: &str, entry: Entry, writing: &mut Writing) {
        self.list(path, false, writing);
        if !(entry.kind == Kind::Directory && self.kind(path) == Some(&Kind::Directory)) {
            self.remove(path);
        }
        self.paths.insert(path.to_owned(), self.files.len());
        self.files.push(entry);
    }

    /// Writes entries for the directories on the way, once a layer, if it lists them.
    fn list(&self, path: &str, itself: bool, writing: &mut Writing) {
        if path.is_empty() {
            return;
        }
        for directory in ancestors(path).into_iter().chain(itself.then_some(path)) {
            if writing.lists && !directory.is_empty() && !writing.listed.contains(directory) {
                self.write(directory, None, false, writing);
            }
        }
    }

    fn write(&self, path: &str, data: Option<&[u8]>, sparse: bool, writing: &mut Writing) {
        let entry = &self.files[self.paths[path]];
        let name = if path.is_empty() { "./" } else { path };
        let layer = std::mem::take(&mut writing.layer);
        let layer = match &entry.kind {
            Kind::File(..) if sparse => {
                writing.layer = sparse_entry(layer, name, data.unwrap_or_default(), entry);
                return;
            }
            Kind::File(..) => layer.file(name, data.unwrap_or_default()),
            Kind::Directory => layer.dir(name, 0),
            Kind::Symlink(target) => layer.symlink(name, target),
            Kind::CharDevice(major, minor) => layer.device(name, *major, *minor),
            Kind::BlockDevice(major, minor) => layer.block_device(name, *major, *minor),
            Kind::Fifo | Kind::Socket => layer.fifo(name),
        };
        let (uid, gid) = entry.owner;
        let nanoseconds = u32::try_from(entry.mtime.1).unwrap();
        let layer = layer.mode(entry.mode).owner(uid.into(), gid.into()).mtime(entry.mtime.0, nanoseconds);
        writing.layer = entry.xattrs.iter().fold(layer, |layer, (name, value)| layer.xattr(name, value));
        if entry.kind == Kind::Directory {
            writing.listed.insert(path.to_owned());
        }
    }

    /// Returns what is to be seen.
    pub(crate) fn tree(&self) -> Tree {
        let mut names: BTreeMap<usize, Vec<&String>> = BTreeMap::new();
        self.paths.iter().for_each(|(path, file)| names.entry(*file).or_default().push(path));
        let mut tree = Tree::default();
        for (path, file) in &self.paths {
            let mut entry = self.files[*file].clone();
            entry.same_as = (names[file].len() > 1).then(|| names[file][0].clone());
            let path = if path.is_empty() { "." } else { path };
            tree.entries.insert(path.to_owned(), entry);
        }
        tree
    }
}

/// A layer that is being written.
struct Writing {
    layer: Layer,
    lists: bool,
    /// Directories that it has an entry for.
    listed: BTreeSet<String>,
}

/// Makes properties out of a number.
fn entry(kind: Kind, number: u32) -> Entry {
    let mode = match kind {
        Kind::Symlink(_) => 0o777,
        _ => [0o644, 0o755, 0o4711, 0o2750, 0o1777, 0o000, 0o600, 0o022][number as usize % 8],
    };
    let owner = [(0, 0), (0, 0), (1000, 1000), (0, 5), (70_000, 0)][number as usize / 8 % 5];
    let mut xattrs = BTreeMap::new();
    if matches!(kind, Kind::File(..) | Kind::Directory) && number.is_multiple_of(3) {
        xattrs.insert("user.number".to_owned(), number.to_string().into_bytes());
    }
    if matches!(kind, Kind::File(..)) && number.is_multiple_of(5) {
        // cap_net_raw, as the kernel writes it: revision 2, effective.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        xattrs.insert("security.capability".to_owned(), capability.to_vec());
    }
    // In the past: a root that is younger than its snapshot counts as one that the layer has no entry for.
    let mtime = (i64::from(number / 4), if number.is_multiple_of(2) { 0 } else { 123_456_789 });
    Entry { kind, mode, owner, mtime, xattrs, same_as: None }
}

fn data(what: What, number: u32) -> Vec<u8> {
    match what {
        What::Large => number.to_le_bytes().repeat(120_000 + number as usize % 100_000),
        What::Sparse => [vec![0; 8192], number.to_le_bytes().repeat(128), vec![0; 10_000]].concat(),
        _ => number.to_string().repeat(number as usize % 7).into_bytes(),
    }
}

/// Adds a file of [`What::Sparse`] in GNU's old format, which has neither attributes nor parts of seconds.
fn sparse_entry(layer: Layer, path: &str, data: &[u8], entry: &Entry) -> Layer {
    let mut header = [0; 512];
    let mut field = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    let number = |value: u64, width: usize| format!("{value:0width$o}\0", width = width - 1).into_bytes();
    field(100, &number(entry.mode.into(), 8));
    field(108, &number(entry.owner.0.into(), 8));
    field(116, &number(entry.owner.1.into(), 8));
    field(124, &number(512, 12));
    field(136, &number(entry.mtime.0.unsigned_abs(), 12));
    field(148, b"        ");
    field(156, b"S");
    field(257, b"ustar  \0");
    field(386, &number(8192, 12));
    field(398, &number(512, 12));
    field(410, &number(data.len() as u64, 12));
    field(422, &number(0, 12));
    field(483, &number(data.len() as u64, 12));
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let records = records(path, entry);
    layer.raw_bytes(&records).raw_bytes(&header).raw_bytes(&data[8192..8704])
}

/// Returns the extended header with the name, the attributes and the time.
fn records(path: &str, entry: &Entry) -> Vec<u8> {
    let mut all = BTreeMap::from([("path".to_owned(), path.as_bytes().to_vec())]);
    all.insert("mtime".to_owned(), format!("{}.{:09}", entry.mtime.0, entry.mtime.1).into_bytes());
    all.extend(entry.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone())));
    let mut records = Vec::new();
    for (key, value) in all {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..rest + 9).find(|length| rest + length.to_string().len() == *length).unwrap();
        records.extend(format!("{length} {key}=").into_bytes());
        records.extend(value);
        records.push(b'\n');
    }
    let mut header = tar_header(records.len());
    header.extend(&records);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn tar_header(size: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..7].copy_from_slice(b"records");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..157].copy_from_slice(b"        x");
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
