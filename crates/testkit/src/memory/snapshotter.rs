//! A snapshotter whose records are in memory and whose snapshots are real directories, mounted as overlays.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use futures::StreamExt as _;
use windlass_core::error::IoResultExt as _;
use windlass_core::field::FieldMask;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::lease::ResourceKind;
use windlass_core::snapshot::{self, Capabilities, Commit, Info, Key, Mount, Name, State, TARGET_LABEL, Usage};
use windlass_core::{Error, Labels, Listing, Result};

use super::host::SNAPSHOTTER;
use super::space::{Scoped, Snapshot, Space, relabel};

/// A snapshotter that keeps its records in memory.
#[derive(Clone)]
pub struct Snapshotter {
    scoped: Scoped,
    directory: PathBuf,
    capabilities: Capabilities,
}

fn absent(key: &Key) -> Error {
    Error::not_found(format!("snapshot {key} is not here"))
}

/// Removes a snapshot's directory. Nothing depends on it being gone: no directory is used twice.
pub(super) fn remove_directory(directory: &Path) {
    let _ = std::fs::remove_dir_all(directory);
}

impl Snapshotter {
    /// Makes a snapshotter that keeps its directories below one that exists.
    pub fn new(directory: &Path, capabilities: Capabilities) -> Self {
        Self::scoped(Scoped::default(), directory, capabilities)
    }

    pub(super) fn scoped(scoped: Scoped, directory: &Path, capabilities: Capabilities) -> Self {
        Self { scoped, directory: directory.to_owned(), capabilities }
    }

    fn kind() -> ResourceKind {
        ResourceKind::Snapshot(SNAPSHOTTER.to_owned())
    }

    /// Makes the directories of a new snapshot.
    fn new_directory(&self) -> Result<PathBuf> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let directory = self.directory.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        for part in ["fs", "work"] {
            let path = directory.join(part);
            std::fs::create_dir_all(&path).attempt(|| format!("create {}", path.display()))?;
        }
        Ok(directory)
    }

    fn begin(&self, state: State, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        labels.validate()?;
        let mut space = self.scoped.lock();
        if space.snapshots.contains_key(key) {
            return Err(Error::already_exists(format!("snapshot {key} is here")));
        }
        if let Some(parent) = parent {
            check_parent(&space, parent)?;
        }
        if let Some(target) = labels.get(TARGET_LABEL)
            && let Some(there) = target.parse().ok().and_then(|target: Key| space.snapshots.get(&target))
            && there.info.state == State::Committed
        {
            let target = there.info.key.to_string();
            self.scoped.hold(&mut space, Self::kind(), &target)?;
            return Err(Error::already_exists(format!("target snapshot {target} is here")));
        }
        self.scoped.hold(&mut space, Self::kind(), key.as_str())?;
        let now = SystemTime::now();
        let info = Info { state, key: key.clone(), parent: parent.cloned(), labels, created_at: now, updated_at: now };
        space.snapshots.insert(key.clone(), Snapshot { info, directory: self.new_directory()? });
        mounts(&space, key)
    }
}

/// Checks that a snapshot can be a parent.
fn check_parent(space: &Space, parent: &Name) -> Result<()> {
    let there = space.snapshots.get(parent.as_key()).ok_or_else(|| absent(parent.as_key()))?;
    if there.info.state != State::Committed {
        return Err(Error::failed_precondition(format!("parent {parent} is {}, not committed", there.info.state)));
    }
    Ok(())
}

fn mounts(space: &Space, key: &Key) -> Result<Vec<Mount>> {
    let snapshot = space.snapshots.get(key).ok_or_else(|| absent(key))?;
    let tree = |snapshot: &Snapshot| snapshot.directory.join("fs").display().to_string();
    let mut lowers = Vec::new();
    let mut parent = snapshot.info.parent.as_ref();
    while let Some(name) = parent {
        let there = space.snapshots.get(name.as_key()).ok_or_else(|| absent(name.as_key()))?;
        lowers.push(tree(there));
        parent = there.info.parent.as_ref();
    }
    let bind = |source: String, option: &str| Mount {
        kind: "bind".to_owned(),
        source,
        target: String::new(),
        options: vec!["rbind".to_owned(), option.to_owned()],
    };
    let overlay = |mut options: Vec<String>| {
        options.push(format!("lowerdir={}", lowers.join(":")));
        Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), target: String::new(), options }
    };
    let mount = match (snapshot.info.state, lowers.as_slice()) {
        (State::Committed, _) => {
            return Err(Error::failed_precondition(format!("snapshot {key} is committed")).hint("make a view of it"));
        }
        (State::View, []) => bind(tree(snapshot), "ro"),
        (State::View, [lower]) => bind(lower.clone(), "ro"),
        (State::View, _) => overlay(Vec::new()),
        (State::Active, []) => bind(tree(snapshot), "rw"),
        (State::Active, _) => {
            let work = snapshot.directory.join("work");
            overlay(vec![format!("workdir={}", work.display()), format!("upperdir={}", tree(snapshot))])
        }
    };
    Ok(vec![mount])
}

