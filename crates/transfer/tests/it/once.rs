//! Pulls at the same time that share layers: each layer is downloaded and unpacked once.

use std::time::Duration;

use windlass_core::progress::{State, Tracker};
use windlass_core::{Namespace, Reference};
use windlass_testkit::image::{Bundle, Image, Layer};
use windlass_testkit::memory::{Fault, Gate};
use windlass_transfer::{Pull, pull};

use crate::site::{Site, noise};

/// Two images, of which the second one stands on the first.
fn two() -> (Bundle, Bundle) {
    let base = || {
        Image::new("linux/amd64")
            .layer(Layer::new().file("etc/base", "base"))
            .layer(Layer::new().file("noise", noise(200_000)))
    };
    (base().build(), base().layer(Layer::new().file("etc/top", "top")).build())
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn waits_for(tracker: &Tracker, whom: &str) -> bool {
    let waits = |state: &State| matches!(state, State::Waiting { reason } if reason.contains(whom));
    tracker.snapshot().iter().any(|it| waits(&it.state) || it.unpack.as_ref().is_some_and(waits))
}

#[tokio::test]
async fn layers_that_two_pulls_share_are_downloaded_and_unpacked_once() {
    let (first, second) = two();
    let site = Site::serving(&first);
    let other: Reference = "registry.test/other:1".parse().unwrap();
    site.remote.serve(&other, &second);
    let large = &first.image().layers[1];
    let gate = Gate::new();
    site.remote.script(&large.digest, [Fault::HoldAfter(100_000, gate.clone())]);

    let (namespace, progress, options) = (Namespace::default(), Tracker::new(), Pull::default());
    let later = async {
        until(|| site.applier.calls() == 2).await;
        pull(&site.host, &namespace, &site.remote, &other, &options, &progress).await
    };
    let watch = async {
        until(|| waits_for(&progress, "the pull of registry.test/app:1")).await;
        // The layer that is on its way is neither downloaded nor unpacked a second time; the one on top is.
        until(|| site.applier.calls() == 3).await;
        gate.open();
    };
    let (one, two, ()) = tokio::join!(site.pull(), later, watch);
    one.unwrap();
    two.unwrap();
    assert_eq!(site.applier.calls(), 3);
    assert_eq!(site.remote.fetches(&large.digest).len(), 1);
    assert_eq!(site.holds().await.snapshots, 3);
    assert_eq!(site.holds().await.images, 2);
}

#[tokio::test]
async fn when_a_pull_is_given_up_the_one_that_waits_for_it_goes_on() {
    let (first, second) = two();
    let site = Site::serving(&first);
    let other: Reference = "registry.test/other:1".parse().unwrap();
    site.remote.serve(&other, &second);
    let large = &first.image().layers[1];
    site.remote.script(&large.digest, [Fault::HoldAfter(100_000, Gate::new())]);

    let (namespace, progress, options) = (Namespace::default(), Tracker::new(), Pull::default());
    let first_dies = async {
        tokio::select! {
            _ = site.pull() => panic!("it waits for ever"),
            () = until(|| {
                site.remote.bytes_sent() > 100_000 && waits_for(&progress, "the pull of registry.test/app:1")
            }) => {}
        }
    };
    let later = async {
        until(|| site.applier.calls() == 2).await;
        pull(&site.host, &namespace, &site.remote, &other, &options, &progress).await
    };
    let ((), two) = tokio::join!(first_dies, later);
    let pulled = two.unwrap();
    assert!(pulled.totals.downloaded < second.size() - 90_000, "it goes on where the other one was");
    assert_eq!(site.remote.fetches(&large.digest).len(), 2);
    assert_eq!(site.holds().await.images, 1);
}
