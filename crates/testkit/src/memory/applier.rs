//! An applier that holds a whole layer in memory, for tests of what calls one.
//!
//! It understands what [`image::Layer`](crate::image::Layer) writes of files, directories, links and whiteouts, and sets
//! no owners, times or xattrs but overlayfs' own.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use windlass_core::content::{Provider, ProviderExt as _};
use windlass_core::diff::{self, Applied, Whiteouts};
use windlass_core::error::IoResultExt as _;
use windlass_core::media_type::{Compression, Role};
use windlass_core::progress::{State, Task};
use windlass_core::snapshot::Mount;
use windlass_core::{Descriptor, DiffId, Digest, Error, Result};

use crate::mounted::Mounted;

/// An applier, and what it was asked to do.
#[derive(Default)]
pub struct Applier {
    calls: AtomicUsize,
    running: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Applier {
    /// Makes an applier that was never called.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many layers it was asked to apply.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Returns how many layers it applied at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }
}

/// Counts a call for as long as it runs, also when it is dropped.
struct Running<'a>(&'a Applier);

impl<'a> Running<'a> {
    fn begin(applier: &'a Applier) -> Self {
        applier.calls.fetch_add(1, Ordering::SeqCst);
        let running = applier.running.fetch_add(1, Ordering::SeqCst) + 1;
        applier.most_at_once.fetch_max(running, Ordering::SeqCst);
        Self(applier)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl diff::Applier for Applier {
    async fn apply(
        &self,
        content: &dyn Provider,
        layer: &Descriptor,
        mounts: &[Mount],
        whiteouts: Whiteouts,
        task: Option<&Task>,
    ) -> Result<Applied> {
        let _running = Running::begin(self);
        let compressed = content.read_all(layer, u64::MAX).await?;
        let total = compressed.len() as u64;
        if let Some(task) = task {
            task.set(State::Unpacking { offset: 0, total });
        }
        // Others get a turn, so that what runs at once is seen to.
        tokio::task::yield_now().await;
        let tar = decompressed(layer, &compressed)?;
        let mounted = Mounted::of(mounts)?;
        let overlay = whiteouts == Whiteouts::Overlay || mounts.iter().any(|mount| mount.kind == "overlay");
        if let Some(path) = extract(&tar, &mounted, overlay)? {
            return Ok(Applied::NeedsParent { path });
        }
        if let Some(task) = task {
            task.set(State::Unpacking { offset: total, total });
        }
        Ok(Applied::Complete { diff_id: DiffId(Digest::sha256(&tar)), size: tar.len() as u64 })
    }
}

fn decompressed(layer: &Descriptor, bytes: &Bytes) -> Result<Vec<u8>> {
    let Role::Layer(compression) = layer.media_type.role() else {
        return Err(Error::failed_precondition(format!("{} is no layer but {}", layer.digest, layer.media_type)));
    };
    let mut tar = Vec::new();
    let read = match compression {
        Compression::None => (&bytes[..]).read_to_end(&mut tar),
        Compression::Gzip => flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut tar),
        Compression::Zstd => zstd::stream::read::Decoder::new(&bytes[..]).and_then(|mut it| it.read_to_end(&mut tar)),
    };
    match read {
        Ok(_) => Ok(tar),
        Err(error) => Err(Error::data_loss(format!("decompress {}", layer.digest)).source(error)),
    }
}

/// Extracts a tar; returns the entry that needs what is below, if there is one.
fn extract(tar: &[u8], mounted: &Mounted, overlay: bool) -> Result<Option<String>> {
    let mut archive = tar::Archive::new(tar);
    let attempt = || "read the layer's tar".to_owned();
    for entry in archive.entries().attempt(attempt)? {
        let mut entry = entry.attempt(attempt)?;
        let path = entry.path().attempt(attempt)?.to_string_lossy().trim_end_matches('/').to_owned();
        if path.split('/').any(|part| part == "..") || path.starts_with('/') {
            return Err(Error::failed_precondition(format!("entry {path:?} leaves the root")));
        }
        let place = mounted.writable(&path)?;
        let link = entry.link_name().attempt(attempt)?.map(|link| link.to_string_lossy().into_owned());
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent).attempt(|| format!("create {}", parent.display()))?;
        }
        if white_out(&path, mounted, overlay)? {
            continue;
        }
        let made = match (entry.header().entry_type(), link) {
            (tar::EntryType::Directory, _) => std::fs::create_dir_all(&place),
            (tar::EntryType::Symlink, Some(link)) => std::os::unix::fs::symlink(link, &place),
            (tar::EntryType::Link, Some(link)) => match mounted.find(&link) {
                Some(target) => std::fs::hard_link(target, &place),
                None => return Ok(Some(path)),
            },
            _ => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).and_then(|_| std::fs::write(&place, bytes))
            }
        };
        made.attempt(|| format!("create {}", place.display()))?;
    }
    Ok(None)
}

/// OCI image-spec, `layer.md`, "Whiteouts". Tells whether the entry was one.
fn white_out(path: &str, mounted: &Mounted, overlay: bool) -> Result<bool> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(hidden) = name.strip_prefix(".wh.") else { return Ok(false) };
    let directory = mounted.writable(parent)?;
    let attempt = || format!("white out {path}");
    match (hidden, overlay) {
        (".wh..opq", true) => {
            rustix::fs::setxattr(&directory, "trusted.overlay.opaque", b"y", XattrFlags::empty()).attempt(attempt)?;
        }
        (".wh..opq", false) => {
            std::fs::remove_dir_all(&directory).and_then(|()| std::fs::create_dir(&directory)).attempt(attempt)?;
        }
        (_, true) => {
            let mode = Mode::empty();
            rustix::fs::mknodat(CWD, directory.join(hidden), FileType::CharacterDevice, mode, 0).attempt(attempt)?;
        }
        (_, false) => remove(&directory.join(hidden)).attempt(attempt)?,
    }
    Ok(true)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}
