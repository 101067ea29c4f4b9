//! The repair of records and of what is derived from them, and the removal of what nobody needs.
//!
//! Each finding is dealt with by itself, in one transaction or with one file. Not here: whatever needs other bytes than
//! those that are here (blobs) or files (snapshots).

use std::path::Path;
use std::time::{Duration, SystemTime};

use windlass_core::fsck::{Finding, Kept, Problem};
use windlass_core::snapshot::Key as SnapshotKey;
use windlass_core::{Digest, Error, Kind, Namespace, Result, Scope, snapshot};

use super::{damaged, derived};
use crate::blocking::blocking;
use crate::content::remove_bytes;
use crate::db::schema::{CHILDREN, RESOURCES, SNAPSHOTS};
use crate::db::{FILE, Key, Present, Transaction};
use crate::disk::Disk;
use crate::snapshots::{Place, forget};
use crate::store::{Shared, Store};
use crate::unsynced;

/// Where files go that are not ours.
const LOST: &str = "lost+found";
/// Any ingest is older than this long from now.
const ANY_AGE: Duration = Duration::from_hours(24);

/// A snapshot as the store records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The namespace.
    pub namespace: Namespace,
    /// The name or key there.
    pub key: SnapshotKey,
    /// The name or key in the snapshotter.
    pub inner: SnapshotKey,
    /// The name there of what it stands on.
    pub parent: Option<snapshot::Name>,
}

impl Store {
    /// Says that what is on the disk of a blob is wrong: whoever brings the blob next replaces it, once it is verified.
    pub fn condemn(&self, digest: &Digest) {
        self.shared().condemned.add(digest);
    }

    /// Returns the records of a snapshotter's snapshots, of all namespaces.
    pub fn placed(&self, snapshotter: &str) -> Result<Vec<Placed>> {
        let mut placed = Vec::new();
        self.shared().db.read(|view| {
            SNAPSHOTS.each(view, "", |record, found| {
                let mut parts = record.splitn(3, '\0');
                let (Some(namespace), Some(of), Ok(found)) = (parts.next(), parts.next(), found) else {
                    return Ok(());
                };
                if of == snapshotter {
                    let (namespace, info) = (namespace.parse()?, found.info);
                    placed.push(Placed { namespace, key: info.key, inner: found.inner, parent: info.parent });
                }
                Ok(())
            })
        })?;
        Ok(placed)
    }

