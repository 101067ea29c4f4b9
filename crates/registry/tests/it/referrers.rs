//! What is attached to a manifest: the API of a registry that has it, and the tag of one that has not.

use serde_json::json;
use windlass_core::content::{Commit, copy};
use windlass_core::remote::{Push, Resolver as _};
use windlass_core::{Descriptor, Digest, Kind, MediaType, Result};
use windlass_registry::Remote;
use windlass_testkit::image::{Bundle, Image, Layer, artifact_of};
use windlass_testkit::registry::{DockerRegistry, Fake, Fault, Taking};

use crate::support::{remote, resolve};

const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.example.signature+json";

fn image() -> Bundle {
    Image::new("linux/amd64").layer(Layer::new().file("a", "a")).build()
}

fn artifacts(subject: &Descriptor) -> Vec<Bundle> {
    let content = |text: &'static str| [("text/plain", text.as_bytes())];
    vec![
        artifact_of(SBOM, subject, &content("parts")),
        artifact_of(SIGNATURE, subject, &content("one")),
        artifact_of(SIGNATURE, subject, &content("two")),
    ]
}

fn put(fake: &Fake, tag: Option<&str>, bundle: &Bundle) {
    for (digest, bytes) in &bundle.blobs {
        if *digest == bundle.root.digest {
            fake.add_manifest("app", tag, bundle.root.media_type.as_str(), bytes.clone());
        } else {
            fake.add_blob("app", "application/octet-stream", bytes.clone());
        }
    }
}

async fn serving() -> (Fake, Bundle, Vec<Bundle>) {
    let (fake, image) = (Fake::start().await, image());
    let artifacts = artifacts(&image.root);
    put(&fake, Some("1"), &image);
    for artifact in &artifacts {
        put(&fake, None, artifact);
    }
    (fake, image, artifacts)
}

async fn list(remote: &Remote, host: &str, subject: &Digest, kind: Option<&str>) -> Result<Vec<Descriptor>> {
    remote.referrers(&format!("{host}/app:1").parse().unwrap(), subject, kind).await
}

fn digests(list: &[Descriptor]) -> Vec<&Digest> {
    let mut digests: Vec<&Digest> = list.iter().map(|descriptor| &descriptor.digest).collect();
    digests.sort();
    digests
}

fn roots(bundles: &[Bundle]) -> Vec<&Digest> {
    let mut digests: Vec<&Digest> = bundles.iter().map(|bundle| &bundle.root.digest).collect();
    digests.sort();
    digests
}

#[tokio::test]
async fn a_list_is_read_page_by_page_to_its_end() {
    let (fake, image, artifacts) = serving().await;
    fake.know_referrers(2);
    let found = list(&remote(), &fake.host(), &image.root.digest, None).await.unwrap();
    assert_eq!(digests(&found), roots(&artifacts));
    let pages = fake.requests().iter().filter(|request| request.path.contains("/referrers/")).count();
    assert_eq!(pages, 2);
    let kinds: Vec<_> = found.iter().filter(|it| it.artifact_type.as_deref() == Some(SBOM)).collect();
    assert_eq!(kinds.len(), 1);
}

#[tokio::test]
async fn a_registry_that_filters_is_believed_and_one_that_does_not_is_filtered() {
    let (fake, image, artifacts) = serving().await;
    fake.know_referrers(1);
    let path = format!("/v2/app/referrers/{}", image.root.digest);
    let found = list(&remote(), &fake.host(), &image.root.digest, Some(SIGNATURE)).await.unwrap();
    assert_eq!(digests(&found), roots(&artifacts[1..]));
    let query = fake.requests().iter().find(|request| request.path == path).unwrap().query.clone().unwrap();
    assert_eq!(query, "artifactType=application/vnd.example.signature%2Bjson");

    // All of them, without a word about a filter.
    let all: Vec<_> = artifacts.iter().zip([SBOM, SIGNATURE, SIGNATURE]).map(|(it, kind)| entry(it, kind)).collect();
    let body = json!({ "schemaVersion": 2, "manifests": all }).to_string();
    fake.fault(&path, Fault::Answer { status: 200, headers: Vec::new(), body: body.into() });
    let found = list(&remote(), &fake.host(), &image.root.digest, Some(SBOM)).await.unwrap();
    assert_eq!(digests(&found), roots(&artifacts[..1]));
}

