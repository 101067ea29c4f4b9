//! Layers that are unpacked while they arrive.

use std::time::Duration;

use windlass_core::Kind;
use windlass_core::progress::{State, Tracker};
use windlass_core::snapshot::Capabilities;
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::memory::{Fault, Gate};
use windlass_transfer::{Parts, Pull};

use crate::site::{Held, Site, noise, three_layers};

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_layer_is_unpacked_before_its_last_byte_is_here() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    let gate = Gate::new();
    site.remote.script(&large.digest, [Fault::HoldAfter(100_000, gate.clone())]);
    let options = Pull { concurrent_unpacks: 3, ..Pull::default() };
    let progress = Tracker::new();
    let namespace = windlass_core::Namespace::default();
    let pull = windlass_transfer::pull(&site.host, &namespace, &site.remote, &site.reference, &options, &progress);
    let watch = async {
        until(|| site.applier.calls() == 3).await;
        let both = || {
            let shown = progress.snapshot();
            let shown = shown.iter().find(|object| object.id == large.ingest_ref().as_str()).unwrap();
            matches!((&shown.state, &shown.unpack), (State::Fetching { .. }, Some(State::Unpacking { .. })))
        };
        // The applier of the tests says how far it is when it has read everything.
        until(|| both() || site.remote.bytes_sent() > 100_000).await;
        assert!(site.services().await.content.info(&large.digest).await.is_err(), "it is not here yet");
        gate.open();
    };
    let (pulled, ()) = tokio::join!(pull, watch);
    pulled.unwrap();
    assert_eq!(site.holds().await, Held { blobs: 5, images: 1, snapshots: 3, ingests: 0, leases: 0 });
}

#[tokio::test]
async fn a_wrong_last_byte_leaves_no_snapshot_no_record_and_no_directory() {
    for rebase in [true, false] {
        let bundle = three_layers().build();
        let site = Site::with(&bundle, Capabilities { rebase });
        for layer in &bundle.image().layers {
            site.remote.script(&layer.digest, [Fault::Corrupt(layer.size - 1)]);
            let error = site.fail().await;
            assert_eq!(error.kind(), Kind::DataLoss, "{error}");
            assert!(error.to_string().contains(&layer.digest.to_string()), "{error}");
            assert_eq!(site.holds().await, Held::default());
            assert_eq!(site.directories(), 0);
        }
        site.pull().await.unwrap();
    }
}

#[tokio::test]
async fn an_unpacking_goes_on_behind_the_download_that_continues_a_broken_one() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    site.remote.script(&large.digest, [Fault::Break(65_536), Fault::Break(131_072)]);
    site.pull().await.unwrap();
    assert_eq!(site.applier.calls(), 3, "each layer was applied once");
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_pull_left_damaged_is_fetched_and_unpacked_again() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    let services = site.services().await;
    let mut writer = services.content.writer(&large.ingest_ref(), large.into()).await.unwrap();
    writer.write(vec![7; 100_000].into()).await.unwrap();
    drop(writer);
    site.pull().await.unwrap();
    assert_eq!(site.remote.fetches(&large.digest).len(), 2);
    assert_eq!(site.holds().await.snapshots, 3);
}

#[tokio::test]
async fn few_places_and_a_short_lead_let_everything_pass() {
    let mut image = Image::new("linux/amd64").layer(Layer::new().dir("bin", 0o755).file("bin/busybox", "binary"));
    for at in 0..12 {
        image = image.layer(Layer::new().file(&format!("file{at}"), noise(50_000 + at)));
        // One that has to wait for the layer below, and reads again then.
        image = image.layer(Layer::new().hardlink(&format!("bin/{at}"), "bin/busybox"));
    }
    let bundle = image.build();
    for rebase in [true, false] {
        for (concurrent_downloads, concurrent_unpacks) in [(1, 1), (1, 4), (4, 1), (3, 2)] {
            let site = Site::with(&bundle, Capabilities { rebase });
            site.remote.give_lanes(2);
            let parts = Parts { threshold: 20_000, size: 10_000, at_once: 3 };
            let options = Pull { concurrent_downloads, concurrent_unpacks, lead: 10, parts, ..Pull::default() };
            let pulled = tokio::time::timeout(Duration::from_mins(1), site.pull_with(&options)).await;
            pulled.expect("nobody waits in a circle").unwrap();
            assert_eq!(site.holds().await.snapshots, bundle.image().layers.len());
        }
    }
}
