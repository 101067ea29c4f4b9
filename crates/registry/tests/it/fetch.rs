//! Where content is looked for, and what becomes of ranges.

use std::time::Duration;

use futures::StreamExt as _;
use windlass_core::remote::{ByteRange, Fetcher, Resolver as _};
use windlass_core::{Descriptor, Kind, MediaType};
use windlass_testkit::registry::{Fake, Fault};

use crate::support::{assert_says, blob_path, fetch, noise, one_image, remote};

async fn one_blob() -> (Fake, String, Descriptor, Vec<u8>) {
    let fake = Fake::start().await;
    let bytes = noise(200_000);
    let descriptor = fake.add_blob("a/b", MediaType::OCI_LAYER_GZIP, bytes.clone());
    let name = format!("{}/a/b:1", fake.host());
    (fake, name, descriptor, bytes)
}

#[tokio::test]
async fn a_descriptors_role_says_where_to_look() {
    let (fake, name, manifest) = one_image().await;
    let layer = fake.add_blob("a/b", MediaType::DOCKER_LAYER_GZIP, "layer");
    for (descriptor, path) in [
        (manifest.clone(), format!("/v2/a/b/manifests/{}", manifest.digest)),
        (layer.clone(), blob_path("a/b", &layer)),
        (Descriptor::new("text/x-unknown", layer.digest.clone(), 5), blob_path("a/b", &layer)),
    ] {
        fake.forget_requests();
        let (_, _, bytes) = fetch(&remote(), &name, &descriptor, ByteRange::default()).await.unwrap();
        assert_eq!(Descriptor::of("", &bytes).digest, descriptor.digest);
        let [request] = &fake.requests()[..] else { panic!("{:?}", fake.requests()) };
        assert_eq!(request.path, path);
        assert_eq!(request.header("range"), None);
    }
}

#[tokio::test]
async fn an_unknown_thing_may_be_a_manifest_after_all() {
    let fake = Fake::start().await;
    let artifact = fake.add_manifest("a/b", Some("1"), "application/vnd.example.thing.v1+json", "{}");
    let name = format!("{}/a/b:1", fake.host());
    let (_, size, bytes) = fetch(&remote(), &name, &artifact, ByteRange::default()).await.unwrap();
    assert_eq!((size, bytes), (Some(2), b"{}".to_vec()));
    let accept = fake.requests().last().unwrap().header("accept").unwrap().to_owned();
    assert!(accept.starts_with("application/vnd.example.thing.v1+json, "), "{accept}");

    let nowhere = Descriptor::of("application/vnd.example.thing.v1+json", b"nowhere");
    let missing = fetch(&remote(), &name, &nowhere, ByteRange::default()).await;
    assert_says(missing, Kind::NotFound, &[&format!("blob {}", nowhere.digest), "a/b", &fake.host()]);
}

#[tokio::test]
async fn a_part_is_asked_for_and_given() {
    let (fake, name, blob, bytes) = one_blob().await;
    let remote = remote();
    for (start, end, header) in [(1000, None, "bytes=1000-"), (0, Some(10), "bytes=0-9"), (5, Some(6), "bytes=5-5")] {
        fake.forget_requests();
        let (offset, size, part) = fetch(&remote, &name, &blob, ByteRange { start, end }).await.unwrap();
        assert_eq!((offset, size), (start, Some(blob.size)));
        let expected = usize::try_from(start).unwrap()..end.map_or(bytes.len(), |end| usize::try_from(end).unwrap());
        assert_eq!(part, bytes[expected]);
        assert_eq!(fake.requests()[0].header("range"), Some(header));
    }
}

