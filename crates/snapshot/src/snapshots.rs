//! The snapshotter itself: the life of a snapshot, in the order that survives a crash.
//!
//! What a snapshot's directory holds and how it is mounted is the [`Layout`]'s business, what is recorded the records'.
//! The directory of a snapshotter:
//!
//! ```text
//! DIR/records.redb         the records
//! DIR/snapshots/<id>/      a directory per snapshot, whose inside is the layout's
//! ```

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use rustix::io::Errno;
use windlass_core::Listing;
use windlass_core::error::{Error, IoResultExt as _, Result, ResultExt as _};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::label::Labels;
use windlass_core::snapshot::{
    Capabilities, Commit, Info, Key, LAYER_DATA, LAYER_IMAGE, Mount, Name, Snapshotter, State, TARGET_LABEL,
    UNPACK_LABEL, Usage,
};

use crate::barrier::Barrier;
use crate::directories::Directories;
use crate::records::{Begin, Chain, Records, Settle};
use crate::steps::Steps;
use crate::tree::Blocks;
use crate::{in_use, tree};

/// From how many bytes on a few files are brought to the disk by themselves: below that a sync of the filesystem that is
/// shared with others costs less than the waits for each of them.
const ALONE: u64 = 8 << 20;

/// How a snapshotter lays out the directory of a snapshot, and mounts a stack of them. Its calls may block.
pub trait Layout: Send + Sync + 'static {
    /// Whether a snapshot without a parent can be put onto one at its commit.
    const REBASE: bool;

    /// Checks that the directory of all snapshots, an absolute path, can be spoken of in mounts.
    fn check(&self, root: &Path) -> Result<()>;

    /// Checks that snapshots can be mounted, in a directory beside theirs that is empty and goes afterwards.
    fn probe(&self, _directory: &Path) -> Result<()> {
        Ok(())
    }

    /// Fills the new, empty `directory` of a snapshot that stands on the one in `parent`.
    fn create(&self, directory: &Path, purpose: Purpose, parent: Option<&Path>) -> Result<()>;

    /// Adapts `directory`, begun at `begun_at` without a parent, to the one in `parent` that it is put onto.
    fn rebase(&self, directory: &Path, parent: &Path, begun_at: SystemTime) -> Result<()>;

    /// Returns all that there is of a snapshot, in the order in which it has to come to the disk, when that is a few files;
    /// none when it is a tree.
    fn few_files(&self, _directory: &Path) -> Result<Option<Vec<PathBuf>>> {
        Ok(None)
    }

    /// Returns the mounts of a snapshot: active or a view, in `directory`, on `parents`, the nearest first.
    fn mounts(&self, state: State, directory: &Path, parents: &[PathBuf]) -> Result<Vec<Mount>>;
}

/// What a snapshot is begun for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be written to through its mounts.
    Write,
    /// To have a layer unpacked into it: a label says so, or which committed snapshot it is to become.
    Unpack,
    /// To be looked at.
    View,
}

impl Purpose {
    fn of(begin: &Begin) -> Self {
        let unpack = [TARGET_LABEL, UNPACK_LABEL];
        match begin.state {
            State::Active if unpack.iter().any(|label| begin.labels.get(label).is_some()) => Self::Unpack,
            State::Active => Self::Write,
            State::View | State::Committed => Self::View,
        }
    }
}

/// Measures the directory of a snapshot: its tree, and the files of an image beside it.
pub(crate) fn measure(directory: &Path, blocks: Blocks) -> Result<Usage> {
    let mut usage = tree::usage(&tree_of(directory), blocks)?;
    for name in [LAYER_IMAGE, LAYER_DATA] {
        let path = directory.join(name);
        match rustix::fs::lstat(&path) {
            Ok(stat) => {
                usage.inodes += 1;
                usage.bytes += tree::on_disk(&stat, blocks);
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::io(format!("look at {}", path.display()), error.into())),
        }
    }
    Ok(usage)
}

/// The tree of a snapshot inside of its directory.
pub(crate) fn tree_of(directory: &Path) -> PathBuf {
    directory.join("fs")
}

/// A snapshotter over directories. Cheap to clone.
///
/// # Cancel safety
/// An operation that was begun goes on when its future is dropped: it happens as a whole or, after a crash, not at all.
pub struct Snapshots<L>(Arc<Inner<L>>);

struct Inner<L> {
    layout: L,
    records: Records,
    directories: Directories,
    barrier: Barrier,
    /// That mounts were found to work.
    probed: OnceLock<()>,
    steps: Steps,
}

