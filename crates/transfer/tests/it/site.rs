//! Where the tests pull: a host in memory, a remote in memory, and what they hold.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use tempfile::TempDir;
use windlass_core::progress::Tracker;
use windlass_core::snapshot::Capabilities;
use windlass_core::{Error, Namespace, Reference, Result, Services};
use windlass_testkit::image::{Bundle, Image, Layer};
use windlass_testkit::memory::{Applier, Host, Remote};
use windlass_transfer::{Plan, Pull, Pulled};

pub(crate) struct Site {
    pub(crate) host: Host,
    pub(crate) remote: Remote,
    pub(crate) applier: Arc<Applier>,
    pub(crate) reference: Reference,
    directory: TempDir,
}

impl Site {
    /// A host that can rebase, and a remote that serves the bundle.
    pub(crate) fn serving(bundle: &Bundle) -> Self {
        Self::with(bundle, Capabilities { rebase: true })
    }

    pub(crate) fn with(bundle: &Bundle, capabilities: Capabilities) -> Self {
        let directory = TempDir::new().unwrap();
        let applier = Arc::new(Applier::new());
        let host = Host::new(Path::new(directory.path()), applier.clone()).with_capabilities(capabilities);
        let site =
            Self { host, remote: Remote::new(), applier, reference: "registry.test/app:1".parse().unwrap(), directory };
        site.remote.serve(&site.reference, bundle);
        site
    }

    pub(crate) async fn pull(&self) -> Result<Pulled> {
        self.pull_with(&Pull::default()).await
    }

    pub(crate) async fn pull_with(&self, options: &Pull) -> Result<Pulled> {
        let progress = Tracker::new();
        windlass_transfer::pull(&self.host, &Namespace::default(), &self.remote, &self.reference, options, &progress)
            .await
    }

    pub(crate) async fn plan(&self, options: &Pull) -> Result<Plan> {
        let progress = Tracker::new();
        windlass_transfer::plan(&self.host, &Namespace::default(), &self.remote, &self.reference, options, &progress)
            .await
    }

    /// Pulls and returns the failure.
    pub(crate) async fn fail(&self) -> Error {
        self.pull().await.unwrap_err()
    }

    pub(crate) async fn services(&self) -> Services {
        use windlass_core::Host as _;
        self.host.services(&Namespace::default().into()).await.unwrap()
    }

    /// How many directories of snapshots there are.
    pub(crate) fn directories(&self) -> usize {
        let namespaces = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        namespaces.map(|namespace| std::fs::read_dir(namespace).unwrap().count()).sum()
    }

    /// Everything that the namespace holds, by kind.
    pub(crate) async fn holds(&self) -> Held {
        let services = self.services().await;
        let content: Vec<_> = services.content.list(&[]).try_collect().await.unwrap();
        let images: Vec<_> = services.images.list(&[]).try_collect().await.unwrap();
        let (_, snapshotter) = services.snapshotter(None).unwrap();
        let snapshots: Vec<_> = snapshotter.walk(&[]).try_collect().await.unwrap();
        Held {
            blobs: content.len(),
            images: images.len(),
            snapshots: snapshots.len(),
            ingests: services.content.statuses(&[]).await.unwrap().len(),
            leases: services.leases.list(&[]).await.unwrap().len(),
        }
    }
}

/// How many objects of each kind there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) blobs: usize,
    pub(crate) images: usize,
    pub(crate) snapshots: usize,
    pub(crate) ingests: usize,
    pub(crate) leases: usize,
}

/// Bytes that do not compress, so that a layer is as large as its files.
pub(crate) fn noise(length: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

/// Three layers, the middle one large enough for many chunks.
pub(crate) fn three_layers() -> Image {
    Image::new("linux/amd64")
        .layer(Layer::new().dir("etc", 0o755).file("etc/os-release", "ID=test\n"))
        .layer(Layer::new().dir("data", 0o755).file("data/noise", noise(200_000)))
        .layer(Layer::new().dir("etc", 0o755).whiteout("etc/os-release").file("etc/motd", "hello\n"))
}
