//! From a reference to a descriptor, by a registry that is not always in order.

use windlass_core::{Descriptor, Digest, Kind, MediaType};
use windlass_testkit::registry::{Fake, Fault};

use crate::support::{assert_hints, assert_says, one_image, remote, resolve};

const PATH: &str = "/v2/a/b/manifests/1";

#[tokio::test]
async fn one_head_suffices_and_accepts_every_kind_of_manifest() {
    let (fake, reference, target) = one_image().await;
    let resolved = resolve(&remote(), &reference).await.unwrap();
    assert_eq!((resolved.name.as_str(), resolved.descriptor), (reference.as_str(), target));
    let [request] = &fake.requests()[..] else { panic!("{:?}", fake.requests()) };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("HEAD", PATH));
    for media_type in MediaType::MANIFESTS {
        assert!(request.header("accept").unwrap().contains(media_type), "{media_type}");
    }
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert!(request.header("user-agent").unwrap().starts_with("windlass/"));
}

#[tokio::test]
async fn a_get_decides_where_a_head_says_too_little() {
    for fault in [
        Fault::NoHead,
        Fault::WithoutHeader("docker-content-digest".to_owned()),
        Fault::header("docker-content-digest", "sha256:not-a-digest"),
        Fault::WithoutHeader("content-type".to_owned()),
        Fault::header("content-type", "application/json"),
        Fault::WithoutHeader("content-length".to_owned()),
    ] {
        let (fake, reference, target) = one_image().await;
        fake.fault(PATH, fault.clone());
        let descriptor = resolve(&remote(), &reference).await.unwrap().descriptor;
        assert_eq!(descriptor, target, "{fault:?}");
        assert_eq!(fake.requests().last().unwrap().method, "GET", "{fault:?}");
    }
}

#[tokio::test]
async fn a_digest_with_a_tag_means_the_digest_whatever_the_tag_is_by_now() {
    let (fake, reference, old) = one_image().await;
    let new = fake.add_image("a/b", "1", &["another layer".into()]);
    assert_eq!(resolve(&remote(), &reference).await.unwrap().descriptor, new);
    let pinned = format!("{reference}@{}", old.digest);
    let resolved = resolve(&remote(), &pinned).await.unwrap();
    assert_eq!((resolved.name.as_str(), resolved.descriptor), (pinned.as_str(), old));
}

#[tokio::test]
async fn a_digest_that_does_not_fit_is_data_loss_naming_both() {
    let other = Digest::sha256(b"other").to_string();

    // The header contradicts the request.
    let (fake, _, target) = one_image().await;
    let by_digest = format!("{}/a/b@{}", fake.host(), target.digest);
    fake.fault("/v2/a/b/manifests/", Fault::header("docker-content-digest", other.clone()));
    let digest = target.digest.to_string();
    assert_says(resolve(&remote(), &by_digest).await, Kind::DataLoss, &[&digest, &other, &fake.host()]);

    // The body contradicts the header.
    let (fake, reference, _) = one_image().await;
    fake.fault(PATH, Fault::NoHead);
    fake.fault(PATH, Fault::header("docker-content-digest", other.clone()));
    assert_says(resolve(&remote(), &reference).await, Kind::DataLoss, &[&other, &fake.host()]);

    // The body contradicts the request.
    let (fake, _, target) = one_image().await;
    let by_digest = format!("{}/a/b@{}", fake.host(), target.digest);
    fake.fault("/v2/a/b/manifests/", Fault::WithoutHeader("docker-content-digest".to_owned()));
    fake.fault("/v2/a/b/manifests/", Fault::CorruptByte(3));
    assert_says(resolve(&remote(), &by_digest).await, Kind::DataLoss, &[&target.digest.to_string(), &fake.host()]);
}

#[tokio::test]
async fn the_missing_part_of_a_name_is_named() {
    let (fake, _, target) = one_image().await;
    let host = fake.host();
    let tag = resolve(&remote(), &format!("{host}/a/b:2")).await;
    let error = assert_says(tag, Kind::NotFound, &["tag \"2\" is not in repository a/b", &host]);
    assert_hints(&error, "the tags 1");

    let repository = resolve(&remote(), &format!("{host}/a/c:1")).await;
    assert_says(repository, Kind::NotFound, &["repository a/c is not at", &host]);

    let missing = Digest::sha256(b"missing");
    let digest = resolve(&remote(), &format!("{host}/a/b@{missing}")).await;
    assert_says(digest, Kind::NotFound, &[&format!("manifest {missing} is not in repository a/b"), &host]);

    // A registry that says it at once is not asked again.
    fake.fault("/v2/x/", Fault::error(404, "NAME_UNKNOWN", "repository name not known to registry"));
    fake.forget_requests();
    let said = resolve(&remote(), &format!("{host}/x:1")).await;
    assert_says(said, Kind::NotFound, &["repository x is not at"]);
    assert_eq!(fake.count("/v2/x/tags/list"), 0);

    // One that does not let its tags be listed leaves both open.
    fake.fault("/v2/a/b/tags/", Fault::error(403, "DENIED", "no"));
    let open = resolve(&remote(), &format!("{host}/a/b:2")).await;
    assert_says(open, Kind::NotFound, &["tag \"2\"", "repository a/b", &host]);
    drop(target);
}