impl<L> Clone for Snapshots<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L: Layout> Snapshots<L> {
    /// Opens the snapshotter in a directory, which is created if need be. Deletes nothing.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, `DataLoss` for a damaged database, `FailedPrecondition` for one
    /// of a newer format.
    pub(crate) async fn open_with(directory: &Path, layout: L) -> Result<Self> {
        let directory = directory.to_owned();
        let open = move || {
            // Not for other users: what is in images may run as root, and records have names.
            let make = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            make.attempt(|| format!("create {}", directory.display()))?;
            let records = Records::open(&directory.join("records.redb"))?;
            let directories = Directories::open(&directory, records.next_id()?)?;
            layout.check(directories.root())?;
            let barrier = Barrier::open(directories.root())?;
            Ok(Self(Arc::new(Inner {
                layout,
                records,
                directories,
                barrier,
                probed: OnceLock::new(),
                steps: Steps::default(),
            })))
        };
        finished(tokio::task::spawn_blocking(open).await)
    }

    /// Commits snapshots from now on without waiting until their data is on the disk: a power cut may then lose data of
    /// snapshots that are recorded as committed.
    pub fn without_syncs(&self) {
        self.0.barrier.open_for_all();
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner<L>) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        finished(tokio::task::spawn_blocking(move || work(&inner)).await)
    }

    async fn begin(&self, state: State, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        labels.validate()?;
        let begin = Begin { key: key.clone(), state, parent: parent.cloned(), labels, at: SystemTime::now() };
        self.run(move |inner| inner.begin(begin)).await
    }
}

fn finished<T>(joined: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.unwrap_or_else(|error| Err(Error::internal("a snapshot operation ended early").source(error)))
}

#[async_trait]
impl<L: Layout> Snapshotter for Snapshots<L> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { rebase: L::REBASE }
    }

    async fn ready(&self) -> Result<()> {
        self.run(Inner::ready).await
    }

    async fn stat(&self, key: &Key) -> Result<Info> {
        let key = key.clone();
        self.run(move |inner| {
            let record = inner.records.get(&key)?;
            inner.existing(record.id, &record.info)?;
            Ok(record.info)
        })
        .await
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let (info, mask) = (info.clone(), mask.clone());
        self.run(move |inner| inner.records.update(&info, &mask)).await
    }

    async fn usage(&self, key: &Key) -> Result<Usage> {
        let key = key.clone();
        self.run(move |inner| inner.usage(&key)).await
    }

    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>> {
        let key = key.clone();
        self.run(move |inner| inner.mounts(&inner.records.chain(&key)?)).await
    }

    async fn prepare(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.begin(State::Active, key, parent, labels).await.context(|| format!("prepare snapshot {key}"))
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.begin(State::View, key, parent, labels).await.context(|| format!("view snapshot {key}"))
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        commit.labels.validate()?;
        let settle = Settle { key: key.clone(), name: name.clone(), commit, rebase: L::REBASE };
        self.run(move |inner| inner.commit(settle)).await.context(|| format!("commit snapshot {key} as {name}"))
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        let owned = key.clone();
        self.run(move |inner| inner.remove(&owned)).await.context(|| format!("remove snapshot {key}"))
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        self.0.records.list(filters)
    }

    async fn cleanup(&self) -> Result<()> {
        self.run(|inner| inner.directories.delete_others(|| inner.records.ids()))
            .await
            .context(|| format!("clean up {}", self.0.directories.root().display()))
    }
}

impl<L: Layout> Inner<L> {
    fn ready(&self) -> Result<()> {
        if self.probed.get().is_none() {
            // In the directory of a snapshot that never will be: what a crash leaves of it a cleanup deletes.
            let draft = self.directories.draft(&self.steps)?;
            self.layout.probe(draft.path())?;
            self.probed.get_or_init(|| ());
        }
        Ok(())
    }

    /// The durable order:
    ///
    /// 1. make `new-<id>` and fill it  2. rename it to `<id>`  3. record
    ///
    /// A crash before 3 leaves a directory without a record, which a cleanup deletes. The directory itself is made
    /// durable by the commit; an active snapshot that a power cut left without one is refused with `DataLoss`.
    fn begin(&self, begin: Begin) -> Result<Vec<Mount>> {
        let parent = self.records.admit(&begin)?.map(|parent| self.existing(parent.id, &parent.info)).transpose()?;
        let mut draft = self.directories.draft(&self.steps)?;
        self.layout.create(draft.path(), Purpose::of(&begin), parent.as_deref())?;
        self.steps.done("make")?; // 1.
        draft.place()?;
        self.steps.done("rename")?; // 2.
        let chain = self.records.begin(draft.id(), begin)?;
        draft.keep();
        self.steps.done("record")?; // 3.
        self.mounts(&chain)
    }

