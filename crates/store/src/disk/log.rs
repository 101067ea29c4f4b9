//! A disk for tests that keeps a log of what was done to it.
//!
//! Operations are carried out for real, except that syncs are only noted: nothing here is about the machine the test runs
//! on, and [`cut`](super::cut) says what a power cut would have left. Operations happen one at a time, so that the order in
//! the log is the order in which they happened, and a sync covers exactly what stands before it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::real::Real;
use super::{Backend, Disk, How, Look, OpenFile, OpenFilesystem};

/// The identity of a file, whatever it is called.
pub(crate) type FileId = u64;

/// One operation; paths are relative to the root.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    MakeDir(PathBuf),
    MakeFile(PathBuf, FileId, u32),
    Write(FileId, u64, Arc<[u8]>),
    SetLen(FileId, u64),
    SetMode(FileId, u32),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveDir(PathBuf),
    SyncData(FileId),
    SyncAll(FileId),
    SyncDir(PathBuf),
}

#[derive(Debug, Default)]
struct State {
    ops: Vec<Op>,
    files: HashMap<PathBuf, FileId>,
}

/// The log of one root.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    root: PathBuf,
    boot: u64,
    state: Arc<Mutex<State>>,
}

impl Log {
    /// Begins the log of a root in which there is nothing yet, in a boot of its own.
    pub(crate) fn of(root: &Path) -> Self {
        static BOOTS: AtomicU64 = AtomicU64::new(0);
        let boot = BOOTS.fetch_add(1, Ordering::Relaxed);
        Self { root: root.to_owned(), boot, state: Arc::default() }
    }

    /// Goes on with the log after its first operations, on another root in which there is what those left, in the same boot.
    pub(crate) fn continued(&self, root: &Path, ops: Vec<Op>) -> Self {
        let mut files = HashMap::new();
        for op in &ops {
            match op {
                Op::MakeFile(path, id, _) => drop(files.insert(path.clone(), *id)),
                Op::Rename(from, to) => {
                    let id = files.remove(from).unwrap();
                    files.insert(to.clone(), id);
                }
                Op::Remove(path) => drop(files.remove(path)),
                _ => {}
            }
        }
        Self { root: root.to_owned(), boot: self.boot, state: Arc::new(Mutex::new(State { ops, files })) }
    }

    /// Takes what is in the root already as known, without saying how it came there.
    pub(crate) fn adopt(&self) {
        let mut open = vec![self.root.clone()];
        let mut state = self.state();
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                } else {
                    let id = FileId::MAX - state.files.len() as FileId;
                    state.files.insert(self.relative(&entry.path()), id);
                }
            }
        }
    }

    /// Returns the disk that keeps this log.
    pub(crate) fn disk(&self) -> Disk {
        Disk::new(self.clone())
    }

    /// Returns how many operations there were.
    pub(crate) fn len(&self) -> usize {
        self.state().ops.len()
    }

    /// Returns the operations.
    pub(crate) fn ops(&self) -> Vec<Op> {
        self.state().ops.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }

    /// Carries out one operation and notes it when it succeeds.
    fn note<T>(&self, carry_out: impl FnOnce(&mut State) -> io::Result<(T, Vec<Op>)>) -> io::Result<T> {
        let mut state = self.state();
        let (done, ops) = carry_out(&mut state)?;
        state.ops.extend(ops);
        Ok(done)
    }
}

impl Backend for Log {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.note(|_| Ok((Real.create_dir(path, mode)?, vec![Op::MakeDir(self.relative(path))])))
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn OpenFile>> {
        self.note(|state| {
            let file = Real.open(path, how)?;
            let name = self.relative(path);
            let mut ops = Vec::new();
            let id = match (state.files.get(&name), how) {
                (Some(id), How::Replace(_)) => {
                    ops.push(Op::SetLen(*id, 0));
                    *id
                }
                (Some(id), _) => *id,
                (None, How::Create(mode) | How::CreateNew(mode) | How::Replace(mode)) => {
                    let id = state.ops.len() as FileId + 1;
                    state.files.insert(name.clone(), id);
                    ops.push(Op::MakeFile(name, id, mode));
                    id
                }
                (None, How::Read | How::Write) => panic!("{} was not made through the log", path.display()),
            };
            Ok((Arc::new(Logged { log: self.clone(), id, file }) as Arc<dyn OpenFile>, ops))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(|state| {
            Real.rename(from, to)?;
            let (from, to) = (self.relative(from), self.relative(to));
            let id = state.files.remove(&from).unwrap();
            state.files.insert(to.clone(), id);
            Ok(((), vec![Op::Rename(from, to)]))
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.note(|state| {
            Real.remove_file(path)?;
            let name = self.relative(path);
            state.files.remove(&name);
            Ok(((), vec![Op::Remove(name)]))
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = Vec::new();
        Real.list(path, &mut |name| names.push(path.join(name)))?;
        for name in names {
            self.remove_file(&name)?;
        }
        self.note(|_| Ok((std::fs::remove_dir(path)?, vec![Op::RemoveDir(self.relative(path))])))
    }

    fn list(&self, path: &Path, visit: &mut dyn FnMut(&str)) -> io::Result<()> {
        Real.list(path, visit)
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        Real.look(path)
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.note(|state| {
            Real.set_mode(path, mode)?;
            let id = state.files.get(&self.relative(path)).copied();
            Ok(((), vec![Op::SetMode(id.unwrap(), mode)]))
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // What is around the root is not in the log.
        let ops = path.starts_with(&self.root).then(|| Op::SyncDir(self.relative(path)));
        self.note(|_| Ok((Real.look(path).map(drop)?, ops.into_iter().collect())))
    }

    fn filesystem(&self, _path: &Path) -> io::Result<Arc<dyn OpenFilesystem>> {
        Ok(Arc::new(LoggedFilesystem(self.clone())))
    }

    fn unwritten(&self) -> Option<u64> {
        Some(0)
    }

    fn boot(&self) -> Option<String> {
        Some(format!("boot {}", self.boot))
    }
}

#[derive(Debug)]
struct LoggedFilesystem(Log);

impl OpenFilesystem for LoggedFilesystem {
    fn sync(&self) -> io::Result<()> {
        self.0.note(|state| {
            let mut directories = BTreeSet::from([PathBuf::new()]);
            let mut ops = Vec::new();
            for (path, id) in &state.files {
                ops.push(Op::SyncAll(*id));
                directories.extend(path.ancestors().skip(1).map(Path::to_owned));
            }
            ops.extend(directories.into_iter().map(Op::SyncDir));
            Ok(((), ops))
        })
    }
}

#[derive(Debug)]
struct Logged {
    log: Log,
    id: FileId,
    file: Arc<dyn OpenFile>,
}

impl OpenFile for Logged {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn read_more_at(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize> {
        self.file.read_more_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.log.note(|_| {
            let written = self.file.write_at(bytes, offset)?;
            Ok((written, vec![Op::Write(self.id, offset, bytes[..written].into())]))
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.log.note(|_| Ok((self.file.set_len(length)?, vec![Op::SetLen(self.id, length)])))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.log.note(|_| Ok(((), vec![Op::SyncData(self.id)])))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.log.note(|_| Ok(((), vec![Op::SyncAll(self.id)])))
    }

    fn look(&self) -> io::Result<Look> {
        self.file.look()
    }

    fn start_writeback(&self, _offset: u64, _length: u64) {}
}
