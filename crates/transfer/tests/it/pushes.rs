//! Pushes and copies over in-memory remotes: what goes, in which order, and what of it is not here.

use std::sync::Arc;

use windlass_core::image::Name;
use windlass_core::platform::Selection;
use windlass_core::progress::{State, Tracker};
use windlass_core::remote::{Fetcher, Pusher, Resolved, Resolver};
use windlass_core::{Kind, Namespace, Reference, Result};
use windlass_testkit::image::{Bundle, Image, Index, Layer, Parts};
use windlass_testkit::memory::{Fault, Remote};
use windlass_transfer::push::{Missing, Object};
use windlass_transfer::{Content, Pull, Push, Pushed, Unpack};

use crate::site::{Site, three_layers};

/// Pushes the image of the site through a resolver.
async fn push_by(site: &Site, resolver: Arc<dyn Resolver>, to: &str, options: &Push) -> Result<Pushed> {
    let services = site.services().await;
    let image = services.images.get(&site.reference.to_string().parse().unwrap()).await.unwrap();
    let (namespace, object, to) = (Namespace::default(), Object::from(&image), to.parse::<Reference>().unwrap());
    windlass_transfer::push(&site.host, &namespace, resolver, &object, &to, options, &Tracker::new()).await
}

async fn push(site: &Site, to: &str, options: &Push) -> Result<Pushed> {
    push_by(site, Arc::new(site.remote.clone()), to, options).await
}

async fn push_elsewhere(site: &Site, elsewhere: &Remote, to: &str) -> Result<Pushed> {
    push_by(site, Arc::new(elsewhere.clone()), to, &Push::default()).await
}

fn two_platforms() -> Bundle {
    Index::new()
        .bundle(&Image::new("linux/amd64").layer(Layer::new().file("a", "amd64")).build())
        .bundle(&Image::new("linux/arm64").layer(Layer::new().file("a", "arm64")).build())
        .build()
}

fn architecture(image: &Parts) -> &str {
    &image.manifest.platform.as_ref().unwrap().architecture
}

fn all() -> Pull {
    Pull { platforms: Selection::All, unpack: Unpack::No, ..Pull::default() }
}

#[tokio::test]
async fn what_is_pushed_is_there_whole_and_its_origin_is_noted() {
    let bundle = two_platforms();
    let site = Site::serving(&bundle);
    site.pull_with(&all()).await.unwrap();
    let elsewhere = Remote::new();
    let pushed = push_elsewhere(&site, &elsewhere, "other.test/x:2").await.unwrap();
    assert_eq!((pushed.uploaded, pushed.mounted, pushed.existing), (bundle.size(), 0, 0));
    assert_eq!(pushed.target.digest, bundle.root.digest);
    assert_eq!(elsewhere.target("other.test/x:2").unwrap().digest, bundle.root.digest);
    for (digest, bytes) in &bundle.blobs {
        assert_eq!(elsewhere.blob(digest).await.as_ref(), Some(bytes));
        let labels = site.services().await.content.info(digest).await.unwrap().labels;
        assert_eq!(labels.get("containerd.io/distribution.source.other.test"), Some("x"));
        assert_eq!(labels.get("containerd.io/distribution.source.registry.test"), Some("app"));
    }
    assert_eq!(site.holds().await.leases, 0);
    let again = push_elsewhere(&site, &elsewhere, "other.test/x:3").await.unwrap();
    assert_eq!((again.uploaded, again.existing), (0, bundle.size()));
    assert_eq!(elsewhere.target("other.test/x:3").unwrap().digest, bundle.root.digest);
}