    /// The durable order:
    ///
    /// 1. adapt to the parent  2. sync the data, and measure it  3. record
    ///
    /// A crash before 3 leaves the snapshot active; after it, nothing that is recorded can be lost by a power cut.
    fn commit(&self, settle: Settle) -> Result<()> {
        let begun = self.records.get(&settle.key);
        let record = self.records.can_settle(&settle)?;
        let directory = self.existing(record.id, &begun?.info)?;
        if let Some(parent) = settle.commit.parent.as_ref().filter(|_| settle.rebase) {
            let parent = self.records.get(parent.as_key())?;
            let parent = self.existing(parent.id, &parent.info)?;
            self.layout.rebase(&directory, &parent, record.info.created_at)?;
        }
        self.steps.done("adapt")?; // 1.
        let usage = self.sync(&directory)?;
        self.steps.done("sync")?; // 2.
        self.records.settle(settle, usage)?;
        self.steps.done("record")?; // 3.
        Ok(())
    }

    /// Brings the directory of a snapshot onto the disk, and measures it.
    fn sync(&self, directory: &Path) -> Result<Usage> {
        if let Some(files) = self.layout.few_files(directory)? {
            self.sync_files(&files)?;
            // Only now does the filesystem know how many blocks its few files have.
            return measure(directory, Blocks::OfContents);
        }
        let (usage, synced) = std::thread::scope(|scope| {
            let usage = scope.spawn(|| measure(directory, Blocks::OfContents));
            let synced = self.barrier.pass();
            (usage.join(), synced)
        });
        synced?;
        usage.map_err(|_| Error::internal("the measure of a snapshot panicked"))?
    }

    /// Brings a few files onto the disk: each by itself, or, when they are small, all that wait at the same time at once.
    fn sync_files(&self, files: &[PathBuf]) -> Result<()> {
        let mut opened = Vec::with_capacity(files.len());
        let mut bytes = 0;
        for path in files {
            let file = File::open(path).attempt(|| format!("open {}", path.display()))?;
            let metadata = file.metadata().attempt(|| format!("look at {}", path.display()))?;
            bytes += if metadata.is_file() { metadata.len() } else { 0 };
            opened.push((path, file));
        }
        if bytes < ALONE || self.barrier.is_skipped() {
            return self.barrier.pass();
        }
        opened.iter().try_for_each(|(path, file)| file.sync_all().attempt(|| format!("sync {}", path.display())))
    }

    /// The durable order:
    ///
    /// 1. forget the record  2. rename `<id>` to `rm-<id>`  3. delete it
    ///
    /// From 1 on the snapshot is removed; what is left of the directory after a crash a cleanup deletes.
    fn remove(&self, key: &Key) -> Result<()> {
        let record = self.records.can_remove(key)?;
        in_use::check(self.directories.root(), record.id)?;
        let _reserved = self.directories.reserve(record.id);
        let record = self.records.remove(key)?;
        self.steps.done("forget")?; // 1.
        let deleted = self.directories.set_aside(record.id).and_then(|()| {
            self.steps.done("set aside")?; // 2.
            self.directories.delete_removed(record.id)
        });
        if let Err(error) = deleted {
            tracing::warn!(%key, id = record.id, %error, "the directory of a removed snapshot stays until the next cleanup");
        }
        self.steps.done("delete") // 3.
    }

    fn usage(&self, key: &Key) -> Result<Usage> {
        let record = self.records.get(key)?;
        if let Some(usage) = record.usage {
            return Ok(usage);
        }
        measure(&self.existing(record.id, &record.info)?, Blocks::OfContents)
            .context(|| format!("measure snapshot {key}"))
    }

    fn mounts(&self, chain: &Chain) -> Result<Vec<Mount>> {
        let Info { state, key, .. } = &chain.own.info;
        if *state == State::Committed {
            return Err(Error::failed_precondition(format!("snapshot {key} is committed and has no mounts"))
                .hint("make a view of it, or prepare a snapshot on it"));
        }
        let directory = self.existing(chain.own.id, &chain.own.info)?;
        let parents: Vec<PathBuf> =
            chain.parents.iter().map(|parent| self.existing(parent.id, &parent.info)).collect::<Result<_>>()?;
        self.layout.mounts(*state, &directory, &parents)
    }

    /// Returns the directory of a snapshot, which must be there.
    fn existing(&self, id: u64, info: &Info) -> Result<PathBuf> {
        let directory = self.directories.of(id);
        let tree = tree_of(&directory);
        if tree.try_exists().attempt(|| format!("look for {}", tree.display()))? {
            return Ok(directory);
        }
        Err(Error::data_loss(format!(
            "the {} snapshot {} has lost its directory {}",
            info.state,
            info.key,
            tree.display()
        ))
        .hint("`dist fsck --repair` unpacks a layer again; what was written to an active snapshot is lost"))
    }
}

mod restore;
#[cfg(test)]
mod tests;

pub use restore::Restorer;
