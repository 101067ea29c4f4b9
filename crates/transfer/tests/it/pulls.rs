//! Pulls that succeed.

use windlass_core::platform::Selection;
use windlass_core::progress::{State, Tracker};
use windlass_core::snapshot::{Capabilities, Name};
use windlass_core::{Namespace, gc};
use windlass_testkit::image::{Image, Index, Layer, artifact};
use windlass_testkit::memory::{Fault, Gate, SNAPSHOTTER};
use windlass_transfer::{Pull, Unpack, rootfs};

use crate::site::{Held, Site, three_layers};

#[tokio::test]
async fn a_pull_fetches_everything_once_unpacks_every_layer_and_gives_up_its_lease() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let pulled = site.pull().await.unwrap();

    assert_eq!(pulled.name.as_str(), "registry.test/app:1");
    assert_eq!(pulled.target.digest, bundle.root.digest);
    assert_eq!(pulled.totals.downloaded, bundle.size());
    assert_eq!(pulled.totals.reused, 0);
    assert_eq!(pulled.snapshots, bundle.image().chain_ids()[2..]);
    assert_eq!(site.remote.fetch_count(), bundle.blobs.len());
    assert_eq!(site.holds().await, Held { blobs: 5, images: 1, snapshots: 3, ingests: 0, leases: 0 });
}

#[tokio::test]
async fn what_is_recorded_survives_a_collection_and_an_image_that_goes_takes_all_of_it_along() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull().await.unwrap();
    site.host.collect(&Namespace::default());
    assert_eq!(site.holds().await, Held { blobs: 5, images: 1, snapshots: 3, ingests: 0, leases: 0 });

    let services = site.services().await;
    let label = gc::snapshot_label(SNAPSHOTTER);
    let config = services.content.info(&bundle.image().config.digest).await.unwrap();
    assert_eq!(config.labels.get(&label), Some(bundle.image().chain_ids()[2].to_string().as_str()));

    services.images.delete(&"registry.test/app:1".parse().unwrap(), gc::Deletion::Synchronous).await.unwrap();
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test]
async fn a_second_pull_downloads_nothing() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull().await.unwrap();
    let before = site.remote.fetch_count();

    let again = site.pull().await.unwrap();
    assert_eq!(again.totals.downloaded, 0);
    assert_eq!(again.totals.reused, bundle.size());
    assert_eq!(site.remote.fetch_count(), before);
    assert_eq!(site.applier.calls(), 3);
}

#[tokio::test]
async fn a_snapshotter_that_cannot_rebase_gets_the_layers_one_on_the_other() {
    let bundle = three_layers().build();
    let site = Site::with(&bundle, Capabilities { rebase: false });
    let pulled = site.pull().await.unwrap();

    let services = site.services().await;
    let (_, snapshotter) = services.snapshotter(None).unwrap();
    let top = Name::from(&pulled.snapshots[0]);
    let info = snapshotter.stat(top.as_key()).await.unwrap();
    assert_eq!(info.parent, Some(Name::from(&bundle.image().chain_ids()[1])));
    assert_eq!(site.holds().await.snapshots, 3);
}

#[tokio::test]
async fn a_layer_that_links_to_a_file_below_is_applied_onto_its_parent() {
    let bundle = Image::new("linux/amd64")
        .layer(Layer::new().dir("bin", 0o755).file("bin/busybox", "binary"))
        .layer(Layer::new().hardlink("bin/ls", "bin/busybox"))
        .build();
    let site = Site::serving(&bundle);
    site.pull().await.unwrap();
    assert_eq!(site.applier.calls(), 3);
    assert_eq!(site.holds().await, Held { blobs: 4, images: 1, snapshots: 2, ingests: 0, leases: 0 });
}