#[tokio::test]
async fn some_platforms_are_pushed_without_the_others() {
    let bundle = two_platforms();
    let site = Site::serving(&bundle);
    site.pull_with(&all()).await.unwrap();
    let elsewhere = Remote::new();
    let one = |platforms: &[&str]| Push {
        platforms: Selection::Best(platforms.iter().map(|it| it.parse().unwrap()).collect()),
        ..Push::default()
    };
    let push = async |options: &Push, to: &str| push_by(&site, Arc::new(elsewhere.clone()), to, options).await;
    let arm = bundle.images.iter().find(|image| architecture(image) == "arm64").unwrap();
    let pushed = push(&one(&["linux/arm64"]), "other.test/x:arm").await.unwrap();
    assert_eq!(pushed.target.digest, arm.manifest.digest);
    assert_eq!(elsewhere.target("other.test/x:arm").unwrap().digest, arm.manifest.digest);
    assert!(elsewhere.blob(&bundle.root.digest).await.is_none());
    let missing = push(&one(&["linux/s390x"]), "other.test/x:z").await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound, "{missing}");
    assert!(missing.to_string().contains("linux/s390x"), "{missing}");
    assert!(elsewhere.target("other.test/x:z").is_none());
}

#[tokio::test]
async fn several_platforms_of_more_get_an_index_of_their_own() {
    let bundle = Index::new()
        .bundle(&Image::new("linux/amd64").layer(Layer::new().file("a", "amd64")).build())
        .bundle(&Image::new("linux/arm64").layer(Layer::new().file("a", "arm64")).build())
        .bundle(&Image::new("linux/s390x").layer(Layer::new().file("a", "s390x")).build())
        .build();
    let remote = Remote::new();
    let from: Reference = "registry.test/app:1".parse().unwrap();
    remote.serve(&from, &bundle);
    let platforms = Selection::Best(vec!["linux/amd64".parse().unwrap(), "linux/s390x".parse().unwrap()]);
    let options = Push { platforms, ..Push::default() };
    let to = "registry.test/app:two".parse().unwrap();
    let copied = windlass_transfer::copy(&remote, &from, &to, &options, &Tracker::new()).await.unwrap();
    assert_ne!(copied.target.digest, bundle.root.digest);
    let index: serde_json::Value = serde_json::from_slice(&remote.blob(&copied.target.digest).await.unwrap()).unwrap();
    let listed: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(listed, ["amd64", "s390x"]);
    assert_eq!(remote.target("registry.test/app:two").unwrap().digest, copied.target.digest);
}

