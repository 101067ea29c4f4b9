//! The looking: at the snapshotters first, and at the store with what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use windlass_core::fsck::{Finding, Problem};
use windlass_core::progress::{State, Tracker};
use windlass_core::snapshot::Key;
use windlass_core::{Digest, Error, Result, ResultExt};
use windlass_snapshot::fsck as snapshots;
use windlass_store::Elsewhere;
use windlass_store::fsck::{self as store, Behind, Depth, Shelved};

use crate::SNAPSHOTTERS;

/// How closely to look at what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closely {
    pub(super) blobs: Depth,
    pub(super) snapshots: Depth,
}

/// No more than needed to know what there is.
pub(super) const QUICKLY: Closely = Closely { blobs: Depth::Sizes, snapshots: Depth::Sizes };

/// Looks at everything.
pub(super) async fn everything(
    root: &Path,
    elsewhere: Option<&Elsewhere>,
    closely: Closely,
    progress: &Tracker,
) -> Result<Vec<Finding>> {
    let (root, elsewhere, tracker) = (root.to_owned(), elsewhere.cloned(), progress.clone());
    let behind = behind(&root, closely, progress).await?;
    let look = move || store::inspect(&root, elsewhere.as_ref(), closely.blobs, &behind, &tracker);
    let joined = tokio::task::spawn_blocking(look).await;
    joined.unwrap_or_else(|error| Err(Error::internal("the check ended early").source(error)))
}

/// Looks at the snapshotters.
pub(super) async fn behind(root: &Path, closely: Closely, progress: &Tracker) -> Result<BTreeMap<String, Behind>> {
    let (root, progress) = (root.to_owned(), progress.clone());
    let look = move || {
        let mut behind = BTreeMap::new();
        for name in SNAPSHOTTERS {
            let task = progress.task(format!("snapshots {name}"));
            task.set(State::Checking { offset: 0, total: 0 });
            let directory = root.join("snapshots").join(name);
            behind.insert(name.to_owned(), snapshotter(&directory, name, closely.snapshots)?);
            task.set(State::Done);
        }
        Ok(behind)
    };
    let joined = tokio::task::spawn_blocking(look).await;
    joined.unwrap_or_else(|error| Err(Error::internal("the check ended early").source(error)))
}

fn snapshotter(directory: &Path, name: &str, depth: Depth) -> Result<Behind> {
    let closely = match depth {
        Depth::Bytes => snapshots::Depth::Files,
        Depth::Sizes => snapshots::Depth::Directories,
    };
    let inspected = snapshots::inspect(directory, name, closely);
    let snapshots::Inspection { snapshots, mut findings, sound } =
        inspected.context(|| format!("check {}", directory.display()))?;
    let mut mounted = BTreeSet::new();
    for shown in snapshots::shown(directory, &snapshots)? {
        mounted.insert(view_key(&shown.target)?);
        // Which snapshots there are has to be known to say that there is none.
        if !shown.kept && sound {
            let target = shown.target.display().to_string();
            findings.push(Finding::new(Problem::MountStale { target, snapshotter: name.to_owned() }));
        }
    }
    let shelved = |snapshot: snapshots::Snapshot| Shelved {
        bytes: snapshot.usage.map_or(0, |usage| usage.bytes),
        info: snapshot.info,
    };
    Ok(Behind { snapshots: snapshots.into_iter().map(shelved).collect(), mounted, findings })
}

/// Returns the key of the view that is mounted on a directory, the same for whoever mounts, unmounts and checks: the path,
/// or its digest when a key cannot hold the path.
///
/// # Errors
/// None in practice: a digest is a key.
pub fn view_key(directory: &Path) -> Result<Key> {
    let readable = directory.to_str().and_then(|path| format!("mount {path}").parse().ok());
    match readable {
        Some(key) => Ok(key),
        None => format!("mount {}", Digest::sha256(directory.as_os_str().as_bytes())).parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_the_directory_or_its_digest() {
        assert_eq!(view_key(Path::new("/mnt/a b")).unwrap().as_str(), "mount /mnt/a b");
        let odd = std::ffi::OsStr::from_bytes(b"/mnt/\xff");
        assert!(view_key(Path::new(odd)).unwrap().as_str().starts_with("mount sha256:"));
        let long = format!("/{}", "x".repeat(2000));
        assert!(view_key(Path::new(&long)).unwrap().as_str().starts_with("mount sha256:"));
    }
}