#[tokio::test]
async fn an_index_gives_the_image_of_the_platform_that_is_asked_for() {
    let amd = three_layers().build();
    let arm = Image::new("linux/arm64").layer(Layer::new().file("arm", "arm")).build();
    let site = Site::serving(&Index::new().bundle(&amd).bundle(&arm).build());
    let options = Pull { platforms: Selection::Best(vec!["linux/arm64".parse().unwrap()]), ..Pull::default() };
    let pulled = site.pull_with(&options).await.unwrap();

    assert_eq!(pulled.snapshots, arm.image().chain_ids());
    assert!(site.remote.fetches(&amd.image().manifest.digest).is_empty());

    let services = site.services().await;
    let chain_id = rootfs::chain_id(&services, &pulled.target, &"linux/arm64".parse().unwrap()).await.unwrap();
    assert_eq!(vec![chain_id], arm.image().chain_ids());

    let all = site.pull_with(&Pull { platforms: Selection::All, ..Pull::default() }).await.unwrap();
    assert_eq!(all.snapshots.len(), 2);
}

#[tokio::test]
async fn an_artifact_is_recorded_without_snapshots() {
    let site = Site::serving(&artifact("application/vnd.test", &[("text/plain", b"one"), ("text/plain", b"two")]));
    let pulled = site.pull().await.unwrap();
    assert!(pulled.snapshots.is_empty());
    assert_eq!(site.holds().await, Held { blobs: 4, images: 1, snapshots: 0, ingests: 0, leases: 0 });
}

#[tokio::test]
async fn metadata_only_leaves_the_layers_where_they_are() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull_with(&Pull { metadata_only: true, ..Pull::default() }).await.unwrap();
    assert_eq!(site.holds().await, Held { blobs: 2, images: 1, snapshots: 0, ingests: 0, leases: 0 });
    assert!(bundle.image().layers.iter().all(|layer| site.remote.fetches(&layer.digest).is_empty()));
}

#[tokio::test]
async fn a_pull_after_a_fetch_unpacks_what_is_here() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull_with(&Pull { unpack: Unpack::No, ..Pull::default() }).await.unwrap();
    assert_eq!(site.holds().await.snapshots, 0);

    let services = site.services().await;
    let name = "registry.test/app:1".parse().unwrap();
    let platform = "linux/amd64".parse().unwrap();
    let key = "view".parse().unwrap();
    let view = rootfs::view(&services, &name, &platform, None, &key, windlass_core::Labels::new()).await;
    let error = view.unwrap_err();
    assert!(error.hint_text().unwrap().contains("dist pull"), "{error:?}");

    let pulled = site.pull().await.unwrap();
    assert_eq!(pulled.totals.downloaded, 0);
    assert_eq!(site.holds().await.snapshots, 3);
    rootfs::view(&services, &name, &platform, None, &key, windlass_core::Labels::new()).await.unwrap();
}

#[tokio::test]
async fn no_more_transfers_run_at_once_than_are_allowed() {
    let mut image = Image::new("linux/amd64");
    for at in 0..12 {
        image = image.layer(Layer::new().file(&format!("file{at}"), format!("{at}")));
    }
    let site = Site::serving(&image.build());
    site.pull_with(&Pull { concurrent_downloads: 3, concurrent_unpacks: 2, ..Pull::default() }).await.unwrap();
    assert!((1..=3).contains(&site.remote.most_at_once()), "{}", site.remote.most_at_once());
    assert!((1..=2).contains(&site.applier.most_at_once()), "{}", site.applier.most_at_once());
}

#[tokio::test]
async fn a_second_pull_at_the_same_time_waits_for_the_bytes_of_the_first() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    let gate = Gate::new();
    site.remote.script(&large.digest, [Fault::Hold(gate.clone())]);

    let progress = Tracker::new();
    let namespace = Namespace::default();
    let options = Pull::default();
    let watch = async {
        let waiting = |tracker: &Tracker| {
            tracker
                .snapshot()
                .iter()
                .any(|object| matches!(object.state, State::Waiting { .. }) && object.id.contains("layer"))
        };
        while !waiting(&progress) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        gate.open();
    };
    let second = async {
        while site.remote.fetches(&large.digest).is_empty() {
            tokio::task::yield_now().await;
        }
        windlass_transfer::pull(&site.host, &namespace, &site.remote, &site.reference, &options, &progress).await
    };
    let (first, second, ()) = tokio::join!(site.pull(), second, watch);
    first.unwrap();
    assert_eq!(second.unwrap().totals.downloaded, 0);
    assert_eq!(site.remote.fetches(&large.digest).len(), 1);
    assert_eq!(site.holds().await, Held { blobs: 5, images: 1, snapshots: 3, ingests: 0, leases: 0 });
}
