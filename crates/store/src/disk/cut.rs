//! What a disk may have on it after a power cut: the model that `docs/format/durability.md` states.
//!
//! A completed sync of a file covers its data, length and (not for `fdatasync`) mode; one of a directory covers which
//! entries it has. Everything else may be there or not, in any combination: a page of a file as it was after any of the
//! writes, its sectors of two different moments, the length of yet another moment, an entry without the ones before it.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_core::digest::Algorithm;

use super::log::{FileId, Op};

/// What is written back as a whole, unless power goes just then.
const PAGE: usize = 4096;
/// What a disk writes as a whole in any case.
const SECTOR: usize = 512;

/// What is kept of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Everything,
    Some,
}

/// One way to lose power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Entries of directories.
    pub(crate) entries: Keep,
    /// Lengths and modes of files.
    pub(crate) lengths: Keep,
    /// Data of files.
    pub(crate) data: Keep,
    /// What decides where [`Keep::Some`] is said.
    pub(crate) seed: u64,
}

/// A disk after a power cut.
#[derive(Debug, Default)]
pub(crate) struct Left {
    directories: Vec<PathBuf>,
    files: Vec<(PathBuf, u32, Arc<Vec<u8>>)>,
}

/// A disk while it is in use: what is durable on it, and what is not yet.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Which entries directories have now. The root is directory 0.
    now: Entries,
    durable: Entries,
    /// Changes of entries that no sync covers, oldest first.
    pending: Vec<Change>,
    files: BTreeMap<FileId, Contents>,
    directories: u64,
}

/// Entries by directory and name.
type Entries = BTreeMap<(u64, String), Entry>;
/// Changes that happen together or not at all.
type Change = Vec<((u64, String), Option<Entry>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Directory(u64),
    File(FileId),
}

#[derive(Debug, Default)]
struct Contents {
    durable: Arc<Vec<u8>>,
    mode: u32,
    /// What no sync covers, oldest first.
    pending: Vec<Edit>,
}

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, Arc<[u8]>),
    SetLen(usize),
    SetMode(u32),
}

impl Model {
    /// Carries out one operation.
    pub(crate) fn step(&mut self, op: &Op) {
        match op {
            Op::MakeDir(path) => {
                self.directories += 1;
                let made = Entry::Directory(self.directories);
                self.change(vec![(self.place(path), Some(made))]);
            }
            Op::MakeFile(path, id, mode) => {
                self.files.insert(*id, Contents { mode: *mode, ..Contents::default() });
                self.change(vec![(self.place(path), Some(Entry::File(*id)))]);
            }
            Op::Write(id, offset, bytes) => self.edit(*id, Edit::Write(size(*offset), bytes.clone())),
            Op::SetLen(id, length) => self.edit(*id, Edit::SetLen(size(*length))),
            Op::SetMode(id, mode) => self.edit(*id, Edit::SetMode(*mode)),
            Op::Rename(from, to) => {
                let (from, to) = (self.place(from), self.place(to));
                let moved = self.now[&from];
                self.change(vec![(from, None), (to, Some(moved))]);
            }
            Op::Remove(path) | Op::RemoveDir(path) => self.change(vec![(self.place(path), None)]),
            Op::SyncData(id) => self.contents(*id).sync(false),
            Op::SyncAll(id) => self.contents(*id).sync(true),
            Op::SyncDir(path) => {
                let directory = self.directory(path);
                self.sync_entries(directory);
            }
        }
    }

    /// Returns what is on the disk when power goes now.
    pub(crate) fn cut(&self, variant: Variant) -> Left {
        let mut dice = Dice(variant.seed);
        let mut entries = self.durable.clone();
        for change in &self.pending {
            if dice.keeps(variant.entries) {
                apply(&mut entries, change);
            }
        }
        let mut left = Left::default();
        let mut open = vec![(0, PathBuf::new())];
        while let Some((directory, path)) = open.pop() {
            for ((_, name), entry) in entries.range((directory, String::new())..(directory + 1, String::new())) {
                let path = path.join(name);
                match entry {
                    Entry::Directory(inner) => {
                        left.directories.push(path.clone());
                        open.push((*inner, path));
                    }
                    Entry::File(id) => {
                        let (bytes, mode) = self.files[id].cut(variant, &mut dice);
                        left.files.push((path, mode, bytes));
                    }
                }
            }
        }
        left
    }