#[tokio::test]
async fn a_reference_that_no_registry_can_look_up_is_refused_unasked() {
    let (fake, _, target) = one_image().await;
    let bare = format!("{}/a/b", fake.host());
    let error = assert_says(resolve(&remote(), &bare).await, Kind::InvalidArgument, &["no tag or digest"]);
    assert_hints(&error, ":latest");
    let partial = format!("{bare}@{}", &target.digest.to_string()[..20]);
    assert_says(resolve(&remote(), &partial).await, Kind::InvalidArgument, &["beginning of a digest"]);
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn schema_1_is_refused_with_a_way_out() {
    for media_type in [MediaType::DOCKER_SCHEMA1, MediaType::DOCKER_SCHEMA1_SIGNED, "application/json"] {
        let fake = Fake::start().await;
        fake.add_manifest("a/b", Some("1"), media_type, r#"{"schemaVersion":1,"fsLayers":[]}"#);
        let resolved = resolve(&remote(), &format!("{}/a/b:1", fake.host())).await;
        let error = assert_says(resolved, Kind::Unimplemented, &["schema 1", "tag \"1\"", "a/b"]);
        assert_hints(&error, "push the image again");
    }
}

#[tokio::test]
async fn an_artifact_of_a_type_of_its_own_is_resolved_as_it_is() {
    let fake = Fake::start().await;
    let target = fake.add_manifest("a/b", Some("1"), "application/vnd.example.thing.v1+json", "{}");
    let resolved = resolve(&remote(), &format!("{}/a/b:1", fake.host())).await.unwrap();
    assert_eq!(resolved.descriptor, target);
}

#[tokio::test]
async fn a_manifest_is_bounded_however_it_comes() {
    let fake = Fake::start().await;
    let huge = vec![b' '; (4 << 20) + 1];
    fake.add_manifest("a/b", Some("1"), MediaType::OCI_MANIFEST, huge);
    let reference = format!("{}/a/b:1", fake.host());
    assert_says(resolve(&remote(), &reference).await, Kind::ResourceExhausted, &["tag \"1\"", "a/b", "4194304"]);
    fake.fault(PATH, Fault::NoHead);
    assert_says(resolve(&remote(), &reference).await, Kind::ResourceExhausted, &["tag \"1\"", "a/b"]);
    fake.fault(PATH, Fault::Unannounced);
    assert_says(resolve(&remote(), &reference).await, Kind::ResourceExhausted, &["tag \"1\"", "a/b"]);
}

#[tokio::test]
async fn refusals_are_told_apart_and_name_host_and_object() {
    let (fake, reference, _) = one_image().await;
    let host = fake.host();
    for (fault, kind, words) in [
        (Fault::error(403, "DENIED", "requested access is denied"), Kind::PermissionDenied, "access is denied"),
        (Fault::error(429, "TOOMANYREQUESTS", "slow down"), Kind::ResourceExhausted, "limits the rate"),
        (Fault::status(500, "<html>oops</html>"), Kind::Unavailable, "500 Internal Server Error"),
        (Fault::status(502, "<html>\u{1b}[31mred</html>"), Kind::Unavailable, "502 Bad Gateway"),
        (Fault::error(400, "TAG_INVALID", "bad tag"), Kind::InvalidArgument, "bad tag"),
        (Fault::status(418, ""), Kind::Unknown, "418"),
        (Fault::status(404, "<html>not here</html>"), Kind::NotFound, "not in repository"),
        (Fault::status(405, ""), Kind::Unimplemented, "405"),
    ] {
        fake.clear_faults();
        fake.fault(PATH, fault.clone());
        let error = assert_says(resolve(&remote(), &reference).await, kind, &[&host, "a/b", words]);
        assert!(!error.to_string().contains("<html>"), "{error}");
        assert!(error.to_string().contains("tag \"1\""), "{error}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    for fault in [Fault::status(503, ""), Fault::status(429, ""), Fault::Hangup] {
        let (fake, reference, target) = one_image().await;
        fake.fault_times(PATH, fault.clone(), 2);
        let resolved = resolve(&remote(), &reference).await;
        assert_eq!(resolved.unwrap().descriptor, target, "{fault:?}");
    }
    let (fake, reference, _) = one_image().await;
    fake.fault(PATH, Fault::status(503, ""));
    resolve(&remote(), &reference).await.unwrap_err();
    assert_eq!(fake.count(PATH), 3);
    fake.clear_faults();
    fake.forget_requests();
    fake.fault(PATH, Fault::error(403, "DENIED", ""));
    resolve(&remote(), &reference).await.unwrap_err();
    assert_eq!(fake.count(PATH), 2, "one HEAD, and one GET for the words");
}

#[tokio::test]
async fn a_registry_is_left_alone_for_as_long_as_it_asks() {
    let after = |seconds: &str| Fault::Answer {
        status: 429,
        headers: vec![("retry-after".to_owned(), seconds.to_owned())],
        body: "".into(),
    };
    let (fake, reference, target) = one_image().await;
    fake.fault_times(PATH, after("1"), 1);
    let started = std::time::Instant::now();
    assert_eq!(resolve(&remote(), &reference).await.unwrap().descriptor, target);
    assert!(started.elapsed().as_millis() >= 1000, "{:?}", started.elapsed());

    fake.fault(PATH, after("3600"));
    let error = assert_says(resolve(&remote(), &reference).await, Kind::ResourceExhausted, &["3600 s", &fake.host()]);
    assert_hints(&error, "wait");
}

#[tokio::test]
async fn a_docker_manifest_list_is_resolved_as_one() {
    let fake = Fake::start().await;
    let list = r#"{"schemaVersion":2,"manifests":[]}"#;
    let target = fake.add_manifest("a/b", Some("1"), MediaType::DOCKER_LIST, list);
    let resolved = resolve(&remote(), &format!("{}/a/b:1", fake.host())).await.unwrap();
    assert_eq!(resolved.descriptor, target);
    assert_eq!(target, Descriptor::of(MediaType::DOCKER_LIST, list.as_bytes()));
}
