//! Layers that no registry has: they come from where their descriptors say.

use windlass_core::remote::ByteRange;
use windlass_core::{Descriptor, Digest, Kind};
use windlass_registry::{ForeignUrls, Options, PlainHttp, Remote};
use windlass_testkit::registry::{Auth, Fake};

use crate::support::{OTHER_NAME, fetch, options, password, remote, remote_with};

const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const BYTES: &[u8] = b"bytes that may not be redistributed";

/// A registry without the layer, a place that has it, and its descriptor.
async fn places() -> (Fake, Fake, Descriptor) {
    let (registry, elsewhere) = (Fake::start().await, Fake::start().await);
    registry.add_image("app", "1", &[]);
    let mut layer = elsewhere.add_blob("files", FOREIGN, BYTES);
    layer.urls = vec![format!("{}/v2/files/blobs/{}", elsewhere.url(), layer.digest)];
    (registry, elsewhere, layer)
}

#[tokio::test]
async fn a_layer_that_the_registry_has_not_comes_from_its_urls_with_ranges() {
    let (registry, _elsewhere, mut layer) = places().await;
    let name = format!("{}/app:1", registry.host());
    // The first one has nothing, the second one has it.
    layer.urls.insert(0, format!("{}/v2/files/blobs/{}", registry.url(), Digest::sha256(b"no")));
    let (offset, size, bytes) = fetch(&remote(), &name, &layer, ByteRange::default()).await.unwrap();
    assert_eq!((offset, size, bytes.as_slice()), (0, Some(BYTES.len() as u64), BYTES));
    let part = ByteRange { start: 6, end: Some(10) };
    let (offset, _, bytes) = fetch(&remote(), &name, &layer, part).await.unwrap();
    assert_eq!((offset, bytes.as_slice()), (6, &BYTES[6..10]));
}

#[tokio::test]
async fn a_layer_that_the_registry_has_is_not_looked_for_elsewhere() {
    let (registry, elsewhere, layer) = places().await;
    registry.add_blob("app", FOREIGN, BYTES);
    let name = format!("{}/app:1", registry.host());
    fetch(&remote(), &name, &layer, ByteRange::default()).await.unwrap();
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn nobody_elsewhere_is_told_who_we_are() {
    let (registry, elsewhere, layer) = places().await;
    registry.require(Auth::Basic { username: "u".to_owned(), password: "hunter2".to_owned() });
    let name = format!("{}/app:1", registry.host());
    fetch(&remote_with(password("u", "hunter2")), &name, &layer, ByteRange::default()).await.unwrap();
    let asked = elsewhere.requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.header("authorization").is_none()), "{asked:?}");
    // Not even when it asks.
    elsewhere.require(Auth::Basic { username: "u".to_owned(), password: "hunter2".to_owned() });
    let remote = remote_with(password("u", "hunter2"));
    let error = fetch(&remote, &name, &layer, ByteRange::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("is not in the registry, fetch it from http://127.0.0.1:"), "{error}");
    assert!(error.to_string().ends_with("answers 401 Unauthorized"), "{error}");
    assert!(elsewhere.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn plain_http_elsewhere_is_spoken_only_when_it_is_allowed() {
    let (registry, elsewhere, mut layer) = places().await;
    let name = format!("{}/app:1", registry.host());
    layer.urls = vec![format!("http://{OTHER_NAME}:{}/v2/files/blobs/{}", elsewhere.port(), layer.digest)];
    let error = fetch(&remote(), &name, &layer, ByteRange::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("is plain HTTP, which was not asked for"), "{error}");
    assert!(error.hint_text().unwrap().contains("--plain-http"), "{error:?}");
    let plain = Remote::new(Options { plain_http: PlainHttp::Always, ..options() }).unwrap();
    fetch(&plain, &name, &layer, ByteRange::default()).await.unwrap();
}

#[tokio::test]
async fn urls_that_are_none_are_told_and_lead_nowhere() {
    let (registry, _elsewhere, mut layer) = places().await;
    let name = format!("{}/app:1", registry.host());
    for url in ["file:///etc/passwd", "ftp://a.test/x", "https://u:p@a.test/x", "no url", "", "/v2/x"] {
        layer.urls = vec![url.to_owned()];
        let error = fetch(&remote(), &name, &layer, ByteRange::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{url}: {error}");
        assert!(error.hint_text().is_some(), "{url}");
    }
    layer.urls.clear();
    let error = fetch(&remote(), &name, &layer, ByteRange::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn nobody_elsewhere_is_asked_when_that_is_not_wanted() {
    let (registry, elsewhere, mut layer) = places().await;
    let name = format!("{}/app:1", registry.host());
    let refusing = Remote::new(Options { foreign_urls: ForeignUrls::Refused, ..options() }).unwrap();
    let error = fetch(&refusing, &name, &layer, ByteRange::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::FailedPrecondition, "foreign-url-refused"), "{error}");
    assert!(error.to_string().contains("content from elsewhere is not wanted"), "{error}");
    assert_eq!(elsewhere.requests().len(), 0);
    // What the registry has is fetched all the same, and so is what names no other place.
    registry.add_blob("app", FOREIGN, BYTES);
    fetch(&refusing, &name, &layer, ByteRange::default()).await.unwrap();
    registry.remove("app", &layer.digest);
    layer.urls.clear();
    let error = fetch(&refusing, &name, &layer, ByteRange::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn an_image_from_afar_names_no_place_on_this_machine_or_on_its_wire() {
    let (registry, elsewhere, mut layer) = places().await;
    // A name that leads to this machine, of a registry that is not known to be it.
    let afar = format!("{OTHER_NAME}:{}/app:1", registry.port());
    let remote = Remote::new(Options { plain_http: PlainHttp::Always, ..options() }).unwrap();
    let path = format!("v2/files/blobs/{}", layer.digest);
    let port = elsewhere.port();
    for place in [
        format!("http://127.0.0.1:{port}/{path}"),
        format!("http://localhost:{port}/{path}"),
        format!("http://[::ffff:127.0.0.1]:{port}/{path}"),
        format!("http://0.0.0.0:{port}/{path}"),
        format!("http://2130706433:{port}/{path}"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://[fe80::1]/".to_owned(),
    ] {
        layer.urls = vec![place.clone()];
        let error = fetch(&remote, &afar, &layer, ByteRange::default()).await.unwrap_err();
        assert_eq!(error.code(), "foreign-url-refused", "{place}: {error}");
        assert!(error.to_string().contains(&place) && error.hint_text().is_some(), "{place}: {error}");
    }
    assert_eq!(elsewhere.requests().len(), 0);
    // The rest is asked.
    layer.urls.push(format!("http://{OTHER_NAME}:{port}/{path}"));
    fetch(&remote, &afar, &layer, ByteRange::default()).await.unwrap();
    assert!(elsewhere.requests().iter().all(|request| request.header("authorization").is_none()));
}
