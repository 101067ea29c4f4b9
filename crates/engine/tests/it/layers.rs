//! Random trees through layers and each snapshotter into what is mounted: it is what a model says, file by file.

use std::path::Path;
use std::str::FromStr as _;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use windlass_core::content::{Provider, ReaderAt};
use windlass_core::diff::{Applied, Applier as _, Whiteouts};
use windlass_core::media_type::Compression;
use windlass_core::snapshot::{Commit, Key, Name, Snapshotter};
use windlass_core::{Descriptor, Labels, MediaType, Result};
use windlass_layer::{Differ, Options};
use windlass_snapshot::mount::Temporary;
use windlass_snapshot::native::Native;
use windlass_snapshot::overlay::Overlay;
use windlass_testkit::image::Encoded;
use windlass_testkit::loopback;
use windlass_testkit::tree::Tree;

use crate::model::{Model, Step, steps};

/// All snapshotters there are.
async fn snapshotters(directory: &Path) -> Vec<(&'static str, Box<dyn Snapshotter>)> {
    vec![
        ("overlayfs", Box::new(Overlay::open(&directory.join("overlayfs")).await.unwrap())),
        ("native", Box::new(Native::open(&directory.join("native")).await.unwrap())),
    ]
}

/// When a layer is put onto its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Onto {
    /// At once.
    Parent,
    /// At its commit, if it can be.
    Later,
}

/// A blob in memory.
struct Blob(Bytes);

#[async_trait]
impl ReaderAt for Blob {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let start = usize::try_from(offset).unwrap().min(self.0.len());
        Ok(self.0.slice(start..self.0.len().min(start + length)))
    }
}

#[async_trait]
impl Provider for Blob {
    async fn reader(&self, _: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        Ok(Box::new(Self(self.0.clone())))
    }
}

async fn apply(
    snapshotter: &dyn Snapshotter,
    encoded: &Encoded,
    (name, parent): (&Name, Option<&Name>),
    onto: Onto,
) -> Result<()> {
    let descriptor = Descriptor::of(MediaType::OCI_LAYER, &encoded.bytes);
    let working = Key::from_str(&format!("{name} in the making")).unwrap();
    let later = onto == Onto::Later && snapshotter.capabilities().rebase && parent.is_some();
    let (below, whiteouts) = if later { (None, Whiteouts::Overlay) } else { (parent, Whiteouts::AsMounted) };
    let mounts = snapshotter.prepare(&working, below, Labels::new()).await?;
    let differ = Differ::new(Options::default());
    match differ.apply(&Blob(encoded.bytes.clone()), &descriptor, &mounts, whiteouts, None).await? {
        Applied::Complete { diff_id, .. } => assert_eq!(diff_id, encoded.diff_id),
        Applied::NeedsParent { .. } => {
            assert!(later, "only who does not see the parent can need it");
            snapshotter.remove(&working).await?;
            return Box::pin(apply(snapshotter, encoded, (name, parent), Onto::Parent)).await;
        }
    }
    let commit = Commit { labels: Labels::new(), parent: parent.filter(|_| later).cloned() };
    snapshotter.commit(name, &working, commit).await
}

/// Shows the snapshot of a layer.
async fn seen(snapshotter: &dyn Snapshotter, name: &Name, directory: &Path) -> Tree {
    let view = Key::from_str("view").unwrap();
    let mounts = snapshotter.view(&view, Some(name), Labels::new()).await.unwrap();
    let mounted = Temporary::mount(&mounts, directory).unwrap();
    let tree = Tree::of(mounted.path()).unwrap();
    mounted.close().unwrap();
    snapshotter.remove(&view).await.unwrap();
    tree
}

async fn check(layers: &[(Encoded, Tree)]) {
    // In memory, because every commit waits for the disk.
    let place = tempfile::tempdir().unwrap();
    let memory = loopback::Memory::mount(place.path(), 1 << 30);
    for onto in [Onto::Later, Onto::Parent] {
        let directory = place.path().join(format!("{onto:?}"));
        std::fs::create_dir(&directory).unwrap();
        for (kind, snapshotter) in snapshotters(&directory).await {
            let mut parent: Option<Name> = None;
            for (number, (encoded, expected)) in layers.iter().enumerate() {
                let name = Name::from_str(&format!("layer {number}")).unwrap();
                let applied = apply(&*snapshotter, encoded, (&name, parent.as_ref()), onto).await;
                applied.unwrap_or_else(|error| panic!("{kind}, layer {number}, onto {onto:?}: {error:?}"));
                let tree = seen(&*snapshotter, &name, &directory).await;
                let differences = tree.differences(expected);
                assert!(differences.is_empty(), "{kind}, layer {number}, onto {onto:?}: {differences:#?}");
                parent = Some(name);
            }
        }
    }
    drop(memory);
}

fn layers() -> impl Strategy<Value = Vec<(Vec<Step>, bool, u8)>> {
    prop::collection::vec((steps(), any::<bool>(), 0..3u8), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_are_what_the_model_says_whoever_unpacks_them(layers in layers()) {
        let mut model = Model::default();
        let mut all = Vec::new();
        for (steps, lists, compression) in &layers {
            let layer = model.layer(steps, *lists);
            let compression = [Compression::None, Compression::Gzip, Compression::Zstd][usize::from(*compression)];
            all.push((layer.encode(compression), model.tree()));
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(&all));
    }
}
