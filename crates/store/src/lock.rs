//! The lock of a root directory: one owner process at a time, and a second one learns who it is.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use windlass_core::error::IoResultExt;
use windlass_core::{Error, Result, timestamp};

use crate::blocking::blocking;

/// How often a waiter tries again.
const POLL: Duration = Duration::from_millis(50);
/// The mode of a root: others may pass through it, to mounts below, but not list it. containerd's too.
const ROOT_MODE: u32 = 0o711;
/// How much of the owner's description is read.
const MAX_OWNER: u64 = 4096;

/// What to do while another process has the root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LockWait {
    /// Fail at once.
    #[default]
    Fail,
    /// Wait that long, then fail.
    UpTo(Duration),
    /// Wait.
    Forever,
}

/// The ownership of a root directory; it ends when the value is dropped or the process dies.
#[derive(Debug)]
pub struct RootLock {
    root: PathBuf,
    // flock(2) belongs to the open file: closing it unlocks.
    _file: File,
}

/// Who has a root, as the file `lock` in it says: JSON on one line. Readers of the first form, without an address, skip it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process.
    pub pid: u32,
    /// The program and its subcommand.
    pub command: String,
    /// Since when.
    #[serde(with = "timestamp")]
    pub since: SystemTime,
    /// The socket on which it answers, if it is a daemon that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<PathBuf>,
}

impl Owner {
    /// Reads who took the lock of a root last, whether or not he still has it: a question for whoever was refused. `None` when
    /// that is not written down, as at the moment at which it is taken.
    pub fn of(root: &Path) -> Option<Self> {
        Self::read(&mut File::open(root.join("lock")).ok()?)
    }

    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.take(MAX_OWNER).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }
}

impl RootLock {
    /// Takes the lock of a root directory, which is created when missing.
    ///
    /// # Errors
    /// `Unavailable` naming the owner, when another process has the root; `PermissionDenied`.
    ///
    /// # Cancel safety
    /// A call that is dropped has no effect.
    pub async fn acquire(root: &Path, wait: LockWait) -> Result<Self> {
        Self::acquire_by(Self::attempt, root, wait).await
    }

    /// Takes the lock of a root directory for somebody who only looks: it may be on a filesystem that cannot be written to,
    /// where the owner is not written down. The directory must be there.
    ///
    /// # Errors
    /// As [`RootLock::acquire`].
    ///
    /// # Cancel safety
    /// A call that is dropped has no effect.
    pub async fn acquire_to_look(root: &Path, wait: LockWait) -> Result<Self> {
        Self::acquire_by(Self::attempt_to_look, root, wait).await
    }

    async fn acquire_by(attempt: fn(PathBuf) -> Result<Attempt>, root: &Path, wait: LockWait) -> Result<Self> {
        let started = Instant::now();
        loop {
            let path = root.to_owned();
            let by = match blocking(move || attempt(path)).await? {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Owned { by } => by,
            };
            let patient = match wait {
                LockWait::Fail => false,
                LockWait::UpTo(limit) => started.elapsed() < limit,
                LockWait::Forever => true,
            };
            if !patient {
                return Err(Error::unavailable(format!("root {} is in use by {by}", root.display()))
                    .hint("wait until it is done, stop it, or use another root"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes down where the owner answers, so that whoever is refused can go there; `None` when it does so no longer.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn announce(&self, address: Option<&Path>) -> Result<()> {
        let path = self.root.join("lock");
        // The same file, by a position of its own: a reader sees the old line or the new one.
        let mut file = OpenOptions::new().write(true).open(&path).attempt(|| format!("open {}", path.display()))?;
        write_owner(&mut file, address).attempt(|| format!("write {}", path.display()))
    }

    fn attempt(root: PathBuf) -> Result<Attempt> {
        DirBuilder::new()
            .recursive(true)
            .mode(ROOT_MODE)
            .create(&root)
            .attempt(|| format!("create root {}", root.display()))?;
        let path = root.join("lock");
        let mut file = open(&path).attempt(|| format!("open {}", path.display()))?;
        if let Some(by) = owned(&mut file, &path)? {
            return Ok(Attempt::Owned { by });
        }
        match write_owner(&mut file, None) {
            // Whoever is refused does not learn by whom; but on a full disk images have to be removable.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::debug!(%error, "the owner of the root is not written down");
            }
            written => written.attempt(|| format!("write {}", path.display()))?,
        }
        Ok(Attempt::Taken(Self { root, _file: file }))
    }

    fn attempt_to_look(root: PathBuf) -> Result<Attempt> {
        let path = root.join("lock");
        let opened = match open(&path) {
            // Where there is no file to lock nobody can have made one.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => File::open(&root),
                opened => opened,
            },
            Ok(_) => return Self::attempt(root),
            failed => failed,
        };
        let mut file = opened.attempt(|| format!("open {}", path.display()))?;
        Ok(match owned(&mut file, &path)? {
            Some(by) => Attempt::Owned { by },
            None => Attempt::Taken(Self { root, _file: file }),
        })
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)
}

/// Locks the file, or says who has done so.
fn owned(file: &mut File, path: &Path) -> Result<Option<String>> {
    match rustix::fs::flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(describe(file))),
        Err(error) => Err(Error::io(format!("lock {}", path.display()), error.into())),
    }
}

/// What came of one attempt.
enum Attempt {
    Taken(RootLock),
    Owned { by: String },
}

fn write_owner(file: &mut File, address: Option<&Path>) -> std::io::Result<()> {
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let address = address.map(Path::to_owned);
    let owner = Owner { pid: std::process::id(), command: command(arguments), since: SystemTime::now(), address };
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&serde_json::to_vec(&owner)?)
}

