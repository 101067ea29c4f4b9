//! What interrupted pulls left: who goes on with it, and what does not take it away.

use windlass_core::gc::Deletion;
use windlass_core::lease::{Options, Resource, ResourceKind};
use windlass_core::platform::Selection;
use windlass_core::room::Free;
use windlass_core::{Descriptor, Kind, Labels, Namespace};
use windlass_testkit::image::{Bundle, Image, Index, Layer};
use windlass_testkit::memory::{Fault, Gate};
use windlass_transfer::pull::{INTERRUPTED_FROM_LABEL, INTERRUPTED_LABEL, LEASE_LABEL};
use windlass_transfer::{Pull, Unpack};

use crate::site::{Held, Site, three_layers};

/// How much of the large layer is here when the first pull stops.
const HERE: u64 = 100_000;

/// An index of two platforms, and a site where the pull of the first of them was interrupted in its large layer.
async fn interrupted() -> (Site, Descriptor) {
    let amd = three_layers().build();
    let arm = arm();
    let [_, large, _] = amd.image().layers.as_slice() else { panic!("three layers") };
    let site = Site::serving(&Index::new().bundle(&amd).bundle(&arm).build());
    stop(&site, large).await;
    (site, large.clone())
}

fn arm() -> Bundle {
    Image::new("linux/arm64").layer(Layer::new().file("arm", "arm")).build()
}

async fn stop(site: &Site, large: &Descriptor) {
    let away = std::iter::repeat_n(Fault::Fail(Kind::Unavailable), 4);
    site.remote.script(&large.digest, [Fault::Break(HERE)].into_iter().chain(away));
    assert_eq!(site.fail().await.kind(), Kind::Unavailable);
}

/// Collects garbage, and checks that nothing is lost: only what the large layer lacks is downloaded.
async fn goes_on(site: &Site, large: &Descriptor) {
    site.host.collect(&Namespace::default());
    let pulled = site.pull().await.unwrap();
    assert_eq!(pulled.totals.downloaded, large.size - HERE);
    assert_eq!(site.holds().await.leases, 0, "what it kept is recorded");
}

fn platform(name: &str) -> Pull {
    Pull { platforms: Selection::Best(vec![name.parse().unwrap()]), ..Pull::default() }
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_cannot_begin_takes_nothing_away() {
    let (site, large) = interrupted().await;
    let snapshotter = Pull { snapshotter: Some("nope".to_owned()), ..Pull::default() };
    for options in [platform("linux/typo"), snapshotter] {
        let error = site.pull_with(&options).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
    let full = || Some(Free { filesystem: "/dev/a".to_owned(), directory: "/host".to_owned(), bytes: 0, inodes: None });
    site.host.room().limit(full(), full());
    assert_eq!(site.fail().await.kind(), Kind::ResourceExhausted);
    site.host.room().limit(None, None);
    assert_eq!(site.holds().await.leases, 1);
    goes_on(&site, &large).await;
}

#[tokio::test(start_paused = true)]
async fn a_pull_of_less_or_of_another_platform_takes_nothing_away() {
    let (site, large) = interrupted().await;
    for options in [Pull { metadata_only: true, ..Pull::default() }, platform("linux/arm64")] {
        site.pull_with(&options).await.unwrap();
        assert_eq!(site.holds().await.leases, 1);
    }
    goes_on(&site, &large).await;
}

#[tokio::test(start_paused = true)]
async fn damaged_data_of_another_platform_take_nothing_away() {
    let (site, large) = interrupted().await;
    let arm = arm();
    site.remote.script(&arm.image().layers.first().unwrap().digest, [Fault::Corrupt(1)]);
    let error = site.pull_with(&platform("linux/arm64")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    goes_on(&site, &large).await;
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_went_on_and_fails_keeps_what_there_was_unless_data_are_damaged() {
    let (site, large) = interrupted().await;
    site.remote.script(&large.digest, [Fault::Fail(Kind::NotFound)]);
    assert_eq!(site.fail().await.kind(), Kind::NotFound);
    assert_eq!((site.holds().await.leases, site.holds().await.ingests), (1, 1));
    goes_on(&site, &large).await;

    let (site, large) = interrupted().await;
    site.remote.script(&large.digest, [Fault::Append(1), Fault::Append(1)]);
    assert_eq!(site.fail().await.kind(), Kind::DataLoss);
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test(start_paused = true)]
async fn what_a_pull_found_here_it_holds_itself() {
    let (site, large) = interrupted().await;
    let gate = Gate::new();
    site.remote.script(&large.digest, [Fault::Hold(gate.clone())]);
    let fetches = site.remote.fetches(&large.digest).len();
    let other = async {
        while site.remote.fetches(&large.digest).len() == fetches {
            tokio::task::yield_now().await;
        }
        // Another pull gave up what was kept.
        let services = site.services().await;
        let filter = format!("labels.\"{INTERRUPTED_LABEL}\"").parse().unwrap();
        for lease in services.leases.list(&[filter]).await.unwrap() {
            services.leases.delete(&lease.id, Deletion::Synchronous).await.unwrap();
        }
        gate.open();
    };
    let before = site.holds().await.blobs;
    let (pulled, ()) = tokio::join!(site.pull(), other);
    assert_eq!(pulled.unwrap().totals.downloaded, large.size - HERE);
    assert_eq!(site.holds().await, Held { blobs: before + 1, images: 1, snapshots: 3, ingests: 0, leases: 0 });
}

#[tokio::test]
async fn a_lease_that_is_being_filled_is_left_alone() {
    let bundle: Bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let leases = site.services().await.leases;
    let reference = site.reference.to_string();
    let running = Options { labels: Labels::new().with(LEASE_LABEL, &*reference), ..Options::default() };
    let running = leases.create(running).await.unwrap().id;
    let labels = Labels::new().with(INTERRUPTED_LABEL, &*reference).with(INTERRUPTED_FROM_LABEL, running.as_str());
    let filled = leases.create(Options { labels, ..Options::default() }).await.unwrap().id;
    let blob = Resource { kind: ResourceKind::Content, id: bundle.root.digest.to_string() };
    leases.add_resource(&filled, &blob).await.unwrap();

    let content = Pull { unpack: Unpack::No, ..Pull::default() };
    site.pull_with(&content).await.unwrap();
    assert_eq!(leases.resources(&filled).await.unwrap(), [blob]);
    leases.delete(&running, Deletion::Background).await.unwrap();
    site.pull_with(&content).await.unwrap();
    assert_eq!(leases.resources(&filled).await.unwrap_err().kind(), Kind::NotFound);
}
