//! Plans: what is decided before anything large moves.

use windlass_core::Kind;
use windlass_core::platform::Selection;
use windlass_testkit::image::{Image, Index, Layer};
use windlass_transfer::Pull;

use crate::site::{Held, Site, three_layers};

#[tokio::test]
async fn a_plan_lists_every_blob_once_and_chains_the_layers() {
    let layer = Layer::new().file("same", "same");
    let bundle = Image::new("linux/amd64").layer(&layer).layer(&layer).build();
    let site = Site::serving(&bundle);
    let plan = site.plan(&Pull::default()).await.unwrap();

    let image = bundle.image();
    assert_eq!(plan.target, bundle.root);
    assert_eq!(plan.images.len(), 1);
    let layers = &plan.images[0].layers;
    assert_eq!(layers.iter().map(|layer| layer.chain_id.clone()).collect::<Vec<_>>(), image.chain_ids());
    assert_eq!(layers[0].parent, None);
    assert_eq!(layers[1].parent.as_ref(), Some(&image.chain_ids()[0]));
    let blobs: Vec<_> = plan.blobs.iter().map(|blob| blob.descriptor.digest.clone()).collect();
    assert_eq!(blobs, [image.config.digest.clone(), image.layers[0].digest.clone()]);
    assert_eq!(plan.missing_bytes(), image.layers[0].size);
    assert_eq!(plan.images[0].platform, Some("linux/amd64".parse().unwrap()));
}

#[tokio::test]
async fn a_plan_records_nothing_and_says_what_is_here() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.plan(&Pull::default()).await.unwrap();
    site.host.collect(&windlass_core::Namespace::default());
    assert_eq!(site.holds().await, Held::default());

    site.pull().await.unwrap();
    let plan = site.plan(&Pull::default()).await.unwrap();
    assert!(plan.blobs.iter().all(|blob| blob.present));
    assert_eq!(plan.missing_bytes(), 0);
}

#[tokio::test]
async fn layers_that_two_images_share_are_unpacked_once() {
    let base = Layer::new().file("base", "base");
    let image =
        |platform: &str, top: &str| Image::new(platform).layer(&base).layer(Layer::new().file(top, top)).build();
    let (amd, arm) = (image("linux/amd64", "amd"), image("linux/arm64", "arm"));
    let site = Site::serving(&Index::new().bundle(&amd).bundle(&arm).build());
    let plan = site.plan(&Pull { platforms: Selection::All, ..Pull::default() }).await.unwrap();
    assert_eq!(plan.images.len(), 2);
    assert_eq!(plan.layers().len(), 3);
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_named_with_those_that_are() {
    let amd = three_layers().build();
    let arm = Image::new("linux/arm64").layer(Layer::new().file("arm", "arm")).build();
    let wanted =
        |platform: &str| Pull { platforms: Selection::Best(vec![platform.parse().unwrap()]), ..Pull::default() };
    let index = Index::new().bundle(&amd).bundle(&arm).build();
    for bundle in [&index, &amd] {
        let site = Site::serving(bundle);
        let error = site.plan(&wanted("linux/s390x")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("linux/s390x"), "{error}");
        assert!(error.hint_text().unwrap().contains("linux/amd64"), "{error:?}");
    }
}

#[tokio::test]
async fn a_nested_index_is_searched_too() {
    let amd = three_layers().build();
    let inner = Index::new().bundle(&amd).build();
    let site = Site::serving(&Index::new().bundle(&inner).build());
    let plan =
        site.plan(&Pull { platforms: Selection::Best(vec!["linux/amd64".parse().unwrap()]), ..Pull::default() }).await;
    assert_eq!(plan.unwrap().images.len(), 1);
}