    fn directory(&self, path: &Path) -> u64 {
        path.iter().fold(0, |directory, name| match self.now[&(directory, name.to_str().unwrap().to_owned())] {
            Entry::Directory(inner) => inner,
            Entry::File(_) => panic!("{} is a file", path.display()),
        })
    }

    fn place(&self, path: &Path) -> (u64, String) {
        let name = path.file_name().unwrap().to_str().unwrap();
        (self.directory(path.parent().unwrap()), name.to_owned())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.pending.push(change);
    }

    fn contents(&mut self, id: FileId) -> &mut Contents {
        self.files.get_mut(&id).unwrap()
    }

    fn edit(&mut self, id: FileId, edit: Edit) {
        self.contents(id).pending.push(edit);
    }

    /// Makes durable which entries a directory has. A move becomes durable at both of its ends: it is one change.
    fn sync_entries(&mut self, directory: u64) {
        let touches = |change: &Change| change.iter().any(|((at, _), _)| *at == directory);
        let mut waiting: Vec<Change> = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            if !touches(&change) {
                waiting.push(change);
                continue;
            }
            apply(&mut self.durable, &change);
            // What an older change that stays behind says of the same names is history.
            for older in &mut waiting {
                older.retain(|(place, _)| !change.iter().any(|(newer, _)| newer == place));
            }
        }
        self.pending = waiting;
    }
}

fn apply(entries: &mut Entries, change: &Change) {
    for (place, entry) in change {
        match entry {
            Some(entry) => drop(entries.insert(place.clone(), *entry)),
            None => drop(entries.remove(place)),
        }
    }
}

impl Contents {
    fn sync(&mut self, mode_too: bool) {
        let mut kept = Vec::new();
        for edit in std::mem::take(&mut self.pending) {
            match edit {
                Edit::Write(offset, bytes) => {
                    let durable = Arc::make_mut(&mut self.durable);
                    let end = offset + bytes.len();
                    durable.resize(durable.len().max(end), 0);
                    durable[offset..end].copy_from_slice(&bytes);
                }
                Edit::SetLen(length) => Arc::make_mut(&mut self.durable).resize(length, 0),
                Edit::SetMode(mode) if mode_too => self.mode = mode,
                Edit::SetMode(_) => kept.push(edit),
            }
        }
        self.pending = kept;
    }

    fn cut(&self, variant: Variant, dice: &mut Dice) -> (Arc<Vec<u8>>, u32) {
        if self.pending.is_empty() {
            return (self.durable.clone(), self.mode);
        }
        let moment = dice.moment(variant.lengths, self.pending.len());
        let mut length = self.durable.len();
        let mut mode = self.mode;
        for edit in &self.pending[..moment] {
            match edit {
                Edit::Write(offset, bytes) => length = length.max(offset + bytes.len()),
                Edit::SetLen(set) => length = *set,
                Edit::SetMode(set) => mode = *set,
            }
        }
        let mut bytes = self.durable.as_ref().clone();
        bytes.resize(length.next_multiple_of(PAGE), 0);
        for page in self.edited_pages(bytes.len() / PAGE) {
            let newer = self.page(page, dice.moment(variant.data, self.pending.len()));
            let older = self.page(page, dice.moment(variant.data, self.pending.len()));
            let torn = if variant.data == Keep::Some { dice.below(PAGE / SECTOR + 1) * SECTOR } else { PAGE };
            let into = &mut bytes[page * PAGE..(page + 1) * PAGE];
            into[..torn].copy_from_slice(&newer[..torn]);
            into[torn..].copy_from_slice(&older[torn..]);
        }
        bytes.truncate(length);
        (Arc::new(bytes), mode)
    }

