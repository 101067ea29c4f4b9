//! Roots whose blobs are in a content store of somebody else: which one that is, and the file in the root that says so.
//!
//! The records are here, whoever has the bytes. Without the file, whoever opened such a root without the other store would
//! take every blob for lost, and whoever opened it after its database was lost would take every blob there for garbage.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_core::{Error, Result, content};

use crate::content::Blobs;
use crate::disk::{Disk, How};

/// What the file is called, below a root.
const FILE: &str = "content/elsewhere";
/// The mode of the file.
const MODE: u32 = 0o600;
/// The version of the file.
const VERSION: u32 = 1;
/// How much of the file is read: a name and a path.
const MAX_LEN: usize = 16 << 10;

/// A content store of somebody else in which the bytes of a store's blobs are kept. It is to be nobody else's: what is marked
/// there as kept for us and has no record here is garbage.
#[derive(Clone)]
pub struct Elsewhere {
    sign: Sign,
    content: Arc<dyn content::Store>,
}

impl Elsewhere {
    /// Names a store, and the socket that it is reached by.
    pub fn new(name: impl Into<String>, address: impl Into<PathBuf>, content: Arc<dyn content::Store>) -> Self {
        Self { sign: Sign { version: VERSION, name: name.into(), address: address.into() }, content }
    }

    /// Returns name and socket of the store that has the bytes of a root's blobs, as the root says; `None` when the root has
    /// them itself. Blocking.
    ///
    /// # Errors
    /// Those of the filesystem; `DataLoss` for a file that says nothing, `FailedPrecondition` for one of a newer version.
    pub fn of(root: &Path) -> Result<Option<(String, PathBuf)>> {
        Ok(Sign::read(&Disk::real(), root)?.map(|sign| (sign.name, sign.address)))
    }

    pub(crate) fn content(&self) -> &dyn content::Store {
        &*self.content
    }

    pub(crate) fn address(&self) -> &Path {
        &self.sign.address
    }
}

impl Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sign.fmt(f)
    }
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sign.fmt(f)
    }
}

/// What the file says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sign {
    version: u32,
    name: String,
    address: PathBuf,
}

impl Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "content store {} at {}", self.name, self.address.display())
    }
}

impl Sign {
    fn read(disk: &Disk, root: &Path) -> Result<Option<Self>> {
        let path = root.join(FILE);
        let Some(bytes) = disk.read(&path, MAX_LEN)? else { return Ok(None) };
        let sign: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::data_loss(format!("{} does not say where the blobs are", path.display()))
                .hint("remove it: the daemon that is configured with the content store writes it anew")
                .source(error)
        })?;
        if sign.version > VERSION {
            return Err(Error::failed_precondition(format!(
                "{} has version {}, this program knows up to {VERSION}",
                path.display(),
                sign.version
            )));
        }
        Ok(Some(sign))
    }

    /// Writes the file.
    ///
    /// 1. sync the root, which has the database  2. write the file beside its place and sync it  3. rename it  4. sync the
    ///    directory, and the root. Nothing is recorded before 4; a root that says where its blobs are has a database.
    fn write(&self, disk: &Disk, root: &Path) -> Result<()> {
        let (path, new) = (root.join(FILE), root.join(format!("{FILE}.new")));
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::invalid_argument(format!("{self} cannot be written down")).source(error))?;
        disk.sync_dir(root)?;
        let file = disk.open(&new, How::Replace(MODE))?;
        file.write_all_at(&json, 0)?;
        file.sync_all()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(&root.join("content"))?;
        disk.sync_dir(root)
    }

    fn is_needed(&self, root: &Path) -> Error {
        Error::failed_precondition(format!("the blobs of root {} are in {self}", root.display())).hint(format!(
            "use the root with it, as a proxy plugin of the type content; or remove {}, and `dist fsck --repair` fetches \
             all of them again",
            root.join(FILE).display()
        ))
    }
}

/// Tells whether a root says that its blobs are elsewhere. Blocking.
pub(crate) fn is_said(disk: &Disk, root: &Path) -> Result<bool> {
    Ok(disk.look(&root.join(FILE))?.is_some())
}