    /// Deals with a finding, if it is one for which the store suffices; otherwise tells that it is not.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn mend(&self, finding: &Finding) -> Result<bool> {
        let shared = self.shared();
        match finding.problem.clone() {
            Problem::BlobUnrecorded { digest, .. } => remove_bytes(shared.clone(), vec![digest]).await?,
            Problem::ForeignFile { path, .. } => self.files(move |root| set_aside(root, &path)).await?,
            Problem::WrittenWithoutSyncs => self.files(|root| unsynced::settle(&Disk::real(), root)).await?,
            Problem::TemporaryFile { path, .. } => self.files(move |root| remove(root, &path)).await?,
            Problem::IngestUnowned { id, .. } | Problem::IngestAbandoned { id, .. } => self.ingest(&id).await?,
            Problem::SnapshotUnrecorded { snapshotter, inner, .. } => {
                gone(shared.behind(&snapshotter)?.remove(&inner.parse()?).await)?;
            }
            Problem::DirectoryUnrecorded { snapshotter, .. } => shared.behind(&snapshotter)?.cleanup().await?,
            Problem::ViewUnmounted { namespace, snapshotter, key } => {
                let all = self.snapshotters(&Scope::from(namespace));
                let view = all.get(&snapshotter).ok_or_else(|| unknown(&snapshotter))?;
                view.remove(&key.parse()?).await?;
            }
            Problem::DirectoryMissing { snapshotter, inner, state, .. } if state != Kept::Committed => {
                self.forget_inner(&snapshotter, &inner).await?;
                gone(shared.behind(&snapshotter)?.remove(&inner.parse()?).await)?;
            }
            Problem::RecordDamaged { file, table, key, .. } if file == FILE => {
                damaged::mend(self, &table, &key).await?;
            }
            // What the snapshotter still has is not unpacked again.
            Problem::SnapshotMissing { namespace, snapshotter, key } => {
                let place = Place { namespace, snapshotter };
                return damaged::found_again(self, place, &key.parse()?).await;
            }
            Problem::ParentMissing { namespace, snapshotter, key, parent } => {
                let place = Place { namespace, snapshotter };
                damaged::parent(self, place, &key.parse()?, &parent.parse()?).await?;
            }
            problem => return self.records(problem).await,
        }
        Ok(true)
    }

    /// Deals with problems that one transaction solves.
    async fn records(&self, problem: Problem) -> Result<bool> {
        let bytes = self.bytes();
        let mend = move |tx: &Transaction| {
            match problem.clone() {
                Problem::SnapshotLost { state: Kept::Committed, .. } => return Ok(false),
                Problem::SnapshotLost { namespace, snapshotter, key, .. } => {
                    forget_record(tx, &Place { namespace, snapshotter }, &key)?;
                }
                Problem::RecordSize { namespace, digest, found, .. } => {
                    derived::resize(tx, &namespace, &digest, found)?;
                }
                Problem::NamespaceUnrecorded { namespace } => derived::namespace(tx, &namespace)?,
                Problem::ReferenceMissing { namespace, digest, labels } => {
                    derived::relabel(tx, &bytes, &namespace, &digest, &labels)?;
                }
                Problem::LinksWrong { namespace, node } | Problem::LinksDangling { namespace, node } => {
                    derived::relink(tx, &namespace, &node)?;
                }
                Problem::ChildMissing { namespace, snapshotter, parent, key } => {
                    CHILDREN.put(tx, &Key::of([namespace.as_str(), &snapshotter, &parent, &key]), &Present)?;
                }
                Problem::ChildDangling { namespace, snapshotter, parent, key } => {
                    CHILDREN.remove(tx, &Key::of([namespace.as_str(), &snapshotter, &parent, &key]))?;
                }
                Problem::ResourceDangling { namespace, lease, node } => {
                    RESOURCES.remove(tx, &Key::of([namespace.as_str(), &lease, &node]))?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        };
        self.shared().db.write(mend).await
    }

    async fn files(&self, work: impl FnOnce(&Path) -> Result<()> + Send + 'static) -> Result<()> {
        let root = self.root().to_owned();
        blocking(move || work(&root)).await
    }

    async fn ingest(&self, id: &str) -> Result<()> {
        let ingests = &self.shared().ingests;
        for found in ingests.all().await?.iter().filter(|found| found.id == id) {
            ingests.sweep(found, SystemTime::now() + ANY_AGE).await?;
        }
        Ok(())
    }

    /// Removes the records of a snapshot of which nothing is left.
    async fn forget_inner(&self, snapshotter: &str, inner: &str) -> Result<()> {
        for placed in self.placed(snapshotter)?.into_iter().filter(|placed| placed.inner.as_str() == inner) {
            let place = Place { namespace: placed.namespace, snapshotter: snapshotter.to_owned() };
            let key = placed.key.to_string();
            self.shared().db.write(move |tx| forget_record(tx, &place, &key)).await?;
        }
        Ok(())
    }
}

impl Shared {
    pub(super) fn behind(&self, snapshotter: &str) -> Result<&dyn snapshot::Snapshotter> {
        self.snapshotters.get(snapshotter).map(|behind| &**behind).ok_or_else(|| unknown(snapshotter))
    }
}

/// Two findings may ask for the same removal.
fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.is(Kind::NotFound) => Ok(()),
        removed => removed,
    }
}

fn unknown(snapshotter: &str) -> Error {
    Error::not_found(format!("snapshotter {snapshotter} is not here"))
}

fn forget_record(tx: &Transaction, place: &Place, key: &str) -> Result<()> {
    let key: SnapshotKey = key.parse()?;
    let parent = match place.get(tx, &key) {
        Ok(record) => record.and_then(|record| record.info.parent),
        Err(_) => None,
    };
    forget(tx, place, &key, parent.as_ref())
}

/// Moves a file out of the way, to where nothing of ours looks.
fn set_aside(root: &Path, path: &str) -> Result<()> {
    let (disk, lost) = (Disk::real(), root.join(LOST));
    disk.create_dir(&lost, 0o700)?;
    let name = path.replace('/', "-");
    let mut to = lost.join(&name);
    let mut number = 1;
    while disk.look(&to)?.is_some() {
        to = lost.join(format!("{name}.{number}"));
        number += 1;
    }
    disk.rename(&root.join(path), &to)
}

fn remove(root: &Path, path: &str) -> Result<()> {
    let (disk, whole) = (Disk::real(), root.join(path));
    let removed = if whole.is_dir() { disk.remove_dir_all(&whole) } else { disk.remove_file(&whole) };
    removed.map(|_| ())
}
