//! Pulls that do not keep the compressed bytes of layers.

use windlass_core::Kind;
use windlass_core::content::DROPPED_LABEL;
use windlass_core::remote::ByteRange;
use windlass_core::snapshot::Capabilities;
use windlass_testkit::image::{Bundle, Image, Layer, Tamper};
use windlass_testkit::memory::Fault;
use windlass_transfer::{Content, Pull, Unpack};

use crate::site::{Held, Site, three_layers};

fn dropping() -> Pull {
    Pull { content: Content::Drop, ..Pull::default() }
}

/// Returns the digests that the record of the manifest says were dropped.
async fn dropped(site: &Site, bundle: &Bundle) -> Vec<String> {
    let services = site.services().await;
    let info = services.content.info(&bundle.image().manifest.digest).await.unwrap();
    let dropped = info.labels.iter().filter(|(key, _)| key.starts_with(DROPPED_LABEL));
    dropped.map(|(_, value)| value.to_owned()).collect()
}

fn layers(bundle: &Bundle) -> Vec<String> {
    bundle.image().layers.iter().map(|layer| layer.digest.to_string()).collect()
}

#[tokio::test]
async fn the_bytes_of_layers_are_not_kept_and_the_record_says_which() {
    for rebase in [true, false] {
        let bundle = three_layers().build();
        let site = Site::with(&bundle, Capabilities { rebase });
        let pulled = site.pull_with(&dropping()).await.unwrap();
        assert_eq!(pulled.totals.downloaded, bundle.size());
        assert_eq!(site.holds().await, Held { blobs: 2, images: 1, snapshots: 3, ingests: 0, leases: 0 });
        assert_eq!(dropped(&site, &bundle).await, layers(&bundle));
        site.host.collect(&windlass_core::Namespace::default());
        assert_eq!(site.holds().await.snapshots, 3);

        // What is unpacked is not fetched again.
        assert_eq!(site.pull_with(&dropping()).await.unwrap().totals.downloaded, 0);
        assert_eq!(dropped(&site, &bundle).await, layers(&bundle));

        // Who needs them fetches them.
        let fetch = Pull { unpack: Unpack::No, ..Pull::default() };
        site.pull_with(&fetch).await.unwrap();
        assert_eq!(site.holds().await.blobs, 5);
        assert!(dropped(&site, &bundle).await.is_empty());
    }
}

#[tokio::test]
async fn documents_alone_say_nothing_of_layers_that_were_dropped() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull_with(&Pull { metadata_only: true, ..dropping() }).await.unwrap();
    assert!(dropped(&site, &bundle).await.is_empty());
}

#[tokio::test]
async fn what_is_here_is_unpacked_from_here_and_stays() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull_with(&Pull { unpack: Unpack::No, ..Pull::default() }).await.unwrap();
    let pulled = site.pull_with(&dropping()).await.unwrap();
    assert_eq!(pulled.totals.downloaded, 0);
    assert_eq!(site.holds().await, Held { blobs: 5, images: 1, snapshots: 3, ingests: 0, leases: 0 });
    assert!(dropped(&site, &bundle).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_continued_where_it_stopped() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    site.remote.script(&large.digest, [Fault::Break(65_536), Fault::Truncate(131_072), Fault::NoSeek]);
    let pulled = site.pull_with(&dropping()).await.unwrap();
    let ranges = [ByteRange::from(0), ByteRange::from(65_536), ByteRange::from(131_072)];
    assert_eq!(site.remote.fetches(&large.digest), ranges);
    assert_eq!(pulled.totals.downloaded, bundle.size());
    assert_eq!(site.applier.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn streams_that_break_are_continued_as_long_as_bytes_come_and_those_that_trickle_are_not() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    site.remote.script(&large.digest, (1..=20).map(|time| Fault::Break(time * 9_000)));
    site.pull_with(&dropping()).await.unwrap();
    assert_eq!(site.remote.fetches(&large.digest).len(), 21);

    let site = Site::serving(&bundle);
    site.remote.script(&large.digest, (1..=20).map(|time| Fault::Starve(time * 9_000)));
    assert_eq!(site.pull_with(&dropping()).await.unwrap_err().kind(), Kind::DeadlineExceeded);
    assert_eq!(site.remote.fetches(&large.digest).len(), 5);
    assert_eq!(site.holds().await.images, 0);
}

#[tokio::test]
async fn wrong_bytes_leave_nothing() {
    let bundle = three_layers().build();
    for layer in &bundle.image().layers {
        for fault in [Fault::Corrupt(layer.size - 1), Fault::Corrupt(20), Fault::Append(1)] {
            let site = Site::serving(&bundle);
            site.remote.script(&layer.digest, [fault.clone()]);
            let error = site.pull_with(&dropping()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::DataLoss, "{fault:?}: {error}");
            assert_eq!(site.holds().await, Held::default(), "{fault:?}");
            assert_eq!(site.directories(), 0);
        }
    }
    let site = Site::serving(&three_layers().tamper(Tamper::DiffId(1)).build());
    assert_eq!(site.pull_with(&dropping()).await.unwrap_err().kind(), Kind::DataLoss);
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test]
async fn a_layer_that_needs_the_one_below_passes_a_second_time() {
    let bundle = Image::new("linux/amd64")
        .layer(Layer::new().dir("bin", 0o755).file("bin/busybox", "binary"))
        .layer(Layer::new().hardlink("bin/ls", "bin/busybox"))
        .build();
    let site = Site::serving(&bundle);
    let few = Pull { concurrent_downloads: 1, concurrent_unpacks: 1, ..dropping() };
    site.pull_with(&few).await.unwrap();
    assert_eq!(site.remote.fetches(&bundle.image().layers[1].digest).len(), 2);
    assert_eq!(site.holds().await, Held { blobs: 2, images: 1, snapshots: 2, ingests: 0, leases: 0 });
}
