//! What is attached to an image, what a descriptor brings along, and what is no image.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use windlass_core::gc::Deletion;
use windlass_core::platform::Selection;
use windlass_core::{Descriptor, Digest, Kind, MediaType};
use windlass_testkit::image::{Bundle, Image, Index, Layer, Signer, artifact, artifact_of, signatures};
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

const COSIGN: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Serves something under a tag of cosign's beside the image.
fn tag(site: &Site, subject: &Digest, end: &str, bundle: &Bundle) {
    let tag = format!("sha256-{}.{end}", subject.hex());
    site.remote.serve(&site.reference.with_tag(&tag).unwrap(), bundle);
}

#[tokio::test]
async fn what_is_under_the_tags_of_cosign_comes_along_of_the_index_and_of_each_platform() {
    let (own, other) = (three_layers().build(), Image::new("linux/s390x").layer(Layer::new().file("a", "a")).build());
    let index = Index::new().bundle(&own).bundle(&other).build();
    let site = Site::serving(&index);
    let signer = Signer::new();
    let of = |subject: &Digest| signatures(&[signer.sign(subject)]);
    let [of_index, of_own, of_other] = [&index, &own, &other].map(|bundle| of(&bundle.root.digest));
    for (subject, signatures) in [(&index, &of_index), (&own, &of_own), (&other, &of_other)] {
        tag(&site, &subject.root.digest, "sig", signatures);
    }
    let parts = artifact(SBOM, &[("text/plain", b"parts")]);
    tag(&site, &own.root.digest, "sbom", &parts);
    let attested = artifact("application/vnd.in-toto+json", &[("text/plain", b"built")]);
    tag(&site, &own.root.digest, "att", &attested);
    // A list of parts is signed as an image is.
    let of_parts = of(&parts.root.digest);
    tag(&site, &parts.root.digest, "sig", &of_parts);

    let attached = async |wanted: Referrers| {
        let platform = Selection::Best(vec!["linux/amd64".parse().unwrap()]);
        let plan = site.plan(&Pull { platforms: platform, ..with(wanted) }).await.unwrap();
        plan.attached.into_iter().map(|it| (it.subject, it.manifest.digest)).collect::<Vec<_>>()
    };
    let pair = |subject: &Bundle, attached: &Bundle| (subject.root.digest.clone(), attached.root.digest.clone());
    let (of_the_index, of_the_image) = (pair(&index, &of_index), pair(&own, &of_own));
    let (list, its) = (pair(&own, &parts), pair(&parts, &of_parts));
    let all = [of_the_index.clone(), of_the_image.clone(), pair(&own, &attested), list.clone(), its.clone()];
    assert_eq!(attached(Referrers::All).await, all);
    let of = |kinds: &[&str]| Referrers::Of(kinds.iter().map(|kind| (*kind).to_owned()).collect());
    assert_eq!(attached(of(&[COSIGN])).await, [of_the_index.clone(), of_the_image.clone()]);
    assert_eq!(attached(of(&[SBOM])).await, std::slice::from_ref(&list));
    assert_eq!(attached(of(&[SBOM, COSIGN])).await, [of_the_index, of_the_image, list, its]);

    let platforms = Selection::Best(vec!["linux/amd64".parse().unwrap()]);
    site.pull_with(&Pull { platforms, ..with(Referrers::All) }).await.unwrap();
    site.host.collect(&windlass_core::Namespace::default());
    let services = site.services().await;
    for bundle in [&of_index, &of_own, &parts, &attested, &of_parts] {
        for digest in bundle.blobs.keys() {
            services.content.info(digest).await.unwrap();
        }
    }
    services.content.info(&of_other.root.digest).await.unwrap_err();
    services.images.delete(&"registry.test/app:1".parse().unwrap(), Deletion::Synchronous).await.unwrap();
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test]
async fn what_is_attached_to_something_attached_comes_along_as_deep_as_it_may() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let mut subject = bundle.root.clone();
    let mut chain = Vec::new();
    for depth in 1..=6 {
        let next = artifact_of(SBOM, &subject, &[("text/plain", format!("{depth}").as_bytes())]);
        site.remote.attach(&subject.digest, SBOM, &next);
        subject = next.root.clone();
        chain.push(next.root.digest);
    }
    site.pull_with(&with(Referrers::All)).await.unwrap();
    site.host.collect(&windlass_core::Namespace::default());
    let services = site.services().await;
    for (at, digest) in chain.iter().enumerate() {
        assert_eq!(services.content.info(digest).await.is_ok(), at < 4, "{at}");
    }
}

#[tokio::test]
async fn a_circle_of_what_is_attached_ends_and_does_not_keep_itself() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    // What a list or a tag says need not be what a manifest says.
    let parts = artifact_of(SBOM, &bundle.root, &[("text/plain", b"parts")]);
    site.remote.attach(&bundle.root.digest, SBOM, &parts);
    site.remote.attach(&parts.root.digest, SBOM, &bundle);
    site.remote.attach(&parts.root.digest, SBOM, &parts);
    tag(&site, &bundle.root.digest, "sig", &bundle);
    let plan = site.plan(&with(Referrers::All)).await.unwrap();
    assert_eq!(plan.attached.len(), 2, "{plan:#?}");
    site.pull_with(&with(Referrers::All)).await.unwrap();
    let services = site.services().await;
    services.images.delete(&"registry.test/app:1".parse().unwrap(), Deletion::Synchronous).await.unwrap();
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test]
async fn what_is_attached_without_end_is_given_up_somewhere() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let many = |subject: &Descriptor, count: usize| {
        let mut all = Vec::new();
        for number in 0..count {
            let text = format!("{} {number}", subject.digest);
            let next = artifact_of(SBOM, subject, &[("text/plain", text.as_bytes())]);
            site.remote.attach(&subject.digest, SBOM, &next);
            all.push(next.root);
        }
        all
    };
    for first in many(&bundle.root, 10) {
        many(&first, 300);
    }
    let plan = site.plan(&with(Referrers::All)).await.unwrap();
    assert!((1024..1024 + 256).contains(&plan.attached.len()), "{}", plan.attached.len());
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
    let signed = Signer::new().sign(&Digest::sha256(b"image"));
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