/// The program and its subcommand; not all of its arguments, there may be secrets among them.
fn command(arguments: impl IntoIterator<Item = String>) -> String {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_default();
    let name = Path::new(&program).file_name().map_or(program.clone(), |name| name.to_string_lossy().into_owned());
    let mut after_flag = false;
    for argument in arguments {
        // What follows a flag may be its value.
        let skipped = std::mem::replace(&mut after_flag, argument.starts_with('-') && !argument.contains('='));
        if !skipped && !argument.starts_with('-') && !argument.contains('/') {
            return format!("{name} {argument}");
        }
    }
    name
}

/// Says who has the lock, as far as that can be read.
fn describe(file: &mut File) -> String {
    // An owner writes its description after it took the lock, so there may be none yet.
    let Some(Owner { pid, command, since, address }) = Owner::read(file) else { return "another process".to_owned() };
    let age = since.elapsed().unwrap_or_default().as_secs();
    let answers = address.map(|address| format!(", which answers at {}", address.display())).unwrap_or_default();
    format!("process {pid} ({command}) since {age} s{answers}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{LockWait, Owner, RootLock, command};

    #[tokio::test]
    async fn the_lock_says_where_its_owner_answers() {
        let root = tempfile::tempdir().unwrap();
        let lock = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap();
        assert_eq!(Owner::of(root.path()).unwrap().address, None);
        lock.announce(Some(Path::new("/run/w.sock"))).unwrap();
        let owner = Owner::of(root.path()).unwrap();
        assert_eq!((owner.pid, owner.address.as_deref()), (std::process::id(), Some(Path::new("/run/w.sock"))));
        let refused = RootLock::acquire(root.path(), LockWait::Fail).await.unwrap_err();
        assert!(refused.to_string().ends_with(", which answers at /run/w.sock"), "{refused}");
        lock.announce(None).unwrap();
        assert_eq!(Owner::of(root.path()).unwrap().address, None, "and nothing of the longer line is left");
    }

    #[test]
    fn an_owner_of_the_first_form_is_read() {
        let first = r#"{"pid":7,"command":"dist pull","since":"2026-01-02T03:04:05Z"}"#;
        let owner: Owner = serde_json::from_str(first).unwrap();
        assert_eq!((owner.pid, owner.command.as_str(), owner.address), (7, "dist pull", None));
    }

    #[test]
    fn the_owner_is_named_by_its_subcommand_and_not_by_the_value_of_a_flag() {
        for (line, named) in [
            ("/usr/bin/dist pull redis", "dist pull"),
            ("dist --root r --progress none pull redis", "dist pull"),
            ("dist --root=r images ls", "dist images"),
            ("dist --root r --wait --progress none pull redis", "dist pull"),
            ("dist -n k8s.io content ls", "dist content"),
            ("dist --password secret", "dist"),
            ("dist", "dist"),
        ] {
            assert_eq!(command(line.split(' ').map(str::to_owned)), named, "{line}");
        }
    }
}