fn entry(bundle: &Bundle, kind: &str) -> Descriptor {
    Descriptor { artifact_type: Some(kind.to_owned()), ..bundle.root.clone() }
}

#[tokio::test]
async fn a_registry_without_the_api_keeps_the_list_under_a_tag() {
    let (fake, image, artifacts) = serving().await;
    let none = list(&remote(), &fake.host(), &image.root.digest, None).await.unwrap();
    assert_eq!(none, []);
    let entries: Vec<_> =
        artifacts.iter().zip([SBOM, SIGNATURE, SIGNATURE]).map(|(it, kind)| entry(it, kind)).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": entries });
    let tag = format!("sha256-{}", image.root.digest.hex());
    fake.add_manifest("app", Some(&tag), MediaType::OCI_INDEX, index.to_string());
    for status in [404, 405, 501, 400] {
        let answer = Fault::Answer { status, headers: Vec::new(), body: "no".into() };
        fake.fault_times("/v2/app/referrers/", answer, 1);
        let found = list(&remote(), &fake.host(), &image.root.digest, Some(SIGNATURE)).await.unwrap();
        assert_eq!(digests(&found), roots(&artifacts[1..]), "{status}");
    }
}

/// Pushes what a manifest is made of, and then the manifest, by its digest.
async fn push(host: &str, bundle: &Bundle) {
    let name = format!("{host}/app@{}", bundle.root.digest).parse().unwrap();
    let pusher = remote().pusher(&name).await.unwrap();
    let (last, first): (Vec<_>, Vec<_>) = bundle.blobs.iter().partition(|(digest, _)| **digest == bundle.root.digest);
    for (digest, bytes) in first.into_iter().chain(last) {
        let blob = Descriptor::new(MediaType::OCTET_STREAM, digest.clone(), bytes.len() as u64);
        let descriptor = if *digest == bundle.root.digest { &bundle.root } else { &blob };
        if let Push::Upload(mut writer) = pusher.push(descriptor).await.unwrap() {
            copy(&mut *writer, &mut bytes.clone(), None).await.unwrap();
            writer.commit(Commit::default()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_attached_at_debians_registry_is_found_there() {
    let (registry, image) = (DockerRegistry::start(), image());
    let artifacts = artifacts(&image.root);
    for bundle in std::iter::once(&image).chain(&artifacts) {
        push(registry.host(), bundle).await;
    }
    let found = list(&remote(), registry.host(), &image.root.digest, None).await.unwrap();
    assert_eq!(digests(&found), roots(&artifacts));
    let found = list(&remote(), registry.host(), &image.root.digest, Some(SBOM)).await.unwrap();
    assert_eq!(digests(&found), roots(&artifacts[..1]));
    assert_eq!(list(&remote(), registry.host(), &artifacts[0].root.digest, None).await.unwrap(), []);
}

#[tokio::test]
async fn a_layout_is_asked_what_its_manifests_say() {
    let image = image();
    let artifacts = artifacts(&image.root);
    let directory = tempfile::tempdir().unwrap();
    image.write_layout(directory.path(), "1").unwrap();
    for (artifact, tag) in artifacts.iter().zip(["a", "b", "c"]) {
        artifact.write_layout(directory.path(), tag).unwrap();
    }
    let name = format!("oci:{}:1", directory.path().display()).parse().unwrap();
    let found = remote().referrers(&name, &image.root.digest, None).await.unwrap();
    assert_eq!(digests(&found), roots(&artifacts));
    let found = remote().referrers(&name, &image.root.digest, Some(SBOM)).await.unwrap();
    assert_eq!(digests(&found), roots(&artifacts[..1]));
}

#[tokio::test]
async fn a_list_without_an_end_and_one_that_leads_elsewhere_are_given_up() {
    let (fake, image, _) = serving().await;
    let path = format!("/v2/app/referrers/{}", image.root.digest);
    let body = json!({ "schemaVersion": 2, "manifests": [] }).to_string();
    let page = |link: &str| Fault::Answer {
        status: 200,
        headers: vec![("link".to_owned(), format!("<{link}>; rel=\"next\""))],
        body: body.clone().into(),
    };
    fake.fault(&path, page(&path));
    let error = list(&remote(), &fake.host(), &image.root.digest, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert!(fake.requests().len() < 100, "{}", fake.requests().len());

    fake.clear_faults();
    fake.fault(&path, page("http://127.0.0.1:9/v2/app/referrers/x"));
    let error = list(&remote(), &fake.host(), &image.root.digest, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("goes on at another place"), "{error}");

    fake.clear_faults();
    fake.fault(&path, Fault::Answer { status: 200, headers: Vec::new(), body: "<html>".into() });
    let error = list(&remote(), &fake.host(), &image.root.digest, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
}

async fn delete(host: &str, bundle: &Bundle) -> Result<()> {
    remote().delete(&format!("{host}/app@{}", bundle.root.digest).parse().unwrap()).await
}

/// Tells whether there is the tag that lists what is attached to an image.
async fn has_list(host: &str, image: &Bundle) -> bool {
    let tag = format!("{host}/app:sha256-{}", image.root.digest.hex());
    match resolve(&remote(), &tag).await {
        Err(error) if error.is(Kind::NotFound) => false,
        resolved => resolved.map(|_| true).unwrap(),
    }
}

/// One that deletes tags, one that does not, and Debian's, which does not either.
#[tokio::test]
async fn what_is_deleted_is_in_no_list_of_referrers() {
    let (with_tags, without, debians) = (Fake::start().await, Fake::start().await, DockerRegistry::start());
    with_tags.take(Taking { deletes_tags: true, ..Taking::default() });
    for host in [with_tags.host(), without.host(), debians.host().to_owned()] {
        let (host, image) = (host.as_str(), image());
        let artifacts = artifacts(&image.root);
        for bundle in std::iter::once(&image).chain(&artifacts) {
            push(host, bundle).await;
        }
        let listed = async || list(&remote(), host, &image.root.digest, None).await.unwrap();
        assert_eq!(listed().await.len(), 3, "{host}");
        delete(host, &artifacts[1]).await.unwrap();
        assert_eq!(digests(&listed().await), roots(&[artifacts[0].clone(), artifacts[2].clone()]), "{host}");
        delete(host, &artifacts[0]).await.unwrap();
        assert!(has_list(host, &image).await, "{host}");
        // An empty list is as good as none.
        delete(host, &artifacts[2]).await.unwrap();
        assert!(!has_list(host, &image).await, "{host}");

        push(host, &artifacts[0]).await;
        assert!(has_list(host, &image).await, "{host}");
        delete(host, &image).await.unwrap();
        assert!(!has_list(host, &image).await, "{host}");
        // What was attached stays, and goes by its own digest.
        delete(host, &artifacts[0]).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_lists_referrers_itself_is_left_to_it() {
    let (fake, image, artifacts) = serving().await;
    let tag = format!("sha256-{}", image.root.digest.hex());
    let index = json!({ "schemaVersion": 2, "manifests": [entry(&artifacts[0], SBOM)] });
    fake.add_manifest("app", Some(&tag), MediaType::OCI_INDEX, index.to_string());
    fake.know_referrers(10);
    delete(&fake.host(), &artifacts[0]).await.unwrap();
    delete(&fake.host(), &image).await.unwrap();
    let changed: Vec<String> = fake.requests().into_iter().filter(|it| it.method != "GET").map(|it| it.path).collect();
    let path = |bundle: &Bundle| format!("/v2/app/manifests/{}", bundle.root.digest);
    assert_eq!(changed, [path(&artifacts[0]), path(&image)]);
}

#[tokio::test]
async fn a_list_that_cannot_be_changed_is_told_and_a_tag_that_is_none_stays() {
    let (fake, image) = (Fake::start().await, image());
    let artifacts = artifacts(&image.root);
    for bundle in std::iter::once(&image).chain(&artifacts) {
        push(&fake.host(), bundle).await;
    }
    let tag = format!("sha256-{}", image.root.digest.hex());
    fake.fault_method("PUT", format!("/v2/app/manifests/{tag}"), Fault::error(403, "DENIED", "no"), 1);
    let error = delete(&fake.host(), &artifacts[0]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied, "{error:?}");
    for part in ["is deleted", &tag] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    // The list of what is gone goes when it is deleted again, which says that it is gone.
    fake.remove("app", &image.root.digest);
    assert_eq!(delete(&fake.host(), &image).await.unwrap_err().kind(), Kind::NotFound);
    assert!(fake.manifest("app", &tag).is_none());

    push(&fake.host(), &image).await;
    fake.add_manifest("app", Some(&tag), MediaType::OCI_MANIFEST, "{}");
    delete(&fake.host(), &image).await.unwrap();
    assert_eq!(fake.manifest("app", &tag).unwrap().1, "{}");
}