/// Refuses a root whose blobs are elsewhere when nobody says that they are. Blocking.
///
/// # Errors
/// `FailedPrecondition`.
pub(crate) fn require(disk: &Disk, root: &Path, chosen: Option<&Elsewhere>) -> Result<()> {
    match (Sign::read(disk, root)?, chosen) {
        (Some(said), None) => Err(said.is_needed(root)),
        _ => Ok(()),
    }
}

/// Makes a root whose database is there say where its blobs are. Blocking.
///
/// # Errors
/// `FailedPrecondition` when the root has blobs itself, which would not be seen.
pub(crate) fn settle(disk: &Disk, root: &Path, blobs: &Blobs, chosen: &Elsewhere) -> Result<()> {
    let said = Sign::read(disk, root)?;
    if said.as_ref() == Some(&chosen.sign) {
        return Ok(());
    }
    let mut here = 0;
    blobs.each(|_| here += 1)?;
    if here > 0 {
        return Err(Error::failed_precondition(format!(
            "root {} has {here} blobs of its own, and is to keep them in {chosen}",
            root.display()
        ))
        .hint("name another root, or take the proxy plugin out"));
    }
    chosen.sign.write(disk, root)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use futures::TryStreamExt as _;
    use windlass_core::content::{Info, IngesterExt as _, ProviderExt as _};
    use windlass_core::{Descriptor, Labels, Scope};
    use windlass_testkit::memory;

    use super::*;
    use crate::disk::cut::{Keep, Model, Variant};
    use crate::disk::log::Log;
    use crate::lock::{LockWait, RootLock};
    use crate::store::{Options, Store};

    async fn open(disk: Disk, root: &Path, elsewhere: &Elsewhere) -> Store {
        let lock = RootLock::acquire(root, LockWait::UpTo(std::time::Duration::from_secs(10))).await.unwrap();
        let options = Options { content: Some(elsewhere.clone()), ..Options::default() };
        Store::open_on(disk, lock, BTreeMap::new(), options).await.unwrap()
    }

    /// Whoever has records says where their bytes are, and has a database when he says so.
    #[tokio::test]
    async fn a_power_cut_at_any_moment_leaves_a_root_that_says_where_its_blobs_are_before_it_records_one() {
        let (root, blob) = (tempfile::tempdir().unwrap(), Descriptor::of("application/octet-stream", b"bytes"));
        let elsewhere = Elsewhere::new("other", "/run/other.sock", Arc::new(memory::Content::default()));
        let log = Log::of(root.path());
        let store = open(log.disk(), root.path(), &elsewhere).await;
        let content = store.content(&Scope::default());
        content.write_blob(&blob, Bytes::from_static(b"bytes"), Labels::new()).await.unwrap();
        let acknowledged = log.len();
        drop((content, store));

        let (mut model, mut said) = (Model::default(), [0, 0]);
        for (done, op) in log.ops().iter().enumerate() {
            model.step(op);
            for keep in [Keep::Nothing, Keep::Everything, Keep::Some] {
                let left = model.cut(Variant { entries: keep, lengths: keep, data: keep, seed: done as u64 });
                let root = tempfile::tempdir().unwrap();
                left.write(root.path());
                let says = Elsewhere::of(root.path()).unwrap().is_some();
                said[usize::from(says)] += 1;
                let store = open(Disk::real(), root.path(), &elsewhere).await;
                let content = store.content(&Scope::default());
                let recorded: Vec<Info> = content.list(&[]).try_collect().await.unwrap();
                assert!(says || recorded.is_empty(), "after {done}: {op:?}");
                assert!(done + 1 < acknowledged || recorded.len() == 1, "after {done}: {op:?}");
                if !recorded.is_empty() {
                    assert_eq!(content.read_all(&blob, 10).await.unwrap(), "bytes");
                }
            }
        }
        assert!(said.iter().all(|times| *times > 0), "{said:?}");
    }
}
