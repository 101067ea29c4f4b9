//! Snapshots and layers as a client asks for them that nobody here wrote.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;
use tonic::{Code, Request};
use windlass_core::content::IngesterExt as _;
use windlass_core::diff::{Applied, Whiteouts};
use windlass_core::snapshot::{Commit, Key};
use windlass_core::{Descriptor, Host, Labels, MediaType, Namespace, Scope, Services};
use windlass_grpc::scope;
use windlass_proto::containerd::services::diff::v1::{ApplyRequest, diff_client::DiffClient};
use windlass_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use windlass_proto::containerd::services::snapshots::v1::{ListSnapshotsRequest, PrepareSnapshotRequest};
use windlass_proto::containerd::types;
use windlass_testkit::image::Layer;
use windlass_testkit::memory::SNAPSHOTTER;

use crate::{client, in_memory, served};

fn within<T>(message: T) -> Request<T> {
    scope::request(&Scope::default(), message).unwrap()
}

#[tokio::test]
async fn a_snapshotter_has_to_be_named_and_here() {
    let root = TempDir::new().unwrap();
    let mut client = SnapshotsClient::new(served(&in_memory(root.path()), root.path()).await);
    for snapshotter in ["", "none such"] {
        let request = PrepareSnapshotRequest { snapshotter: snapshotter.into(), key: "k".into(), ..Default::default() };
        let refused = client.prepare(within(request.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{snapshotter:?}");
        let anywhere = client.prepare(request).await.unwrap_err();
        assert_eq!(anywhere.code(), Code::FailedPrecondition, "without a namespace");
    }
}

#[tokio::test]
async fn many_snapshots_come_in_pages() {
    let root = TempDir::new().unwrap();
    let host = in_memory(root.path());
    let services = host.services(&Scope::default()).await.unwrap();
    for number in 0..250 {
        let key: Key = format!("k{number}").parse().unwrap();
        services.snapshotters[SNAPSHOTTER].prepare(&key, None, Labels::new()).await.unwrap();
    }
    let mut client = SnapshotsClient::new(served(&host, root.path()).await);
    let request = ListSnapshotsRequest { snapshotter: SNAPSHOTTER.to_owned(), filters: Vec::new() };
    let pages = client.list(within(request)).await.unwrap().into_inner();
    let sizes: Vec<usize> = pages.map(|page| page.unwrap().info.len()).collect().await;
    assert_eq!(sizes, [100, 100, 50]);
}

#[tokio::test]
async fn a_namespace_names_its_snapshotter_by_a_label() {
    let root = TempDir::new().unwrap();
    let client = client(root.path()).await;
    let services = client.services(&Scope::default()).await.unwrap();
    assert_eq!(services.default_snapshotter, SNAPSHOTTER, "the only one");
    let other: Namespace = "other".parse().unwrap();
    let labels = Labels::new().with("containerd.io/defaults/snapshotter", "native");
    services.namespaces.create(&other, labels).await.unwrap();
    assert_eq!(client.services(&other.into()).await.unwrap().default_snapshotter, "native");
}

/// Brings a layer and returns its descriptor.
async fn bring(services: &Services, layer: Layer) -> (Descriptor, Descriptor) {
    let tar: Bytes = layer.tar().into();
    let descriptor = Descriptor::of(MediaType::OCI_LAYER, &tar);
    services.content.write_blob(&descriptor, tar.clone(), Labels::new()).await.unwrap();
    (descriptor.clone(), descriptor)
}

#[tokio::test]
async fn a_layer_is_applied_to_the_mounts_it_is_given() {
    let root = TempDir::new().unwrap();
    let host = in_memory(root.path());
    let services = host.services(&Scope::default()).await.unwrap();
    let (layer, uncompressed) = bring(&services, Layer::new().file("a", "a\n")).await;
    let key: Key = "k".parse().unwrap();
    let mounts = services.snapshotters[SNAPSHOTTER].prepare(&key, None, Labels::new()).await.unwrap();
    let source = mounts[0].source.clone();
    let mut client = DiffClient::new(served(&host, root.path()).await);
    let request = ApplyRequest {
        diff: Some(types::Descriptor {
            media_type: layer.media_type.to_string(),
            digest: layer.digest.to_string(),
            size: i64::try_from(layer.size).unwrap(),
            ..Default::default()
        }),
        mounts: vec![types::Mount {
            r#type: "bind".into(),
            source: source.clone(),
            target: String::new(),
            options: vec!["rbind".into(), "rw".into()],
        }],
        sync_fs: true,
        ..Default::default()
    };
    let applied = client.apply(within(request)).await.unwrap().into_inner().applied.unwrap();
    assert_eq!(applied.media_type, MediaType::OCI_LAYER);
    assert_eq!(
        (applied.digest, applied.size),
        (uncompressed.digest.to_string(), i64::try_from(uncompressed.size).unwrap())
    );
    assert_eq!(std::fs::read_to_string(format!("{source}/a")).unwrap(), "a\n");
    let nothing = client.apply(within(ApplyRequest::default())).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
}

/// The whiteouts of a layer that is put onto its parent later are those of overlayfs, and one that needs its parent says so.
#[tokio::test]
async fn layers_are_applied_side_by_side_over_the_wire() {
    let root = TempDir::new().unwrap();
    let client = client(root.path()).await;
    let services = client.services(&Scope::default()).await.unwrap();
    let snapshotter = services.snapshotters[SNAPSHOTTER].clone();
    let prepare = async |key: &str| snapshotter.prepare(&key.parse().unwrap(), None, Labels::new()).await.unwrap();
    let apply = async |layer: &Descriptor, mounts: &[windlass_core::snapshot::Mount]| {
        services.applier.apply(&*services.content, layer, mounts, Whiteouts::Overlay, None).await.unwrap()
    };
    let (base, _) = bring(&services, Layer::new().file("gone", "x").file("kept", "y")).await;
    let (top, _) = bring(&services, Layer::new().whiteout("gone")).await;
    let (link, _) = bring(&services, Layer::new().hardlink("same", "kept")).await;

    let mounts = prepare("top").await;
    assert!(matches!(apply(&top, &mounts).await, Applied::Complete { .. }));
    let device =
        std::os::unix::fs::MetadataExt::rdev(&std::fs::symlink_metadata(format!("{}/gone", mounts[0].source)).unwrap());
    assert_eq!(device, 0, "a whiteout of overlayfs");
    assert_eq!(apply(&link, &prepare("link").await).await, Applied::NeedsParent { path: "same".to_owned() });
    assert!(matches!(apply(&base, &prepare("base").await).await, Applied::Complete { .. }));
    let (base, top) = ("base layer".parse().unwrap(), "top layer".parse().unwrap());
    snapshotter.commit(&base, &"base".parse().unwrap(), Commit::default()).await.unwrap();
    let onto = Commit { labels: Labels::new(), parent: Some(base.clone()) };
    snapshotter.commit(&top, &"top".parse().unwrap(), onto).await.unwrap();
    let infos: Vec<_> = snapshotter.walk(&[]).try_collect().await.unwrap();
    assert_eq!(infos.iter().find(|info| info.key == *top.as_key()).unwrap().parent, Some(base));
    drop(Arc::clone(&snapshotter));
}
