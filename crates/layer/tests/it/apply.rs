//! Applying an archive that is in memory.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::{Provider, ReaderAt};
use windlass_core::diff::{Applied, Applier as _, Whiteouts};
use windlass_core::progress::Task;
use windlass_core::snapshot::Mount;
use windlass_core::{Descriptor, Digest, MediaType, Result};
use windlass_layer::{Differ, Options};

/// A blob in memory, read in parts of at most that many bytes.
pub(crate) struct Memory(pub(crate) Bytes, pub(crate) usize);

#[async_trait]
impl ReaderAt for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let start = usize::try_from(offset).unwrap().min(self.0.len());
        let end = start.saturating_add(length.min(self.1)).min(self.0.len());
        Ok(self.0.slice(start..end))
    }
}

#[async_trait]
impl Provider for Memory {
    async fn reader(&self, _: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        Ok(Box::new(Self(self.0.clone(), self.1)))
    }
}

pub(crate) fn bind(root: &Path) -> Vec<Mount> {
    vec![Mount {
        kind: "bind".into(),
        source: root.to_str().unwrap().into(),
        target: String::new(),
        options: vec!["rw".into(), "rbind".into()],
    }]
}

pub(crate) fn overlay(upper: &Path, lower: &[&Path]) -> Vec<Mount> {
    let lower: Vec<_> = lower.iter().map(|path| path.to_str().unwrap()).collect();
    vec![Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![format!("upperdir={}", upper.display()), format!("lowerdir={}", lower.join(":"))],
    }]
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Applies bytes as a layer.
pub(crate) fn apply_with(layer: &[u8], mounts: &[Mount], whiteouts: Whiteouts, task: Option<&Task>) -> Result<Applied> {
    let content = Memory(Bytes::copy_from_slice(layer), usize::MAX);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, layer);
    run(Differ::new(Options::default()).apply(&content, &descriptor, mounts, whiteouts, task))
}

pub(crate) fn apply(layer: &[u8], root: &Path) -> Result<Applied> {
    apply_with(layer, &bind(root), Whiteouts::AsMounted, None)
}

/// Applies a layer that is not compressed and must be right.
pub(crate) fn apply_ok(layer: &[u8], mounts: &[Mount]) {
    let applied = apply_with(layer, mounts, Whiteouts::AsMounted, None).unwrap();
    let Applied::Complete { diff_id, size } = applied else { panic!("{applied:?}") };
    assert_eq!(diff_id.0, Digest::sha256(layer));
    assert_eq!(size, layer.len() as u64);
}
