//! Pulls of what is here already: nothing is written, and whatever is missing is seen.

use windlass_core::field::FieldMask;
use windlass_core::gc;
use windlass_core::image::Image;
use windlass_core::platform::Selection;
use windlass_core::progress::{State, Tracker};
use windlass_core::snapshot::{Key, Name};
use windlass_core::{Kind, Namespace, Services};
use windlass_testkit::image::{self, Bundle, Index, Layer};
use windlass_testkit::memory::SNAPSHOTTER;
use windlass_transfer::{Content, Pull, Unpack};

use crate::site::{Held, Site, three_layers};

async fn recorded(site: &Site) -> Image {
    site.services().await.images.get(&"registry.test/app:1".parse().unwrap()).await.unwrap()
}

/// The name of the topmost snapshot, and its key.
fn top(bundle: &Bundle) -> (Name, Key) {
    let name = Name::from(&bundle.image().chain_ids()[2]);
    (name.clone(), name.as_key().clone())
}

#[tokio::test]
async fn a_pull_of_what_is_here_writes_nothing_and_says_what_is_here() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let first = site.pull().await.unwrap();
    let before = recorded(&site).await;

    let progress = Tracker::new();
    let (namespace, options) = (Namespace::default(), Pull::default());
    let pull = windlass_transfer::pull(&site.host, &namespace, &site.remote, &site.reference, &options, &progress);
    let again = pull.await.unwrap();
    assert_eq!((again.name, again.target, again.snapshots), (first.name, first.target, first.snapshots));
    assert_eq!((again.totals.downloaded, again.totals.reused), (0, bundle.size()));
    assert_eq!(Image { updated_at: before.updated_at, ..recorded(&site).await }, before);
    let objects = progress.snapshot();
    assert_eq!(objects.iter().filter(|object| object.state == State::Exists).count(), 5, "{objects:?}");
}

#[tokio::test]
async fn whatever_of_it_is_missing_is_brought() {
    type Harm = fn(&Bundle, Services) -> futures::future::BoxFuture<'static, ()>;
    let harms: [(&str, Harm, bool); 4] = [
        (
            "a layer",
            |bundle, services| {
                let digest = bundle.image().layers[1].digest.clone();
                Box::pin(async move { services.content.delete(&digest).await.unwrap() })
            },
            true,
        ),
        (
            "the config",
            |bundle, services| {
                let digest = bundle.image().config.digest.clone();
                Box::pin(async move { services.content.delete(&digest).await.unwrap() })
            },
            true,
        ),
        (
            "the topmost snapshot",
            |bundle, services| {
                let (_, key) = top(bundle);
                Box::pin(async move { services.snapshotter(None).unwrap().1.remove(&key).await.unwrap() })
            },
            false,
        ),
        (
            "what keeps the snapshots",
            |bundle, services| {
                let digest = bundle.image().config.digest.clone();
                Box::pin(async move {
                    let mut info = services.content.info(&digest).await.unwrap();
                    info.labels.remove(&gc::snapshot_label(SNAPSHOTTER));
                    services.content.update(&info, &FieldMask::parse(["labels"]).unwrap()).await.unwrap();
                })
            },
            false,
        ),
    ];
    for (what, harm, is_downloaded) in harms {
        let bundle = three_layers().build();
        let site = Site::serving(&bundle);
        site.pull().await.unwrap();
        harm(&bundle, site.services().await).await;

        let pulled = site.pull().await.unwrap();
        assert_eq!(pulled.totals.downloaded > 0, is_downloaded, "{what}");
        site.host.collect(&Namespace::default());
        assert_eq!(site.holds().await, Held { blobs: 5, images: 1, snapshots: 3, ingests: 0, leases: 0 }, "{what}");
        let services = site.services().await;
        let config = services.content.info(&bundle.image().config.digest).await.unwrap();
        let kept = config.labels.get(&gc::snapshot_label(SNAPSHOTTER)).map(str::to_owned);
        assert_eq!(kept, Some(top(&bundle).0.to_string()), "{what}");
    }
}

#[tokio::test]
async fn a_name_that_points_elsewhere_now_is_pulled() {
    let site = Site::serving(&three_layers().build());
    site.pull().await.unwrap();
    let other = image::Image::new("linux/amd64").layer(Layer::new().file("new", "new")).build();
    site.remote.serve(&site.reference, &other);
    assert_eq!(site.pull().await.unwrap().target.digest, other.root.digest);
    assert_eq!(recorded(&site).await.target.digest, other.root.digest);
}

#[tokio::test]
async fn another_platform_is_not_here_because_one_is() {
    let index = Index::new()
        .bundle(&image::Image::new("linux/amd64").layer(Layer::new().file("arch", "amd64")).build())
        .bundle(&image::Image::new("linux/arm64").layer(Layer::new().file("arch", "arm64")).build())
        .build();
    let site = Site::serving(&index);
    let of = |platform: &str| Pull { platforms: Selection::Best(vec![platform.parse().unwrap()]), ..Pull::default() };
    site.pull_with(&of("linux/amd64")).await.unwrap();
    assert_eq!(site.pull_with(&of("linux/amd64")).await.unwrap().totals.downloaded, 0);
    assert!(site.pull_with(&of("linux/arm64")).await.unwrap().totals.downloaded > 0);

    let alone = Site::serving(&three_layers().build());
    alone.pull().await.unwrap();
    let error = alone.pull_with(&of("linux/arm64")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

#[tokio::test]
async fn layers_that_were_not_kept_are_here_for_who_does_not_keep_them() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let dropping = Pull { content: Content::Drop, ..Pull::default() };
    site.pull_with(&dropping).await.unwrap();
    assert_eq!(site.pull_with(&dropping).await.unwrap().totals.downloaded, 0);
    assert!(site.pull_with(&Pull { unpack: Unpack::No, ..Pull::default() }).await.unwrap().totals.downloaded > 0);
    assert_eq!(site.holds().await.blobs, 5);
}