/// Adds up inodes and blocks below a directory, each inode once.
fn measure(directory: &Path, seen: &mut BTreeSet<u64>, usage: &mut Usage) -> Result<()> {
    let attempt = || format!("measure {}", directory.display());
    let metadata = std::fs::symlink_metadata(directory).attempt(attempt)?;
    if seen.insert(metadata.ino()) {
        usage.inodes += 1;
        // stat(2): st_blocks counts units of 512 bytes, whatever the filesystem.
        usage.bytes += metadata.blocks() * 512;
    }
    if metadata.is_dir() {
        for entry in std::fs::read_dir(directory).attempt(attempt)? {
            measure(&entry.attempt(attempt)?.path(), seen, usage)?;
        }
    }
    Ok(())
}

#[async_trait]
impl snapshot::Snapshotter for Snapshotter {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn stat(&self, key: &Key) -> Result<Info> {
        self.scoped.lock().snapshots.get(key).map(|snapshot| snapshot.info.clone()).ok_or_else(|| absent(key))
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let mut space = self.scoped.lock();
        let snapshot = space.snapshots.get_mut(&info.key).ok_or_else(|| absent(&info.key))?;
        snapshot.info.labels = relabel(&snapshot.info.labels, &info.labels, mask)?;
        snapshot.info.updated_at = SystemTime::now();
        Ok(snapshot.info.clone())
    }

    async fn usage(&self, key: &Key) -> Result<Usage> {
        let directory = {
            let space = self.scoped.lock();
            space.snapshots.get(key).map(|snapshot| snapshot.directory.join("fs")).ok_or_else(|| absent(key))?
        };
        let mut usage = Usage::default();
        measure(&directory, &mut BTreeSet::new(), &mut usage)?;
        Ok(usage)
    }

    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>> {
        mounts(&self.scoped.lock(), key)
    }

    async fn prepare(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.begin(State::Active, key, parent, labels)
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        self.begin(State::View, key, parent, labels)
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        let mut space = self.scoped.lock();
        if space.snapshots.contains_key(name.as_key()) {
            self.scoped.hold(&mut space, Self::kind(), name.as_str())?;
            return Err(Error::already_exists(format!("snapshot {name} is here")));
        }
        let mut info = space.snapshots.get(key).map(|snapshot| snapshot.info.clone()).ok_or_else(|| absent(key))?;
        if info.state != State::Active {
            return Err(Error::failed_precondition(format!("snapshot {key} is {}, not active", info.state)));
        }
        info.labels.extend(&commit.labels);
        info.labels.validate()?;
        if let Some(parent) = commit.parent
            && info.parent.as_ref() != Some(&parent)
        {
            if !self.capabilities.rebase || info.parent.is_some() {
                return Err(Error::failed_precondition(format!("snapshot {key} cannot be put onto {parent}")));
            }
            check_parent(&space, &parent)?;
            info.parent = Some(parent);
        }
        self.scoped.hold(&mut space, Self::kind(), name.as_str())?;
        self.scoped.release(&mut space, Self::kind(), key.as_str());
        let now = SystemTime::now();
        (info.state, info.key, info.created_at, info.updated_at) = (State::Committed, name.as_key().clone(), now, now);
        let Snapshot { directory, .. } = space.snapshots.remove(key).ok_or_else(|| absent(key))?;
        space.snapshots.insert(name.as_key().clone(), Snapshot { info, directory });
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        let mut space = self.scoped.lock();
        let child = |snapshot: &&Snapshot| snapshot.info.parent.as_ref().is_some_and(|parent| parent.as_key() == key);
        if let Some(child) = space.snapshots.values().find(child) {
            return Err(Error::failed_precondition(format!("snapshot {key} is the parent of {}", child.info.key)));
        }
        let snapshot = space.snapshots.remove(key).ok_or_else(|| absent(key))?;
        self.scoped.release(&mut space, Self::kind(), key.as_str());
        remove_directory(&snapshot.directory);
        Ok(())
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        let space = self.scoped.lock();
        let infos = space.snapshots.values().map(|snapshot| &snapshot.info);
        let matching: Vec<_> = infos.filter(|info| any_matches(filters, *info)).cloned().map(Ok).collect();
        futures::stream::iter(matching).boxed()
    }

    async fn cleanup(&self) -> Result<()> {
        Ok(())
    }
}
