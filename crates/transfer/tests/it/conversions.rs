//! Conversions: what an image is stays, and its layers become others.

use serde_json::{Value, json};
use windlass_core::content::{IngesterExt as _, ProviderExt as _};
use windlass_core::diff::UNCOMPRESSED_LABEL;
use windlass_core::image::Image as Record;
use windlass_core::media_type::Compression;
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::{Descriptor, Kind, Labels, MediaType, Namespace, Platform, Result};
use windlass_testkit::image::{Bundle, Image, Index, Layer, Tamper};
use windlass_transfer::convert::Family;
use windlass_transfer::{Convert, Converted};

use crate::site::{Site, three_layers};

const OTHER: &str = "linux/s390x";

fn options() -> Convert {
    Convert { platforms: Selection::default(), compression: None, family: None }
}

async fn convert(site: &Site, options: &Convert) -> Result<Converted> {
    let source = site.services().await.images.get(&site.reference.to_string().parse().unwrap()).await.unwrap();
    convert_of(site, &source, options).await
}

async fn convert_of(site: &Site, source: &Record, options: &Convert) -> Result<Converted> {
    let name = "converted:1".parse().unwrap();
    windlass_transfer::convert(&site.host, &Namespace::default(), source, &name, options, &Tracker::new()).await
}

async fn document(site: &Site, descriptor: &Descriptor) -> Value {
    let bytes = site.services().await.content.read_all(descriptor, 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn two_platforms() -> Bundle {
    let image = |platform: &str| Image::new(platform).layer(Layer::new().file("platform", platform)).build();
    Index::new().bundle(&image(&Platform::host().to_string())).bundle(&image(OTHER)).build()
}

#[tokio::test]
async fn layers_are_compressed_anew_and_the_config_stays() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull().await.unwrap();
    for (compression, media_type) in [
        (Compression::Zstd, MediaType::OCI_LAYER_ZSTD),
        (Compression::None, MediaType::OCI_LAYER),
        (Compression::Gzip, MediaType::OCI_LAYER_GZIP),
    ] {
        let converted = convert(&site, &Convert { compression: Some(compression), ..options() }).await.unwrap();
        let manifest = document(&site, &converted.target).await;
        assert_eq!(manifest["config"]["digest"], json!(bundle.image().config.digest));
        let content = site.services().await.content;
        for (layer, diff_id) in manifest["layers"].as_array().unwrap().iter().zip(&bundle.image().diff_ids) {
            assert_eq!(layer["mediaType"], media_type);
            let layer: Descriptor = serde_json::from_value(layer.clone()).unwrap();
            content.verify(&layer).await.unwrap();
            let labels = content.info(&layer.digest).await.unwrap().labels;
            if compression != Compression::Gzip {
                assert_eq!(labels.get(UNCOMPRESSED_LABEL), Some(diff_id.to_string().as_str()));
            }
        }
        assert_eq!(site.holds().await.leases, 0);
    }
    site.host.collect(&Namespace::default());
    let same = convert(&site, &Convert { compression: Some(Compression::Gzip), ..options() }).await.unwrap();
    assert_eq!((same.target.digest, same.layers), (bundle.root.digest, 0), "what is like that stays");
}

#[tokio::test]
async fn an_index_keeps_the_platforms_that_are_wanted() {
    let bundle = two_platforms();
    let site = Site::serving(&bundle);
    site.pull_with(&windlass_transfer::Pull { platforms: Selection::All, ..Default::default() }).await.unwrap();
    let zstd = |platforms| Convert { platforms, compression: Some(Compression::Zstd), family: Some(Family::Docker) };
    for (platforms, manifests) in
        [(Selection::All, 2), (Selection::default(), 1), (Selection::Best(vec![OTHER.parse().unwrap()]), 1)]
    {
        let converted = convert(&site, &zstd(platforms)).await.unwrap();
        assert_eq!(converted.target.media_type.as_str(), MediaType::DOCKER_LIST);
        let index = document(&site, &converted.target).await;
        assert_eq!(index["mediaType"], MediaType::DOCKER_LIST);
        assert_eq!(index["manifests"].as_array().unwrap().len(), manifests);
        assert_eq!(index["manifests"][0]["mediaType"], MediaType::DOCKER_MANIFEST);
        assert!(index["manifests"][0]["platform"]["os"].is_string(), "{index}");
    }
    let none = convert(&site, &zstd(Selection::Best(vec!["linux/riscv64".parse().unwrap()]))).await.unwrap_err();
    assert_eq!(none.kind(), Kind::NotFound);
    site.host.collect(&Namespace::default());
    // Both images, and the converted one for the other platform.
    assert_eq!(site.holds().await.blobs, bundle.blobs.len() + 3);
}

#[tokio::test]
async fn what_is_not_known_stays_in_documents() {
    let site = Site::serving(&three_layers().build());
    let content = site.services().await.content;
    let layer = Layer::new().file("a", "1").encode(Compression::Gzip);
    let config = json!({ "os": "linux", "architecture": "amd64", "history": [{ "created_by": "somebody" }],
        "rootfs": { "diff_ids": [layer.diff_id] } });
    let mut blobs = Vec::new();
    for (media_type, bytes) in
        [(MediaType::OCI_CONFIG, config.to_string().into_bytes()), (MediaType::OCI_LAYER_GZIP, layer.bytes.to_vec())]
    {
        let descriptor = Descriptor::of(media_type, &bytes);
        content.write_blob(&descriptor, bytes.into(), Labels::new()).await.unwrap();
        blobs.push(json!(descriptor));
    }
    blobs[1]["annotations"] = json!({ "kept": "1", "containerd.io/snapshot/stargz/toc.digest": "gone" });
    let manifest = json!({ "schemaVersion": 2, "config": blobs[0], "layers": [blobs[1]], "unknown": [1],
        "annotations": { "a": "b" } });
    let bytes = manifest.to_string().into_bytes();
    let target = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
    content.write_blob(&target, bytes.into(), Labels::new()).await.unwrap();
    let source = Record::new("source:1".parse().unwrap(), target);
    let converted = convert_of(&site, &source, &Convert { compression: Some(Compression::Zstd), ..options() }).await;
    let converted = document(&site, &converted.unwrap().target).await;
    for key in ["unknown", "annotations", "config", "schemaVersion"] {
        assert_eq!(converted[key], manifest[key], "{key}");
    }
    assert_eq!(converted["layers"][0]["annotations"], json!({ "kept": "1" }));
    assert!(converted.get("mediaType").is_none());
}

#[tokio::test]
async fn a_layer_that_is_not_the_config_s_is_refused_and_nothing_is_left() {
    let bundle = three_layers().tamper(Tamper::DiffId(1)).build();
    let site = Site::serving(&bundle);
    site.pull_with(&windlass_transfer::Pull { unpack: windlass_transfer::Unpack::No, ..Default::default() })
        .await
        .unwrap();
    let before = site.holds().await;
    let error = convert(&site, &Convert { compression: Some(Compression::Zstd), ..options() }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error:?}");
    assert_eq!(site.holds().await, before);
}