    /// Returns the pages below `end` that a pending edit touches.
    fn edited_pages(&self, end: usize) -> Vec<usize> {
        let mut edited = vec![false; end];
        for edit in &self.pending {
            let range = match edit {
                Edit::Write(offset, bytes) => offset / PAGE..(offset + bytes.len()).div_ceil(PAGE),
                Edit::SetLen(length) => length / PAGE..end,
                Edit::SetMode(_) => continue,
            };
            edited[range.start.min(end)..range.end.min(end)].fill(true);
        }
        (0..end).filter(|page| edited[*page]).collect()
    }

    /// Returns a page as it was after so many of the pending edits.
    fn page(&self, page: usize, moment: usize) -> [u8; PAGE] {
        let (start, end) = (page * PAGE, (page + 1) * PAGE);
        let mut bytes = [0; PAGE];
        if let Some(durable) = self.durable.get(start..end.min(self.durable.len())) {
            bytes[..durable.len()].copy_from_slice(durable);
        }
        for edit in &self.pending[..moment] {
            match edit {
                Edit::Write(offset, written) => {
                    let (from, to) = (start.max(*offset), end.min(offset + written.len()));
                    if from < to {
                        bytes[from - start..to - start].copy_from_slice(&written[from - offset..to - offset]);
                    }
                }
                Edit::SetLen(length) => bytes[length.clamp(&start, &end) - start..].fill(0),
                Edit::SetMode(_) => {}
            }
        }
        bytes
    }
}

impl Left {
    /// Makes the disk below a directory.
    pub(crate) fn write(&self, root: &Path) {
        for directory in &self.directories {
            std::fs::create_dir(root.join(directory)).unwrap();
        }
        for (path, mode, bytes) in &self.files {
            let path = root.join(path);
            std::fs::write(&path, bytes.as_slice()).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
        }
    }

    /// Returns something that is the same for the same disk.
    pub(crate) fn identity(&self) -> String {
        let mut hasher = Algorithm::Sha256.hasher();
        for directory in &self.directories {
            hasher.update(format!("{}/\n", directory.display()).as_bytes());
        }
        for (path, mode, bytes) in &self.files {
            hasher.update(format!("{} {mode:o} {}\n", path.display(), bytes.len()).as_bytes());
            hasher.update(bytes);
        }
        hasher.finish().to_string()
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        size(self.next() % end as u64)
    }

    fn keeps(&mut self, keep: Keep) -> bool {
        match keep {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Some => self.below(2) == 0,
        }
    }