#[tokio::test]
async fn a_registry_without_ranges_gives_everything_and_says_so() {
    let (fake, name, blob, bytes) = one_blob().await;
    fake.fault("/v2/", Fault::IgnoreRange);
    let (offset, size, all) = fetch(&remote(), &name, &blob, ByteRange::from(1000)).await.unwrap();
    assert_eq!((offset, size), (0, Some(blob.size)));
    assert_eq!(all, bytes);
    // No more is given than was asked for.
    let closed = ByteRange { start: 10, end: Some(20) };
    let (offset, _, part) = fetch(&remote(), &name, &blob, closed).await.unwrap();
    assert_eq!((offset, part), (0, bytes[..20].to_vec()));
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_not_taken_for_the_one_that_was() {
    let (fake, name, blob, bytes) = one_blob().await;
    let whole = (0, Some(blob.size), bytes);
    fake.fault("/v2/", Fault::ShiftRange(7));
    assert_eq!(fetch(&remote(), &name, &blob, ByteRange::from(1000)).await.unwrap(), whole);
    fake.clear_faults();
    fake.fault("/v2/", Fault::WithoutHeader("content-range".to_owned()));
    assert_eq!(fetch(&remote(), &name, &blob, ByteRange::from(1000)).await.unwrap(), whole);
}

#[tokio::test]
async fn a_host_that_does_not_send_parts_is_asked_for_everything_and_gets_no_lane_any_more() {
    let lying = |range: &str| Fault::header("content-range", range);
    let cases = [
        vec![Fault::IgnoreRange],
        vec![Fault::ShiftRange(7)],
        vec![Fault::WithoutHeader("content-range".to_owned())],
        vec![lying("bytes 1000-1999/2000")],
        vec![lying("bytes 10-19/300000")],
        vec![lying("nonsense")],
        vec![Fault::header("content-encoding", "gzip")],
        vec![Fault::status(400, "no ranges")],
        vec![Fault::status(416, "no ranges")],
        vec![Fault::status(416, ""), lying("bytes */300000")],
        vec![Fault::status(501, "")],
    ];
    futures::future::join_all(cases.map(falls_back)).await;
}

async fn falls_back(faults: Vec<Fault>) {
    let (fake, name, blob, bytes) = one_blob().await;
    let remote = remote();
    let closed = ByteRange { start: 1000, end: Some(2000) };
    let right = fetch(&remote, &name, &blob, closed).await.unwrap();
    assert_eq!(right, (1000, Some(blob.size), bytes[1000..2000].to_vec()));
    let fetcher = remote.fetcher(&name.parse().unwrap()).await.unwrap();

    let said = format!("{faults:?}");
    for fault in faults {
        fake.fault_when_ranged("/v2/", fault);
    }
    let (offset, size, part) = fetch(&remote, &name, &blob, closed).await.unwrap();
    assert_eq!((offset, size), (0, Some(blob.size)), "{said}");
    assert_eq!(part, bytes[..2000], "{said}");
    fake.fault("/v2/", SLOW);
    assert!(!gets_a_lane(&*fetcher, &blob).await, "{said}");
}

/// A host that would do better with more connections.
const SLOW: Fault = Fault::Trickle { piece: 1000, pause: Duration::from_millis(10) };

#[tokio::test]
async fn a_host_that_limits_each_connection_gives_lanes_for_as_long_as_parts_are_trusted() {
    let (fake, name, blob, _) = one_blob().await;
    fake.fault("/v2/", SLOW);
    let fetcher = remote().fetcher(&name.parse().unwrap()).await.unwrap();
    assert!(gets_a_lane(&*fetcher, &blob).await);
    fetcher.distrust_parts();
    assert!(fetcher.lane().is_none());
}

/// Receives a blob slowly, and tells whether a lane was given meanwhile.
async fn gets_a_lane(fetcher: &dyn Fetcher, blob: &Descriptor) -> bool {
    let mut body = fetcher.fetch(blob, ByteRange::default()).await.unwrap();
    while let Some(part) = body.stream.next().await {
        part.unwrap();
        if fetcher.lane().is_some() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_range_at_the_end_is_empty_and_one_past_it_is_out_of_range() {
    let (fake, name, blob, _) = one_blob().await;
    let at_end = fetch(&remote(), &name, &blob, ByteRange::from(blob.size)).await.unwrap();
    assert_eq!(at_end, (blob.size, Some(blob.size), Vec::new()));
    let past = fetch(&remote(), &name, &blob, ByteRange::from(blob.size + 1)).await;
    assert_says(past, Kind::OutOfRange, &[&blob.digest.to_string(), "a/b", &fake.host()]);
    let empty = fetch(&remote(), &name, &blob, ByteRange { start: 5, end: Some(5) }).await;
    assert_eq!(empty.unwrap_err().kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn the_size_is_what_the_registry_says_and_unknown_when_it_does_not() {
    let (fake, name, blob, bytes) = one_blob().await;
    fake.fault("/v2/", Fault::WithoutHeader("content-length".to_owned()));
    let unannounced = fetch(&remote(), &name, &blob, ByteRange::default()).await.unwrap();
    assert_eq!(unannounced, (0, None, bytes));
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let (fake, name, blob, _) = one_blob().await;
    fake.fault("/v2/", Fault::header("content-encoding", "gzip"));
    let encoded = fetch(&remote(), &name, &blob, ByteRange::default()).await;
    assert_says(encoded, Kind::DataLoss, &["\"gzip\"", &blob.digest.to_string(), &fake.host()]);
    assert_eq!(fake.requests()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_fetched_manifest_is_bounded() {
    let fake = Fake::start().await;
    let huge = fake.add_manifest("a/b", Some("1"), MediaType::OCI_MANIFEST, vec![b' '; (4 << 20) + 1]);
    let name = format!("{}/a/b:1", fake.host());
    for fault in [None, Some(Fault::Unannounced)] {
        if let Some(fault) = fault {
            fake.fault("/v2/", fault);
        }
        let fetched = fetch(&remote(), &name, &huge, ByteRange::default()).await;
        assert_says(fetched, Kind::ResourceExhausted, &[&huge.digest.to_string(), "4194304"]);
    }
}

#[tokio::test]
async fn a_missing_or_forbidden_blob_is_named() {
    let (fake, name, blob, _) = one_blob().await;
    let digest = blob.digest.to_string();
    for (fault, kind) in [
        (Fault::error(404, "BLOB_UNKNOWN", "blob unknown"), Kind::NotFound),
        (Fault::error(403, "DENIED", "no"), Kind::PermissionDenied),
        (Fault::error(401, "UNAUTHORIZED", "who"), Kind::Unauthenticated),
        (Fault::status(503, "<html>"), Kind::Unavailable),
    ] {
        fake.clear_faults();
        fake.fault(blob_path("a/b", &blob), fault);
        let fetched = fetch(&remote(), &name, &blob, ByteRange::default()).await;
        assert_says(fetched, kind, &[&digest, "a/b", &fake.host()]);
    }
}
