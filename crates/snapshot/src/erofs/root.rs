//! The root of a layer that says nothing of `/`: it is what it is in the layer below.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use windlass_core::error::{Error, IoResultExt as _, Result};
use windlass_core::snapshot::LAYER_IMAGE;
use windlass_erofs::{Attributes, IMPLIED_ROOT, Image, Limits, Tree, Volume};

use super::has_image;
use crate::snapshots::tree_of;
use crate::tree;

/// Gives a directory the properties of a layer's root.
pub(super) fn copy(layer: &Path, to: &Path) -> Result<()> {
    if !has_image(layer)? {
        return tree::copy_properties(&tree_of(layer), to);
    }
    let attributes = attributes(layer)?;
    set(&attributes, to).attempt(|| format!("set the properties of {}", to.display()))
}

fn set(attributes: &Attributes, to: &Path) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(to, flags, Mode::empty())?;
    let Attributes { permissions, uid, gid, mtime, xattrs } = attributes;
    rustix::fs::fchown(&directory, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
    for (name, value) in xattrs.iter().filter(|(name, _)| !name.starts_with(b"trusted.overlay.")) {
        rustix::fs::fsetxattr(&directory, &name[..], value, XattrFlags::empty())?;
    }
    rustix::fs::fchmod(&directory, Mode::from_raw_mode((*permissions).into()))?;
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    rustix::fs::futimens(&directory, &Timestamps { last_access: time, last_modification: time })?;
    Ok(())
}

/// Returns what is known of the root of a layer.
fn attributes(layer: &Path) -> Result<Attributes> {
    if has_image(layer)? {
        let (path, image) = open(layer)?;
        let read = image.root().and_then(|root| image.attributes(&root));
        return read.map_err(|error| damaged(&path, error));
    }
    let tree = tree_of(layer);
    let read = || -> std::io::Result<Attributes> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&tree, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&directory)?;
        let mut attributes = Attributes {
            permissions: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: windlass_erofs::Time {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            },
            ..Attributes::default()
        };
        let mut names = vec![0; 64 << 10];
        let length = rustix::fs::flistxattr(&directory, &mut names[..])?;
        for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
            if windlass_erofs::is_xattr_supported(name) && !name.starts_with(b"trusted.overlay.") {
                let mut value = vec![0; 64 << 10];
                let length = rustix::fs::fgetxattr(&directory, name, &mut value[..])?;
                value.truncate(length);
                attributes.xattrs.insert(name.to_vec(), value);
            }
        }
        Ok(attributes)
    };
    read().attempt(|| format!("look at {}", tree.display()))
}

/// Gives the image in a directory the root of the layer below, if it has none of its own. Done twice, it does nothing.
pub(super) fn take_over(directory: &Path, parent: &Path) -> Result<()> {
    let (path, image) = open(directory)?;
    if image.name() != IMPLIED_ROOT {
        return Ok(());
    }
    let attributes = attributes(parent)?;
    let failed = |error| damaged(&path, error);
    let file = File::options().read(true).write(true).open(&path).attempt(|| format!("open {}", path.display()))?;
    let mut first = vec![0; 1 << windlass_erofs::BLOCK_BITS];
    file.read_exact_at(&mut first, 0).attempt(|| format!("read {}", path.display()))?;
    if windlass_erofs::change_root(&mut first, &attributes).map_err(failed)? {
        return file.write_all_at(&first, 0).attempt(|| format!("write {}", path.display()));
    }
    // There is no place for the root's extended attributes: everything is moved to make one.
    let mut tree = Tree::of(&image, Limits::default()).map_err(failed)?;
    tree.set_attributes(tree.root(), &attributes).map_err(failed)?;
    let volume = Volume { uuid: image.uuid(), name: [0; 16], data_blocks: image.data_blocks() };
    let new = directory.join("layer.erofs.new");
    let written = File::create(&new).attempt(|| format!("create {}", new.display()))?;
    tree.write(&volume, &written).map_err(failed)?;
    std::fs::rename(&new, &path).attempt(|| format!("rename {} to {}", new.display(), path.display()))
}

fn open(directory: &Path) -> Result<(std::path::PathBuf, Image<File>)> {
    let path = directory.join(LAYER_IMAGE);
    let file = File::open(&path).attempt(|| format!("open {}", path.display()))?;
    let image = Image::open(file).map_err(|error| damaged(&path, error))?;
    Ok((path, image))
}

fn damaged(path: &Path, error: windlass_erofs::Error) -> Error {
    match error {
        windlass_erofs::Error::Io(error) => Error::io(format!("read {}", path.display()), error),
        windlass_erofs::Error::TooLarge(what) => Error::resource_exhausted(format!("{}: {what}", path.display())),
        other => {
            Error::data_loss(format!("{}: {other}", path.display())).hint("`dist fsck --repair` unpacks a layer again")
        }
    }
}
