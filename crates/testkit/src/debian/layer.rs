//! One layer: packages merged into a tar, compressed and hashed on the way into a blob of the layout.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use windlass_core::digest::{Algorithm, Hasher};
use windlass_core::error::IoResultExt as _;
use windlass_core::{Descriptor, DiffId, Digest, MediaType, Result};

use super::archive::Merge;
use super::source::Package;
use super::{Layer, Summary};

/// What goes into a layer, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Entries before those of the packages.
    pub(super) before: Option<Layer>,
    packages: Vec<Package>,
}

impl Plan {
    pub(super) fn of_packages(packages: Vec<Package>) -> Self {
        Self { before: None, packages }
    }

    pub(super) fn of_entries(entries: Layer) -> Self {
        Self { before: Some(entries), packages: Vec::new() }
    }

    /// Returns how much work it is to make the layer, for comparison: the bytes of its packages.
    pub(super) fn weight(&self) -> u64 {
        let bytes = |package: &Package| std::fs::metadata(package.file()).map_or(0, |metadata| metadata.len());
        self.packages.iter().map(bytes).sum()
    }

    /// Makes the layer and returns what it came to.
    pub(super) fn make(&self, blobs: &Path) -> Result<Summary> {
        let mut temporary =
            tempfile::NamedTempFile::new_in(blobs).attempt(|| format!("write in {}", blobs.display()))?;
        let (descriptor, diff_id, entries) = self.write(temporary.as_file_mut())?;
        keep(temporary, blobs, &descriptor.digest)?;
        Ok(Summary { descriptor, diff_id, entries })
    }

    fn write(&self, file: &mut std::fs::File) -> Result<(Descriptor, DiffId, usize)> {
        let attempt = || "write a layer".to_owned();
        let gzip = GzEncoder::new(Hashing::new(BufWriter::with_capacity(1 << 20, file)), flate2::Compression::new(6));
        let blocks = Blocks { to: gzip, pending: Vec::with_capacity(BLOCK) };
        let mut merge = Merge::new(Hashing::new(blocks));
        if let Some(before) = &self.before {
            merge.add_entries(before).attempt(attempt)?;
        }
        for package in &self.packages {
            merge.add_package(package)?;
        }
        let entries = merge.entries;
        let uncompressed = merge.finish().attempt(attempt)?;
        let diff_id = DiffId(uncompressed.hasher.finish());
        let mut compressed = uncompressed.to.finish().and_then(GzEncoder::finish).attempt(attempt)?;
        compressed.flush().attempt(attempt)?;
        let descriptor = Descriptor::new(MediaType::OCI_LAYER_GZIP, compressed.hasher.finish(), compressed.count);
        Ok((descriptor, diff_id, entries))
    }
}

/// Makes the folder of a layout that has the blobs, and returns it.
pub(super) fn create_blobs(layout: &Path) -> Result<PathBuf> {
    let blobs = layout.join("blobs").join(Algorithm::Sha256.as_str());
    std::fs::create_dir_all(&blobs).attempt(|| format!("create {}", blobs.display()))?;
    Ok(blobs)
}

/// Writes a small blob and describes it.
pub(super) fn write_blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
    let descriptor = Descriptor::of(media_type, bytes);
    let path = blobs.join(descriptor.digest.hex());
    std::fs::write(&path, bytes).attempt(|| format!("write {}", path.display()))?;
    Ok(descriptor)
}

/// Gives a finished blob its name.
fn keep(temporary: tempfile::NamedTempFile, blobs: &Path, digest: &Digest) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = blobs.join(digest.hex());
    let attempt = || format!("write {}", path.display());
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).attempt(attempt)?;
    temporary.persist(&path).map_err(|error| error.error).attempt(attempt)?;
    Ok(())
}

/// Hashes and counts what passes.
struct Hashing<W> {
    to: W,
    hasher: Hasher,
    count: u64,
}

impl<W> Hashing<W> {
    fn new(to: W) -> Self {
        Self { to, hasher: Algorithm::Sha256.hasher(), count: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// How many bytes are compressed at once.
const BLOCK: usize = 64 << 10;

/// Passes bytes on in blocks of one size: what gzip makes of them depends on how they come, and pipes give them in pieces
/// of any size. The same packages are to give the same layer.
struct Blocks<W> {
    to: W,
    pending: Vec<u8>,
}

impl<W: Write> Blocks<W> {
    /// Passes the rest on, and returns what it went to.
    fn finish(mut self) -> std::io::Result<W> {
        self.to.write_all(&self.pending)?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.get(..BLOCK - self.pending.len()).unwrap_or(bytes);
        self.pending.extend_from_slice(taken);
        if self.pending.len() == BLOCK {
            self.to.write_all(&self.pending)?;
            self.pending.clear();
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A layer's blob, read again.
#[cfg(test)]
pub(super) fn open(blobs: &Path, summary: &Summary) -> flate2::read::GzDecoder<std::fs::File> {
    flate2::read::GzDecoder::new(std::fs::File::open(blobs.join(summary.descriptor.digest.hex())).unwrap())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    /// Builds a package with Debian's own tool.
    fn package(directory: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let tree = directory.join(name);
        std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control =
            format!("Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n");
        std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
        for (path, content) in files {
            let path = tree.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let (linked, _) = files[0];
        std::fs::hard_link(tree.join(linked), tree.join(linked).with_extension("link")).unwrap();
        let file = directory.join(format!("{name}.deb"));
        let output = Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&file).output();
        assert!(output.unwrap().status.success());
        file
    }

    #[test]
    fn packages_are_merged_below_usr_and_nothing_is_there_twice() {
        let directory = tempfile::tempdir().unwrap();
        let long = format!("lib/{}/file", "long".repeat(40));
        let one = package(directory.path(), "one", &[(&long, "x"), ("bin/sh", "a shell"), ("etc/common", "first")]);
        let two = package(directory.path(), "two", &[("usr/bin/two", "2"), ("etc/common", "second")]);
        let blobs = create_blobs(directory.path()).unwrap();
        let mut plan = Plan::of_packages([one, two].map(Package::Debian).into());
        plan.before = Some(super::super::bottom::layer());
        let summary = plan.make(&blobs).unwrap();

        let mut tar = Vec::new();
        open(&blobs, &summary).read_to_end(&mut tar).unwrap();
        assert_eq!(DiffId(Digest::sha256(&tar)), summary.diff_id);
        let (mut paths, mut links) = (Vec::new(), Vec::new());
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            if path == "etc/common" {
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                assert_eq!(content, "first");
            }
            if path == "usr/bin/sh" {
                assert_eq!(entry.header().entry_type(), tar::EntryType::Symlink, "the first one stays");
            }
            if entry.header().entry_type() == tar::EntryType::Link {
                links.push(entry.link_name().unwrap().unwrap().to_str().unwrap().to_owned());
            }
            paths.push(path);
        }
        assert!(links.len() == 2 && links.iter().all(|link| paths.contains(link)), "{links:?} in {paths:?}");
        assert_eq!(paths.len(), summary.entries);
        assert!(paths.contains(&format!("usr/{long}")), "{paths:?}");
        assert!(!paths.iter().any(|path| path.starts_with("bin/") || path.starts_with("./")), "{paths:?}");
        let unique: HashSet<&String> = paths.iter().collect();
        assert_eq!(unique.len(), paths.len());
    }
}