#[tokio::test]
async fn what_is_not_here_is_named_or_streamed_from_where_it_came() {
    let bundle = two_platforms();
    let site = Site::serving(&bundle);
    site.pull_with(&Pull { platforms: Selection::Best(vec!["linux/amd64".parse().unwrap()]), ..all() }).await.unwrap();
    let before = site.holds().await;
    let other = Remote::new();
    let error = push_elsewhere(&site, &other, "other.test/x:1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.to_string().contains("the image for linux/arm64"), "{error}");
    assert!(error.hint_text().unwrap().contains("--platform"), "{error:?}");
    assert!(other.target("other.test/x:1").is_none());

    let options = Push { missing: Missing::Fetch, ..Push::default() };
    let pushed = push(&site, "registry.test/other:1", &options).await.unwrap();
    // The remote that it came from is the one that it goes to: it has all of it.
    assert_eq!((pushed.uploaded, pushed.existing), (0, bundle.size()));
    assert_eq!(site.holds().await, before);
}

#[tokio::test]
async fn layers_that_were_dropped_are_streamed_without_being_kept() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull_with(&Pull { content: Content::Drop, ..Pull::default() }).await.unwrap();
    let held = site.holds().await;
    let fetches = site.remote.fetch_count();
    let pushed = push(&site, "registry.test/other:1", &Push::default()).await.unwrap();
    assert_eq!(pushed.existing, bundle.size());
    assert_eq!(site.remote.fetch_count(), fetches, "what is there is not read");
    let to = Remote::new();
    let between = Arc::new(Between { from: site.remote.clone(), to: to.clone() });
    let pushed = push_by(&site, between, "other.test/x:1", &Push::default()).await.unwrap();
    assert_eq!(pushed.uploaded, bundle.size());
    for (digest, bytes) in &bundle.blobs {
        assert_eq!(to.blob(digest).await.as_ref(), Some(bytes));
    }
    // Elsewhere there is nobody to ask: the layer is named.
    let error = push_elsewhere(&site, &Remote::new(), "other.test/x:1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert_eq!(site.holds().await, held);
}

#[tokio::test]
async fn a_copy_is_verified_and_goes_on_after_a_cut() {
    let bundle = three_layers().build();
    let (remote, from) = (Remote::new(), "registry.test/app:1".parse::<Reference>().unwrap());
    remote.serve(&from, &bundle);
    let large = bundle.image().layers.iter().max_by_key(|layer| layer.size).unwrap();
    // A remote of its own takes what this one gives.
    let between = Between { from: remote.clone(), to: Remote::new() };
    remote.script(&large.digest, [Fault::Break(50_000), Fault::Truncate(80_000)]);
    let (to, progress) = ("other.test/x:1".parse().unwrap(), Tracker::new());
    let copied = windlass_transfer::copy(&between, &from, &to, &Push::default(), &progress).await.unwrap();
    assert_eq!((copied.uploaded, copied.target.digest), (bundle.size(), bundle.root.digest.clone()));
    let starts: Vec<u64> = remote.fetches(&large.digest).iter().map(|range| range.start).collect();
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert!(starts[1] >= 49_000 && starts[2] > starts[1], "{starts:?}");
    for (digest, bytes) in &bundle.blobs {
        assert_eq!(between.to.blob(digest).await.as_ref(), Some(bytes));
    }
    let done = progress.snapshot().into_iter().filter(|object| object.state == State::Done).count();
    assert_eq!(done, bundle.blobs.len());
    assert_eq!(progress.totals().uploaded, bundle.size());

    let between = Between { from: remote.clone(), to: Remote::new() };
    remote.script(&large.digest, [Fault::Corrupt(7)]);
    let error = windlass_transfer::copy(&between, &from, &to, &Push::default(), &Tracker::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    assert!(between.to.target("other.test/x:1").is_none());
}

/// Reads from one remote and writes to another.
struct Between {
    from: Remote,
    to: Remote,
}

#[async_trait::async_trait]
impl Resolver for Between {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.from.resolve(reference).await
    }

    async fn fetcher(&self, name: &Name) -> Result<Arc<dyn Fetcher>> {
        self.from.fetcher(name).await
    }

    async fn pusher(&self, name: &Name) -> Result<Arc<dyn Pusher>> {
        self.to.pusher(name).await
    }
}

#[tokio::test]
async fn an_image_is_inspected_without_being_brought() {
    let bundle = two_platforms();
    let remote = Remote::new();
    let from: Reference = "registry.test/app:1".parse().unwrap();
    remote.serve(&from, &bundle);
    let inspect = async |selection: Option<&Selection>| {
        windlass_transfer::inspect(&remote, &from, selection, &Tracker::new()).await.map(|it| it.tree)
    };
    let tree = inspect(Some(&Selection::All)).await.unwrap();
    assert_eq!((&tree.descriptor.digest, tree.children.len()), (&bundle.root.digest, 2));
    for (node, image) in tree.children.iter().zip(&bundle.images) {
        assert_eq!(node.descriptor.digest, image.manifest.digest);
        let layers: u64 = image.layers.iter().map(|layer| layer.size).sum();
        assert_eq!(node.total_size, Some(image.manifest.size + image.config.size + layers));
        assert!(node.children[0].config.is_some());
        assert_eq!(node.platform().unwrap().architecture, architecture(image));
    }
    for layer in bundle.images.iter().flat_map(|image| &image.layers) {
        assert!(remote.fetches(&layer.digest).is_empty());
    }
    let none = inspect(Some(&Selection::Best(vec!["linux/s390x".parse().unwrap()]))).await.unwrap_err();
    assert_eq!(none.kind(), Kind::NotFound);
    let arm = inspect(Some(&Selection::Best(vec!["linux/arm64".parse().unwrap()]))).await.unwrap();
    assert_eq!(arm.children.iter().map(|node| node.children.len()).collect::<Vec<_>>(), [0, 2]);
}
