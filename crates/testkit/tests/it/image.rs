//! Images made to order are what the contract's parsers and appliers understand.

use windlass_core::content::IngesterExt as _;
use windlass_core::diff::{Applied, Applier as _, Whiteouts};
use windlass_core::document::{ImageConfig, Index, Manifest};
use windlass_core::media_type::{Compression, Role};
use windlass_core::snapshot::Snapshotter as _;
use windlass_core::{Digest, Kind, Labels};
use windlass_testkit::image::{self, Bundle, Flavour, Image, Layer, Tamper};
use windlass_testkit::memory;
use windlass_testkit::mounted::Mounted;

fn base() -> Layer {
    Layer::new().dir("etc", 0o755).file("etc/one", b"1").file("etc/two", b"2").hardlink("etc/again", "etc/one")
}

fn two_layers() -> Image {
    Image::new("linux/arm64").layer(base()).layer(Layer::new().whiteout("etc/one").file("top", b"t"))
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    assert_eq!(two_layers().build().root, two_layers().build().root);
    assert_ne!(two_layers().build().root, two_layers().flavour(Flavour::Docker).build().root);
}

#[test]
fn manifest_and_config_are_what_the_contract_parses() {
    for flavour in [Flavour::Oci, Flavour::Docker] {
        let built = two_layers().flavour(flavour).build();
        let manifest = Manifest::parse(&built.root, &built.blobs[&built.root.digest]).unwrap();
        assert!(manifest.is_image());
        assert_eq!((&manifest.config, &manifest.layers), (&built.image().config, &built.image().layers));
        let config = ImageConfig::parse(&manifest.config, &built.blobs[&manifest.config.digest]).unwrap();
        assert_eq!(config.rootfs.diff_ids, built.image().diff_ids);
        assert_eq!(config.platform().unwrap().to_string(), "linux/arm64/v8");
        for layer in &manifest.layers {
            assert_eq!(layer.media_type.role(), Role::Layer(Compression::Gzip));
            assert_eq!(Digest::sha256(&built.blobs[&layer.digest]), layer.digest);
        }
    }
}

#[test]
fn an_index_has_the_platforms_of_its_images() {
    let images = ["linux/amd64", "linux/arm/v7"].map(|platform| Image::new(platform).layer(base()).build());
    let index = image::Index::new().bundle(&images[0]).bundle(&images[1]).build();
    let parsed = Index::parse(&index.root, &index.blobs[&index.root.digest]).unwrap();
    let platforms: Vec<_> = parsed.manifests.iter().map(|m| m.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm/v7"]);
    assert_eq!(index.blobs.len(), 6, "the layer is there once");
}

#[test]
fn what_is_wrong_is_only_what_was_asked_for() {
    let right = two_layers().build();
    let wrong = |tamper: Tamper| two_layers().tamper(tamper).build();
    assert_ne!(wrong(Tamper::DiffId(0)).image().diff_ids[0], right.image().diff_ids[0]);
    assert_eq!(wrong(Tamper::DiffId(0)).image().diff_ids[1], right.image().diff_ids[1]);
    assert_eq!(wrong(Tamper::MissingDiffId).image().diff_ids.len(), 1);
    assert_eq!(wrong(Tamper::LayerSize(1, 7)).image().layers[1].size, 7);
    let served_wrong =
        |bundle: &Bundle| bundle.blobs.iter().filter(|(digest, bytes)| Digest::sha256(bytes) != **digest).count();
    assert_eq!(served_wrong(&right), 0);
    assert_eq!(served_wrong(&wrong(Tamper::LayerDigest(0))), 1);
    assert_eq!(served_wrong(&wrong(Tamper::ConfigDigest)), 1);
    assert_eq!(served_wrong(&wrong(Tamper::LayerBytes(0))), 0);
    let ambiguous = wrong(Tamper::Ambiguous);
    let parsed = Manifest::parse(&ambiguous.root, &ambiguous.blobs[&ambiguous.root.digest]);
    assert_eq!(parsed.unwrap_err().kind(), Kind::FailedPrecondition);
    let schema1 = image::schema1("library/redis", "7");
    let parsed = Manifest::parse(&schema1.root, &schema1.blobs[&schema1.root.digest]);
    assert_eq!(parsed.unwrap_err().kind(), Kind::Unimplemented);
}

#[test]
fn an_artifact_is_no_image() {
    let artifact = image::artifact("application/vnd.example", &[("text/plain", b"hello")]);
    let manifest = Manifest::parse(&artifact.root, &artifact.blobs[&artifact.root.digest]).unwrap();
    assert!(!manifest.is_image());
    assert_eq!(manifest.layers[0].media_type.role(), Role::Opaque);
}

#[test]
fn a_layout_holds_several_tags() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (two_layers().build(), two_layers().flavour(Flavour::Docker).build());
    one.write_layout(directory.path(), "one").unwrap();
    one.write_layout(directory.path(), "two").unwrap();
    two.write_layout(directory.path(), "two").unwrap();
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2);
    assert_eq!(manifests[1]["digest"], two.root.digest.to_string());
    assert!(directory.path().join("blobs/sha256").join(one.root.digest.hex()).exists());
    assert!(directory.path().join("oci-layout").exists());
}

#[tokio::test]
async fn layers_of_every_compression_are_applied() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let directory = tempfile::tempdir().unwrap();
        let snapshotter = memory::Snapshotter::new(directory.path(), windlass_core::snapshot::Capabilities::default());
        let encoded = base().encode(compression);
        let built = Image::new("linux/amd64").encoded_layer(encoded.clone()).build();
        let layer = &built.image().layers[0];
        let content = memory::Content::default();
        content.write_blob(layer, encoded.bytes.clone(), Labels::new()).await.unwrap();
        let mounts = snapshotter.prepare(&"k".parse().unwrap(), None, Labels::new()).await.unwrap();
        let applier = memory::Applier::new();
        let applied = applier.apply(&content, layer, &mounts, Whiteouts::AsMounted, None).await.unwrap();
        let size = base().tar().len() as u64;
        assert_eq!(applied, Applied::Complete { diff_id: encoded.diff_id, size });
        assert_eq!(Mounted::of(&mounts).unwrap().read("etc/again").unwrap(), b"1");
    }
}
