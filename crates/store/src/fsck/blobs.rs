//! The files of blobs: what is there, and what should not be.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_core::digest::Algorithm;
use windlass_core::error::IoResultExt;
use windlass_core::fsck::{Finding, Problem};
use windlass_core::{Digest, Error, Result};

/// The blobs that are there, with the sizes of their files.
pub(super) type Stored = BTreeMap<Digest, u64>;

/// Lists the blobs below a root; files that are none are findings.
pub(super) fn list(root: &Path, findings: &mut Vec<Finding>) -> Result<Stored> {
    let mut stored = Stored::new();
    for (algorithm, _) in entries(&root.join("content/blobs"))? {
        let folder = format!("content/blobs/{algorithm}");
        let Ok(known) = algorithm.parse::<Algorithm>() else {
            findings.push(foreign(root, folder)?);
            continue;
        };
        for (name, size) in entries(&root.join(&folder))? {
            match (format!("{known}:{name}").parse::<Digest>(), size) {
                (Ok(digest), Some(size)) if digest.hex() == name => drop(stored.insert(digest, size)),
                _ => findings.push(foreign(root, format!("{folder}/{name}"))?),
            }
        }
    }
    Ok(stored)
}

fn foreign(root: &Path, path: String) -> Result<Finding> {
    let whole = root.join(&path);
    let size = std::fs::symlink_metadata(&whole).attempt(|| format!("look at {}", whole.display()))?.len();
    Ok(Finding::new(Problem::ForeignFile { path, size }))
}

/// Lists a directory that may be missing: names, with the sizes of regular files.
pub(super) fn entries(directory: &Path) -> Result<Vec<(String, Option<u64>)>> {
    let attempt = || format!("list {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(attempt(), error)),
    };
    let mut listed = Vec::new();
    for entry in entries {
        let entry = entry.attempt(attempt)?;
        let metadata = entry.metadata().attempt(attempt)?;
        let size = metadata.is_file().then_some(metadata.len());
        listed.push((entry.file_name().to_string_lossy().into_owned(), size));
    }
    Ok(listed)
}

/// Compares what is recorded with what is there.
pub(super) fn compare(recorded: &BTreeMap<Digest, u64>, stored: &Stored, findings: &mut Vec<Finding>) {
    for (digest, size) in recorded {
        if !stored.contains_key(digest) {
            findings.push(Finding::new(Problem::BlobMissing { digest: digest.clone(), size: *size }));
        }
    }
    for (digest, size) in stored {
        if !recorded.contains_key(digest) {
            findings.push(Finding::new(Problem::BlobUnrecorded { digest: digest.clone(), size: *size }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_without_bytes_and_bytes_without_records() {
        let blob = |text: &str| Digest::sha256(text.as_bytes());
        let recorded = BTreeMap::from([(blob("both"), 1), (blob("record"), 2)]);
        let stored = BTreeMap::from([(blob("both"), 1), (blob("bytes"), 3)]);
        let mut findings = Vec::new();
        compare(&recorded, &stored, &mut findings);
        let problems: Vec<Problem> = findings.into_iter().map(|finding| finding.problem).collect();
        let expected = [
            Problem::BlobMissing { digest: blob("record"), size: 2 },
            Problem::BlobUnrecorded { digest: blob("bytes"), size: 3 },
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn whatever_is_no_blob_is_foreign() {
        let root = tempfile::tempdir().unwrap();
        let blobs = root.path().join("content/blobs");
        std::fs::create_dir_all(blobs.join("sha256")).unwrap();
        std::fs::create_dir_all(blobs.join("md5")).unwrap();
        let digest = Digest::sha256(b"x");
        std::fs::write(blobs.join("sha256").join(digest.hex()), b"x").unwrap();
        std::fs::write(blobs.join("sha256/notes.txt"), b"mine").unwrap();
        std::fs::create_dir(blobs.join("sha256").join(Digest::sha256(b"y").hex())).unwrap();
        let mut findings = Vec::new();
        assert_eq!(list(root.path(), &mut findings).unwrap(), BTreeMap::from([(digest, 1)]));
        assert_eq!(findings.len(), 3);
    }
}
