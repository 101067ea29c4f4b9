//! Whether somebody still has a snapshot's directory mounted.
//!
//! Only this mount namespace can be seen. Layers that were given relative to a working directory, as mount(2) is sometimes
//! given them, count when the upper directory of the same mount is ours.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use windlass_core::error::{Error, IoResultExt as _, Result};

use crate::mount::{MountedAt, mounts};

/// Refuses when a mount uses the directory of a snapshot.
///
/// # Errors
/// `FailedPrecondition` that names the mount point.
pub(crate) fn check(root: &Path, id: u64) -> Result<()> {
    let table = mounts()?;
    let Some(user) = user_of(&table, root, mount_id(root)?, id) else { return Ok(()) };
    let target = user.target.display();
    Err(Error::failed_precondition(format!(
        "its directory {} is mounted at {target}",
        root.join(id.to_string()).display()
    ))
    .hint(format!("unmount {target} first")))
}

/// Returns the number of the mount that a directory lies on.
pub(crate) fn mount_id(directory: &Path) -> Result<u64> {
    let statx = rustix::fs::statx(CWD, directory, AtFlags::empty(), StatxFlags::MNT_ID)
        .attempt(|| format!("look at {}", directory.display()))?;
    Ok(statx.stx_mnt_id)
}

/// Returns how a directory on the mount with the given id is known to whoever binds it: by the filesystem and the path
/// therein.
pub(crate) fn home(table: &[MountedAt], directory: &Path, mount_id: u64) -> Option<((u32, u32), PathBuf)> {
    let home = table.iter().find(|mount| mount.id == mount_id)?;
    Some((home.device, home.root.join(directory.strip_prefix(&home.target).ok()?)))
}

/// Finds a mount that uses `root/<id>`, where `root` lies on the mount with the given id.
fn user_of<'a>(table: &'a [MountedAt], root: &Path, mount_id: u64, id: u64) -> Option<&'a MountedAt> {
    let directory = root.join(id.to_string());
    let within = home(table, &directory, mount_id);
    table.iter().find(|mount| {
        let bound =
            within.as_ref().is_some_and(|(device, path)| mount.device == *device && mount.root.starts_with(path));
        let shown = || mount.image().is_some_and(|image| image.starts_with(&directory));
        bound || uses_layer(mount, root, &directory) || shown()
    })
}

fn uses_layer(mount: &MountedAt, root: &Path, directory: &Path) -> bool {
    let Some(layers) = mount.layers() else { return false };
    let ours = layers.upper.as_ref().is_some_and(|upper| upper.starts_with(root));
    let absolute = |path: &PathBuf| if path.is_relative() && ours { root.join(path) } else { path.clone() };
    layers.upper.iter().chain(&layers.lowers).any(|layer| absolute(layer).starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::parse;

    const TABLE: &str = "\
27 1 254:0 / / rw - ext4 /dev/vda rw
40 27 8:1 /data /srv/w rw - ext4 /dev/sda1 rw
41 27 8:1 /data/snapshots/3/fs /mnt/bind ro - ext4 /dev/sda1 rw
42 27 0:50 / /mnt/a rw - overlay overlay rw,lowerdir+=/srv/w/snapshots/1/fs,lowerdir+=/srv/w/snapshots/2/fs,upperdir=/srv/w/snapshots/4/fs,workdir=/srv/w/snapshots/4/work
43 27 0:51 / /mnt/b rw - overlay overlay rw,lowerdir=8/fs:9/fs,upperdir=/srv/w/snapshots/5/fs,workdir=/srv/w/snapshots/5/work
44 27 0:52 / /mnt/c rw - overlay overlay rw,lowerdir=77/fs:78/fs,upperdir=/other/5/fs,workdir=/other/5/work
45 27 8:2 /data/snapshots/6/fs /mnt/other ro - ext4 /dev/sdb1 rw
";

    #[test]
    fn a_bind_a_layer_and_an_upper_directory_are_uses() {
        let table = parse(TABLE.as_bytes()).unwrap();
        let user = |id| user_of(&table, Path::new("/srv/w/snapshots"), 40, id).map(|m| m.target.to_str().unwrap());
        assert_eq!(user(3), Some("/mnt/bind"));
        assert_eq!(user(1), Some("/mnt/a"));
        assert_eq!(user(2), Some("/mnt/a"));
        assert_eq!(user(4), Some("/mnt/a"));
        assert_eq!(user(8), Some("/mnt/b"), "relative layers below an upper directory of ours");
        for free in [6, 7, 10, 30, 77] {
            assert_eq!(user(free), None, "{free}");
        }
    }
}
