//! A small image, to find out with whether images can be mounted.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use windlass_core::error::{Error, IoResultExt as _, Result};
use windlass_core::snapshot::{LAYER_DATA, LAYER_IMAGE};
use windlass_erofs::{Attributes, Device, Limits, Packer, Tree, Volume, What};

/// Writes an image with these files in its root, and with marks of deleted names for `gone`; returns its two files.
pub(crate) fn make(directory: &Path, files: &[(&str, &[u8])], gone: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let (path, data_path) = (directory.join(LAYER_IMAGE), directory.join(LAYER_DATA));
    let create = |path: &Path| File::create(path).attempt(|| format!("create {}", path.display()));
    let failed = |error: windlass_erofs::Error| Error::internal("an image was not made").source(error);
    let (mut tree, mut packer, mut data) = (Tree::new(Limits::default()), Packer::new(), create(&data_path)?);
    let root = tree.root();
    let attributes = Attributes { permissions: 0o644, ..Attributes::default() };
    for (name, content) in files {
        let node = tree.add(root, name.as_bytes(), What::Regular, &attributes).map_err(failed)?;
        packer.begin(content.len() as u64, false).map_err(failed)?;
        let places = packer.end();
        tree.set_data(node, content.len() as u64, places).map_err(failed)?;
        let mut block = content.to_vec();
        block.resize(content.len().next_multiple_of(1 << windlass_erofs::BLOCK_BITS), 0);
        data.write_all(&block).attempt(|| format!("write {}", data_path.display()))?;
    }
    for name in gone {
        let mark = What::Character(Device::default());
        tree.add(root, name.as_bytes(), mark, &Attributes::default()).map_err(failed)?;
    }
    let data_blocks = packer.blocks().max(1);
    data.set_len(u64::from(data_blocks) << windlass_erofs::BLOCK_BITS)
        .attempt(|| format!("extend {}", data_path.display()))?;
    tree.write(&Volume { data_blocks, ..Volume::default() }, create(&path)?).map_err(failed)?;
    Ok((path, data_path))
}
