//! The mounts of this mount namespace that show a snapshotter's layers, and whether a snapshot keeps what they show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use windlass_core::error::{IoResultExt as _, Result};
use windlass_core::snapshot::State;

use super::Snapshot;
use crate::in_use::home;
use crate::mount::{MountedAt, mounts};

/// A mount that shows layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where.
    pub target: PathBuf,
    /// Whether an active snapshot or a view keeps the layers.
    pub kept: bool,
}

/// Finds the mounts that show layers of the snapshotter in a directory, which has these snapshots.
///
/// # Errors
/// Those of reading the table of mounts.
pub fn shown(directory: &Path, snapshots: &[Snapshot]) -> Result<Vec<Shown>> {
    let root = directory.join("snapshots");
    if !root.try_exists().attempt(|| format!("look for {}", root.display()))? {
        return Ok(Vec::new());
    }
    let root = std::fs::canonicalize(&root).attempt(|| format!("find {}", root.display()))?;
    let (table, mount_id) = (mounts()?, crate::in_use::mount_id(&root)?);
    let within = home(&table, &root, mount_id);
    Ok(table.iter().filter_map(|mount| look(mount, &root, within.as_ref(), snapshots)).collect())
}

/// Tells whether a mount shows layers of `root`. Layers that were given relative to a working directory, as many are on
/// kernels before 6.7, may be those of another root: they are ours only when a snapshot keeps them.
fn look(
    mount: &MountedAt,
    root: &Path,
    within: Option<&((u32, u32), PathBuf)>,
    snapshots: &[Snapshot],
) -> Option<Shown> {
    let kept = kept(top(mount, root, within)?, snapshots);
    let layers = mount.layers();
    let relative =
        layers.is_some_and(|layers| layers.upper.is_none() && layers.lowers.iter().any(|of| of.is_relative()));
    (kept || !relative).then(|| Shown { target: mount.target.clone(), kept })
}

/// Returns the number of the topmost directory that a mount shows, if it is one of `root`.
fn top(mount: &MountedAt, root: &Path, within: Option<&((u32, u32), PathBuf)>) -> Option<u64> {
    let number = |path: &Path, root: &Path| -> Option<u64> {
        path.strip_prefix(root).ok()?.components().next()?.as_os_str().to_str()?.parse().ok()
    };
    if let Some(image) = mount.image() {
        return number(&image, root);
    }
    match (mount.layers(), within) {
        (Some(layers), _) => number(&root.join(layers.upper.as_ref().or(layers.lowers.first())?), root),
        (None, Some((device, path))) if mount.device == *device => number(&mount.root, path),
        _ => None,
    }
}

/// Tells whether a snapshot that is no layer shows the directory: it is its own, or that of the parent of a view.
fn kept(top: u64, snapshots: &[Snapshot]) -> bool {
    let own = |snapshot: &&Snapshot| snapshot.id == top;
    let views: BTreeSet<&str> = snapshots
        .iter()
        .filter(|snapshot| snapshot.info.state == State::View)
        .filter_map(|view| Some(view.info.parent.as_ref()?.as_str()))
        .collect();
    snapshots
        .iter()
        .find(own)
        .is_some_and(|snapshot| snapshot.info.state != State::Committed || views.contains(snapshot.info.key.as_str()))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use windlass_core::Labels;
    use windlass_core::snapshot::Info;

    use super::*;
    use crate::mount::parse;

    fn snapshot(id: u64, state: State, key: &str, parent: Option<&str>) -> Snapshot {
        let at = SystemTime::UNIX_EPOCH;
        let parent = parent.map(|parent| parent.parse().unwrap());
        let info =
            Info { state, key: key.parse().unwrap(), parent, labels: Labels::new(), created_at: at, updated_at: at };
        Snapshot { id, info, usage: None }
    }

    #[test]
    fn a_mount_is_kept_by_an_active_snapshot_or_a_view_and_by_nothing_else() {
        let snapshots = [
            snapshot(1, State::Committed, "a", None),
            snapshot(2, State::Committed, "b", Some("a")),
            snapshot(3, State::View, "v", Some("b")),
            snapshot(4, State::Active, "w", Some("a")),
        ];
        let table = "\
27 1 254:0 / / rw - ext4 /dev/vda rw
41 27 0:50 / /view ro - overlay overlay ro,lowerdir=/r/2/fs:/r/1/fs
42 27 0:51 / /active rw - overlay overlay rw,lowerdir=/r/1/fs,upperdir=/r/4/fs,workdir=/r/4/work
43 27 254:0 /r/1/fs /layer ro - ext4 /dev/vda rw
44 27 0:52 / /gone ro - overlay overlay ro,lowerdir=/r/9/fs:/r/1/fs
45 27 0:53 / /other ro - overlay overlay ro,lowerdir=/x/9/fs:/x/1/fs
46 27 0:54 / /relative ro - overlay overlay ro,lowerdir=2/fs:1/fs
47 27 0:55 / /another/root ro - overlay overlay ro,lowerdir=9/fs:1/fs
";
        let table = parse(table.as_bytes()).unwrap();
        let within = ((254, 0), PathBuf::from("/r"));
        let shown: Vec<Shown> =
            table.iter().filter_map(|mount| look(mount, Path::new("/r"), Some(&within), &snapshots)).collect();
        let found: Vec<(&str, bool)> = shown.iter().map(|shown| (shown.target.to_str().unwrap(), shown.kept)).collect();
        assert_eq!(
            found,
            [("/view", true), ("/active", true), ("/layer", false), ("/gone", false), ("/relative", true)]
        );
    }
}
