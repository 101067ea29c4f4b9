//! Small blobs: those that are committed before anything of them came to the disk.
//!
//! There is nothing of them that could be continued, so they do not take the detour of an ingest's directory with its
//! files, of which each would have to be made and removed again. Their bytes are written to `content/small/<id>`, verified
//! before, and moved to their place from there. What is left there belongs to nobody: it goes when the store is opened.

use std::path::{Path, PathBuf};

use windlass_core::content::Expected;
use windlass_core::digest::Algorithm;
use windlass_core::{Digest, Result};

use super::commit::{Verdict, wrong_digest, wrong_size};
use crate::disk::{Disk, How};

/// The mode of a committed blob.
const MODE: u32 = 0o444;

/// Returns where the bytes of a small blob are on their way, beside the directory of ingests.
pub(super) fn path(ingests: &Path, id: &str) -> PathBuf {
    ingests.with_file_name("small").join(id)
}

/// Removes what a process left that is gone. Blocking.
pub(super) fn clear(disk: &Disk, content: &Path) -> Result<()> {
    let directory = content.join("small");
    let mut names = Vec::new();
    disk.list(&directory, |name| names.push(name.to_owned()))?;
    for name in names {
        disk.remove_file(&directory.join(name))?;
    }
    Ok(())
}

/// Checks size and digest of the whole content.
pub(super) fn verify(bytes: &[u8], expected: &[Expected]) -> Verdict {
    let size = bytes.len() as u64;
    if let Some(wanted) = expected.iter().filter_map(|expected| expected.size).find(|wanted| *wanted != size) {
        return Verdict::Bad(wrong_size(size, wanted));
    }
    let mut digest = None;
    for wanted in expected.iter().filter_map(|expected| expected.digest.as_ref()) {
        let found = hash(wanted.algorithm(), bytes);
        if found != *wanted {
            return Verdict::Bad(wrong_digest(&found, wanted));
        }
        digest.get_or_insert(found);
    }
    Verdict::Good(digest.unwrap_or_else(|| hash(Algorithm::Sha256, bytes)), size)
}

/// Writes the bytes and makes them durable. When that fails, nothing is left. Blocking.
pub(super) fn write(disk: &Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let written = disk.open(path, How::Replace(MODE)).and_then(|file| {
        file.write_all_at(bytes, 0)?;
        file.sync_all()
    });
    if written.is_err() {
        // The first error is the one to tell; what is left goes when the store is opened.
        drop(disk.remove_file(path));
    }
    written
}

fn hash(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = algorithm.hasher();
    hasher.update(bytes);
    hasher.finish()
}
