//! What is attached to an image, what a descriptor brings along, and what is no image.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use windlass_core::gc::Deletion;
use windlass_core::{Descriptor, Kind, MediaType};
use windlass_testkit::image::{Bundle, Signer, artifact, artifact_of, signatures};
use windlass_transfer::{Content, Pull, Referrers};

use crate::site::{Held, Site, three_layers};

const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.example.signature";

/// An image with a list of parts and a signature, each an artifact of three blobs, one of which all share.
fn site() -> (Site, Bundle) {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let of = |kind: &str, content: &[u8]| artifact_of(kind, &bundle.root, &[("text/plain", content)]);
    site.remote.attach(&bundle.root.digest, SBOM, &of(SBOM, b"parts"));
    // Its content looks like a layer, and is none.
    let signature = artifact_of(SIGNATURE, &bundle.root, &[(MediaType::OCI_LAYER_GZIP, b"no layer")]);
    site.remote.attach(&bundle.root.digest, SIGNATURE, &signature);
    (site, bundle)
}

fn with(referrers: Referrers) -> Pull {
    Pull { referrers, ..Pull::default() }
}

#[tokio::test]
async fn what_is_attached_comes_along_and_goes_with_the_image() {
    let (site, bundle) = site();
    let all = Pull { content: Content::Drop, ..with(Referrers::All) };
    site.pull_with(&all).await.unwrap();
    // The layers were dropped, and what is attached was not: two manifests, two contents, the empty config.
    let held = Held { blobs: 2 + 5, images: 1, snapshots: 3, ingests: 0, leases: 0 };
    assert_eq!(site.holds().await, held);
    let services = site.services().await;
    let labels = services.content.info(&bundle.root.digest).await.unwrap().labels;
    assert_eq!(labels.iter().filter(|(key, _)| key.starts_with("containerd.io/gc.ref.content.r.")).count(), 2);
    site.host.collect(&windlass_core::Namespace::default());
    assert_eq!(site.holds().await, held);
    services.images.delete(&"registry.test/app:1".parse().unwrap(), Deletion::Synchronous).await.unwrap();
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test]
async fn only_what_is_wanted_comes_along() {
    let (site, _) = site();
    site.pull().await.unwrap();
    assert_eq!(site.holds().await.blobs, 5);
    let plan = site.plan(&with(Referrers::Of(vec![SBOM.to_owned(), "other".to_owned()]))).await.unwrap();
    assert_eq!(plan.attached.len(), 1);
    site.host.collect(&windlass_core::Namespace::default());
    assert_eq!(site.holds().await.blobs, 5);
    site.pull_with(&with(Referrers::Of(vec![SBOM.to_owned()]))).await.unwrap();
    assert_eq!(site.holds().await.blobs, 8);
    site.pull_with(&with(Referrers::Of(vec!["other".to_owned()]))).await.unwrap();
    assert_eq!(site.holds().await.blobs, 8, "what came before is kept");
}

#[tokio::test]
async fn what_is_attached_and_cannot_be_had_leaves_nothing() {
    let (site, bundle) = site();
    let broken = artifact_of(SBOM, &bundle.root, &[("text/plain", b"missing")]);
    site.remote.attach(&bundle.root.digest, SBOM, &broken);
    site.remote.withdraw(&broken.image().layers[0].digest);
    let error = site.pull_with(&with(Referrers::All)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(site.holds().await, Held::default());
}

/// Changes the manifest of an image, and serves that.
fn changed(bundle: &Bundle, change: impl FnOnce(&mut Value)) -> Bundle {
    let mut bundle = bundle.clone();
    let bytes = bundle.blobs.remove(&bundle.root.digest).unwrap();
    let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut manifest);
    let bytes = bytes::Bytes::from(manifest.to_string());
    bundle.root = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
    bundle.blobs.insert(bundle.root.digest.clone(), bytes);
    bundle
}

#[tokio::test]
async fn inlined_content_is_not_fetched_and_wrong_inlined_content_is() {
    let bundle = three_layers().build();
    let image = bundle.image().clone();
    let (layer, config) = (&image.layers[0], &image.config);
    let data = |descriptor: &Descriptor| STANDARD.encode(&bundle.blobs[&descriptor.digest]);
    let inlined = changed(&bundle, |manifest| {
        manifest["layers"][0]["data"] = json!(data(layer));
        manifest["config"]["data"] = json!(data(config));
        // Another layer's bytes.
        manifest["layers"][2]["data"] = json!(data(layer));
    });
    let site = Site::serving(&inlined);
    // Nobody has them but the manifest.
    site.remote.withdraw(&layer.digest);
    site.remote.withdraw(&config.digest);
    site.pull().await.unwrap();
    assert!(site.remote.fetches(&layer.digest).is_empty() && site.remote.fetches(&config.digest).is_empty());
    assert_eq!(site.remote.fetches(&image.layers[2].digest).len(), 1);
    assert_eq!(site.holds().await, Held { blobs: 5, images: 1, snapshots: 3, ingests: 0, leases: 0 });
}

#[tokio::test]
async fn artifacts_and_signatures_are_kept_and_not_unpacked() {
    let content: [(&str, &[u8]); 1] = [("text/plain", b"hello")];
    let signed = Signer::new().sign(&windlass_core::Digest::sha256(b"image"));
    for (bundle, kind) in [
        (artifact("application/vnd.example", &content), "application/vnd.example"),
        (signatures(&[signed]), "application/vnd.dev.cosign.simplesigning.v1+json"),
    ] {
        let site = Site::serving(&bundle);
        let pulled = site.pull().await.unwrap();
        assert_eq!(pulled.snapshots, []);
        assert_eq!(pulled.artifacts, [kind]);
        assert_eq!(site.holds().await, Held { blobs: 3, images: 1, snapshots: 0, ingests: 0, leases: 0 });
    }
    // A layer of a kind that is not known is a layer all the same.
    let encrypted = changed(&three_layers().build(), |manifest| {
        for layer in manifest["layers"].as_array_mut().unwrap() {
            layer["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
        }
    });
    let error = Site::serving(&encrypted).fail().await;
    assert_eq!(error.kind(), Kind::Unimplemented);
}