    /// Picks a moment between before the first and after the last of so many edits; both ends are likely.
    fn moment(&mut self, keep: Keep, edits: usize) -> usize {
        match keep {
            Keep::Nothing => 0,
            Keep::Everything => edits,
            Keep::Some => match self.below(3) {
                0 => 0,
                1 => edits,
                _ => self.below(edits + 1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(ops: &[Op]) -> Model {
        let mut model = Model::default();
        for op in ops {
            model.step(op);
        }
        model
    }

    fn write(id: FileId, offset: u64, bytes: &[u8]) -> Op {
        Op::Write(id, offset, bytes.into())
    }

    /// Returns everything that may be left, as `name=content` with trailing zeros shown as dots.
    fn lefts(ops: &[Op]) -> Vec<String> {
        let model = model(ops);
        let keeps = [Keep::Nothing, Keep::Everything, Keep::Some];
        let mut all = Vec::new();
        for entries in keeps {
            for lengths in keeps {
                for data in keeps {
                    for seed in 0..20 {
                        let left = model.cut(Variant { entries, lengths, data, seed });
                        let file = |(path, _, bytes): &(PathBuf, u32, Arc<Vec<u8>>)| {
                            format!("{}={}", path.display(), String::from_utf8_lossy(bytes).replace('\0', "."))
                        };
                        all.push(left.files.iter().map(file).collect::<Vec<_>>().join(" "));
                    }
                }
            }
        }
        all.sort();
        all.dedup();
        all
    }

    fn made() -> Vec<Op> {
        vec![Op::MakeFile("a".into(), 1, 0o600), write(1, 0, b"old"), Op::SyncAll(1), Op::SyncDir("".into())]
    }

    #[test]
    fn what_was_synced_is_there_and_nothing_else_can_be() {
        assert_eq!(lefts(&made()), ["a=old"]);
    }

    #[test]
    fn a_file_without_any_sync_may_be_missing_empty_or_zeros() {
        assert_eq!(lefts(&made()[..2]), ["", "a=", "a=...", "a=old"]);
    }

    #[test]
    fn a_synced_file_in_a_directory_that_is_not_may_be_missing() {
        assert_eq!(lefts(&made()[..3]), ["", "a=old"]);
    }

    #[test]
    fn a_synced_directory_may_have_a_file_without_its_data() {
        let ops = [&made()[..2], &[Op::SyncDir("".into())]].concat();
        assert_eq!(lefts(&ops), ["a=", "a=...", "a=old"]);
    }

    #[test]
    fn a_move_happens_at_both_ends_or_at_none_and_may_come_before_the_data() {
        let ops = [
            made(),
            vec![
                Op::MakeFile("b".into(), 2, 0o600),
                write(2, 0, b"new"),
                Op::SyncDir("".into()),
                Op::Rename("b".into(), "a".into()),
            ],
        ]
        .concat();
        assert_eq!(lefts(&ops), ["a=", "a=...", "a=new", "a=old b=", "a=old b=...", "a=old b=new"]);
    }

    #[test]
    fn a_move_out_of_a_directory_is_durable_when_either_end_is_synced() {
        for synced in ["from", "to"] {
            let ops = [
                Op::MakeDir("from".into()),
                Op::MakeDir("to".into()),
                Op::SyncDir("".into()),
                Op::MakeFile("from/a".into(), 1, 0o600),
                write(1, 0, b"x"),
                Op::SyncAll(1),
                Op::Rename("from/a".into(), "to/a".into()),
                Op::SyncDir(synced.into()),
            ];
            assert_eq!(lefts(&ops), ["to/a=x"], "{synced}");
        }
    }

    #[test]
    fn a_synced_file_in_a_directory_whose_own_entry_is_not_durable_may_be_missing() {
        let ops =
            [Op::MakeDir("d".into()), Op::MakeFile("d/a".into(), 1, 0o600), Op::SyncAll(1), Op::SyncDir("d".into())];
        assert_eq!(lefts(&ops), ["", "d/a="]);
    }

    #[test]
    fn a_write_may_be_torn_between_sectors_and_pages_but_not_within_a_sector() {
        let old = vec![b'o'; 2 * PAGE];
        let ops = [
            Op::MakeFile("a".into(), 1, 0o600),
            write(1, 0, &old),
            Op::SyncAll(1),
            Op::SyncDir("".into()),
            write(1, 0, &vec![b'n'; 2 * PAGE]),
        ];
        let model = model(&ops);
        let mut torn = 0;
        for seed in 0..200 {
            let keep = Keep::Some;
            let left = model.cut(Variant { entries: keep, lengths: keep, data: keep, seed });
            let bytes = &left.files[0].2;
            assert_eq!(bytes.len(), old.len());
            for sector in bytes.chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}");
            }
            torn += usize::from(bytes.iter().any(|byte| *byte != bytes[0]));
        }
        assert!(torn > 50, "{torn}");
    }

    #[test]
    fn a_mode_is_durable_with_the_whole_file_and_not_with_its_data_alone() {
        let modes = |sync: Op| {
            let ops = [made(), vec![Op::SetMode(1, 0o444), sync]].concat();
            let model = model(&ops);
            [Keep::Nothing, Keep::Everything].map(|keep| {
                let left = model.cut(Variant { entries: keep, lengths: keep, data: keep, seed: 0 });
                left.files[0].1
            })
        };
        assert_eq!(modes(Op::SyncData(1)), [0o600, 0o444]);
        assert_eq!(modes(Op::SyncAll(1)), [0o444, 0o444]);
    }
}
