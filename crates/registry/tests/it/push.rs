//! What is pushed to a registry, and what becomes of it when the registry misbehaves.

use std::time::Duration;

use bytes::Bytes;
use windlass_core::content::{Commit, Writer, copy};
use windlass_core::remote::{Push, Pusher, Resolver as _, SOURCE_LABEL};
use windlass_core::{Descriptor, Error, Kind, MediaType, Result};
use windlass_registry::{Certificate, Options, PlainHttp, Remote};
use windlass_testkit::registry::{Auth, Bearer, DockerRegistry, Fake, Fault, Identity, Taking};

use crate::sample;
use crate::support::{
    OTHER_NAME, assert_hints, assert_says, assert_tells, fetch, impatient, noise, options, password, remote,
    remote_with, resolve,
};

const UPLOADS: &str = "/v2/a/b/blobs/uploads/";

async fn pusher(remote: &Remote, name: &str) -> std::sync::Arc<dyn Pusher> {
    remote.pusher(&name.parse().unwrap()).await.unwrap()
}

/// Writes all there is, once, and commits.
async fn write(mut writer: Box<dyn Writer>, bytes: &[u8]) -> Result<()> {
    let mut source = Bytes::copy_from_slice(bytes);
    copy(&mut *writer, &mut source, None).await?;
    writer.commit(Commit::default()).await.map(drop)
}

/// Pushes something whole, as often as it fails for a reason that may pass.
async fn push(pusher: &dyn Pusher, descriptor: &Descriptor, bytes: &[u8]) -> Result<&'static str> {
    let mut failed = Error::internal("it was not tried");
    for _ in 0..8 {
        let mut writer = match pusher.push(descriptor).await? {
            Push::Exists => return Ok("exists"),
            Push::Mounted { .. } => return Ok("mounted"),
            Push::Upload(writer) => writer,
        };
        let mut source = Bytes::copy_from_slice(bytes);
        for _ in 0..8 {
            match copy(&mut *writer, &mut source, None).await {
                Ok(_) => match writer.commit(Commit::default()).await {
                    Ok(_) => return Ok("uploaded"),
                    Err(error) => {
                        failed = error;
                        break;
                    }
                },
                Err(error) if error.is(Kind::Unavailable) => {
                    failed = error;
                    writer.status().await?;
                }
                Err(error) => return Err(error),
            }
        }
        if !failed.is(Kind::Unavailable) {
            return Err(failed);
        }
    }
    Err(failed)
}

/// A fake, the name of something in it, and a blob that is not there.
async fn nothing() -> (Fake, String, Descriptor, Vec<u8>) {
    let fake = Fake::start().await;
    let bytes = noise(3_000_000);
    let name = format!("{}/a/b:1", fake.host());
    let blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes);
    (fake, name, blob, bytes)
}

/// The methods and paths of requests, without what changes.
fn asked(fake: &Fake) -> Vec<String> {
    let requests = fake.requests();
    requests
        .iter()
        .map(|request| {
            let path = request.path.rsplit_once("/blobs/").map_or(request.path.as_str(), |(_, object)| object);
            format!("{} {}", request.method, path.split(':').next().unwrap_or(path))
        })
        .collect()
}

#[tokio::test]
async fn a_blob_goes_in_one_request_and_is_asked_for_afterwards() {
    let (fake, name, blob, bytes) = nothing().await;
    let pusher = pusher(&remote(), &name).await;
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    assert_eq!(asked(&fake), ["HEAD sha256", "POST uploads/", "PUT uploads/upload-1", "HEAD sha256"]);
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);
    let put = &fake.requests()[2];
    assert_eq!(put.header("content-length"), Some("3000000"));
    assert_eq!(put.query.as_deref(), Some(format!("_state=of-upload-1&digest={}", blob.digest).as_str()));

    fake.forget_requests();
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "exists");
    assert_eq!(asked(&fake), ["HEAD sha256"]);
    let empty = Descriptor::of(MediaType::OCI_EMPTY, b"");
    assert_eq!(push(&*pusher, &empty, b"").await.unwrap(), "uploaded");
    assert_eq!(fake.blob("a/b", &empty.digest).unwrap(), "");
}

#[tokio::test]
async fn a_blob_is_mounted_from_where_it_came_if_that_is_the_same_host() {
    let (fake, name, blob, bytes) = nothing().await;
    fake.add_blob("x/y", MediaType::OCI_LAYER_GZIP, bytes.clone());
    let pusher = pusher(&remote(), &name).await;
    let from = |host: &str, from: &str| {
        let annotations = [(format!("{SOURCE_LABEL}{host}"), from.to_owned())].into();
        Descriptor { annotations, ..blob.clone() }
    };
    // Another host, the same repository, and what is no repository at all.
    for strange in [from("other.test", "x/y"), from(&fake.host(), "a/b"), from(&fake.host(), "x/y?z=1")] {
        let Push::Upload(_) = pusher.push(&strange).await.unwrap() else { panic!("it was mounted") };
    }
    assert!(fake.requests().iter().all(|request| request.query.is_none()), "{:?}", fake.requests());

    // It is not there: an upload has begun instead.
    fake.forget_requests();
    let Push::Upload(writer) = pusher.push(&from(&fake.host(), "q/r")).await.unwrap() else { panic!("mounted") };
    assert_eq!(asked(&fake), ["HEAD sha256", "POST uploads/"]);
    drop(writer);
    let mounted = pusher.push(&from(&fake.host(), "q/r, x/y,a/b")).await.unwrap();
    let Push::Mounted { from: repository } = mounted else { panic!("it was not mounted") };
    assert_eq!(repository, "x/y");
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);
    // As containerd writes it, without the port.
    fake.remove("a/b", &blob.digest);
    let Push::Mounted { .. } = pusher.push(&from("127.0.0.1", "x/y")).await.unwrap() else { panic!("not mounted") };
}

#[tokio::test]
async fn a_token_is_for_what_is_done() {
    let (fake, name, blob, bytes) = nothing().await;
    fake.add_blob("x/y", MediaType::OCI_LAYER_GZIP, bytes.clone());
    fake.require(Auth::Bearer(Bearer { user: Some(("u".into(), "p".into())), ..Bearer::default() }));
    let pusher = pusher(&remote_with(password("u", "p")), &name).await;
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    let annotations = [(format!("{SOURCE_LABEL}{}", fake.host()), "x/y".to_owned())].into();
    fake.remove("a/b", &blob.digest);
    assert_eq!(push(&*pusher, &Descriptor { annotations, ..blob }, &bytes).await.unwrap(), "mounted");
    let tokens: Vec<String> =
        fake.requests().iter().filter(|it| it.path == "/token").filter_map(|it| it.query.clone()).collect();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    assert!(tokens[0].contains("repository%3Aa%2Fb%3Apull%2Cpush"), "{tokens:?}");
    assert!(tokens[1].contains("repository%3Ax%2Fy%3Apull"), "{tokens:?}");
}

#[tokio::test]
async fn a_token_that_is_revoked_in_the_middle_is_renewed() {
    let (fake, name, blob, bytes) = nothing().await;
    fake.require(Auth::Bearer(Bearer { user: Some(("u".into(), "p".into())), ..Bearer::default() }));
    let pusher = pusher(&remote_with(password("u", "p")), &name).await;
    let Push::Upload(mut writer) = pusher.push(&blob).await.unwrap() else { panic!("it is there") };
    fake.revoke_tokens();
    let mut source = Bytes::from(bytes.clone());
    let error = match copy(&mut *writer, &mut source, None).await {
        Ok(_) => writer.commit(Commit::default()).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);
}

#[tokio::test]
async fn an_upload_that_is_cut_goes_on_where_it_was() {
    let (fake, name, blob, bytes) = nothing().await;
    fake.fault_method("PUT", UPLOADS, Fault::CutUploadAfter(1_000_000), 1);
    fake.fault_method("PATCH", UPLOADS, Fault::CutUploadAfter(500_000), 1);
    let pusher = pusher(&remote(), &name).await;
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);
    assert_eq!(fake.uploads_begun(), 1);
    let ranges: Vec<String> =
        fake.requests().iter().filter_map(|it| it.header("content-range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["1000000-2999999", "1500000-2999999"]);
}

#[tokio::test]
async fn an_upload_that_is_lost_begins_again() {
    let (fake, name, blob, bytes) = nothing().await;
    let pusher = pusher(&remote(), &name).await;
    let Push::Upload(writer) = pusher.push(&blob).await.unwrap() else { panic!("it is there") };
    fake.forget_uploads();
    let error = write(writer, &bytes).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    // In the middle, too.
    fake.fault_method("PUT", UPLOADS, Fault::CutUploadAfter(1_000_000), 1);
    fake.fault_method("GET", UPLOADS, Fault::error(404, "BLOB_UPLOAD_UNKNOWN", "lost"), 1);
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);
    assert_eq!(fake.uploads_begun(), 3);
}

#[tokio::test]
async fn a_registry_that_stands_elsewhere_is_believed() {
    let (fake, name, blob, bytes) = nothing().await;
    fake.take(Taking { largest: Some(1_000_000), ..Taking::default() });
    // The first chunk is answered with 416, as if another one were expected.
    fake.fault_method("PATCH", UPLOADS, Fault::error(416, "RANGE_INVALID", "range"), 1);
    let pusher = pusher(&remote(), &name).await;
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);
}

#[tokio::test]
async fn what_is_too_large_for_a_request_goes_in_chunks() {
    let (fake, name, blob, bytes) = nothing().await;
    fake.take(Taking { largest: Some(1_000_000), ..Taking::default() });
    let pusher = pusher(&remote(), &name).await;
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);
    let chunks = |fake: &Fake| {
        fake.requests().iter().filter(|it| it.method == "PATCH").map(|it| it.body.len()).collect::<Vec<_>>()
    };
    assert_eq!(chunks(&fake), [750_000; 4]);
    // What was found out is remembered, and the least that a registry wants is kept to.
    fake.forget_requests();
    fake.take(Taking { chunk_min_length: Some(900_000), largest: Some(1_000_000), ..Taking::default() });
    let other = noise(2_000_001);
    let blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, &other[1..]);
    assert_eq!(push(&*pusher, &blob, &other[1..]).await.unwrap(), "uploaded");
    assert_eq!(chunks(&fake), [900_000, 900_000, 200_000]);

    fake.take(Taking { largest: Some(10), ..Taking::default() });
    let error = push(&*pusher, &Descriptor::of("x/y", &bytes[1..]), &bytes[1..]).await;
    let error = assert_says(error, Kind::ResourceExhausted, &[&fake.host(), "larger than", "a/b"]);
    assert_hints(&error, "limits the size");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_end_is_heard() {
    let (fake, name, _, _) = nothing().await;
    let bytes = noise(20_000_000);
    let blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes);
    fake.fault(UPLOADS.to_owned() + "upload", Fault::Unread(403));
    let pusher = pusher(&remote(), &name).await;
    let error = push(&*pusher, &blob, &bytes).await;
    assert_says(error, Kind::PermissionDenied, &[&fake.host(), "forbids pushing", "a/b"]);
}

#[tokio::test]
async fn a_location_elsewhere_gets_no_credentials() {
    let (fake, name, blob, bytes) = nothing().await;
    let elsewhere = Fake::start().await;
    fake.require(Auth::Basic { username: "u".into(), password: "p".into() });
    let pusher = pusher(&remote_with(password("u", "p")), &name).await;
    fake.fault_method("POST", UPLOADS, Fault::header("location", format!("{}/steal?x=1", elsewhere.url())), 1);
    // It is not taken there, and the next try is answered as it should be.
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    let requests = elsewhere.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests.iter().all(|request| request.header("authorization").is_none()), "{requests:?}");

    let other = Descriptor::of("x/y", b"other");
    for location in ["ftp://x.test/", ""] {
        fake.fault_method("POST", UPLOADS, Fault::header("location", location), 1);
        assert_says(push(&*pusher, &other, b"other").await, Kind::FailedPrecondition, &[&fake.host()]);
    }
}

#[tokio::test]
async fn an_upload_does_not_leave_tls() {
    let identity = Identity::new(&[OTHER_NAME]);
    let fake = Fake::start_tls(&identity).await;
    let options = Options {
        extra_roots: Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap(),
        plain_http: PlainHttp::Never,
        ..options()
    };
    let remote = Remote::new(options).unwrap();
    let bytes = noise(1_000_000);
    let blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes);
    let pusher = pusher(&remote, &format!("{OTHER_NAME}:{}/a/b:1", fake.port())).await;
    fake.fault_method("POST", UPLOADS, Fault::header("location", format!("http://{OTHER_NAME}:{}/x", fake.port())), 1);
    assert_says(push(&*pusher, &blob, &bytes).await, Kind::FailedPrecondition, &["from HTTPS to plain HTTP"]);
    // And over HTTP/2 all is as it was.
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);
}

#[tokio::test]
async fn errors_of_the_server_pass() {
    let (fake, name, blob, bytes) = nothing().await;
    fake.fault_method("POST", UPLOADS, Fault::status(503, ""), 1);
    fake.fault_method("PUT", UPLOADS, Fault::status(502, "<html>"), 1);
    fake.fault_method("PUT", UPLOADS, Fault::Hangup, 1);
    let pusher = pusher(&remote(), &name).await;
    assert_eq!(push(&*pusher, &blob, &bytes).await.unwrap(), "uploaded");
    assert_eq!(fake.blob("a/b", &blob.digest).unwrap(), bytes);

    fake.fault(UPLOADS, Fault::status(500, ""));
    let other = Descriptor::of("x/y", b"other");
    assert_says(push(&*pusher, &other, b"other").await, Kind::Unavailable, &[&fake.host(), "500"]);
}

#[tokio::test]
async fn a_registry_that_takes_nothing_more_is_given_up() {
    let (fake, name, blob, bytes) = nothing().await;
    fake.fault_method("PUT", UPLOADS, Fault::Silence, 1);
    let pusher = pusher(&impatient(), &name).await;
    let Push::Upload(writer) = pusher.push(&blob).await.unwrap() else { panic!("it is there") };
    let began = std::time::Instant::now();
    assert_says(write(writer, &bytes).await, Kind::DeadlineExceeded, &[&fake.host()]);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_a_registry_says_that_it_took_is_compared() {
    let (fake, name, blob, bytes) = nothing().await;
    let pusher = pusher(&remote(), &name).await;
    let other = Descriptor::of("x/y", b"other").digest.to_string();
    fake.fault_method("PUT", "/v2/", Fault::header("docker-content-digest", other.clone()), 1);
    assert_says(push(&*pusher, &blob, &bytes).await, Kind::DataLoss, &[&fake.host(), &other]);
    fake.take(Taking { loses: true, ..Taking::default() });
    let lost = Descriptor::of("x/y", b"lost");
    let error = push(&*pusher, &lost, b"lost").await;
    assert_says(error, Kind::DataLoss, &[&fake.host(), "has not got it", &lost.digest.to_string()]);
    let manifest = r#"{"schemaVersion":2,"manifests":[]}"#;
    let descriptor = Descriptor::of(MediaType::OCI_INDEX, manifest.as_bytes());
    let error = push(&*pusher, &descriptor, manifest.as_bytes()).await;
    assert_says(error, Kind::DataLoss, &[&fake.host(), "has not got it", "tag \"1\""]);
}

#[tokio::test]
async fn bytes_that_are_not_what_they_should_be_are_not_sent_whole() {
    let (fake, name, blob, mut bytes) = nothing().await;
    bytes[2_999_999] ^= 1;
    let pusher = pusher(&remote(), &name).await;
    assert_says(push(&*pusher, &blob, &bytes).await, Kind::DataLoss, &[&blob.digest.to_string()]);
    assert!(fake.blob("a/b", &blob.digest).is_none());
    assert_eq!(asked(&fake).last().unwrap(), "DELETE uploads/upload-1");
    let manifest = Descriptor::of(MediaType::OCI_INDEX, b"{\"manifests\":[]}");
    let error = push(&*pusher, &manifest, b"{\"manifests\":{}}").await;
    assert_says(error, Kind::DataLoss, &[&manifest.digest.to_string()]);
}

#[tokio::test]
async fn who_may_not_push_is_told_why() {
    let (fake, name, blob, bytes) = nothing().await;
    let pusher = pusher(&remote(), &name).await;
    for (status, code, (kind, reason), word) in [
        (403, "DENIED", (Kind::PermissionDenied, "access-denied"), "forbids pushing"),
        (405, "UNSUPPORTED", (Kind::Unimplemented, "not-offered"), "does not take"),
        (404, "NAME_UNKNOWN", (Kind::NotFound, "repository-not-found"), "takes no pushes"),
        (400, "NAME_INVALID", (Kind::InvalidArgument, "not-accepted"), "does not accept"),
        (507, "UNKNOWN", (Kind::ResourceExhausted, "registry-full"), "has no room"),
    ] {
        fake.fault_method("POST", UPLOADS, Fault::error(status, code, "these are the words"), 1);
        let error = push(&*pusher, &blob, &bytes).await;
        let error = assert_says(error, kind, &[&fake.host(), "a/b", word, "these are the words"]);
        assert_tells(&error, reason, &fake.host(), status);
    }
    fake.require(Auth::Basic { username: "u".into(), password: "secret".into() });
    assert_says(push(&*pusher, &blob, &bytes).await, Kind::Unauthenticated, &[&fake.host(), "wants credentials"]);
    let manifest = format!(r#"{{"schemaVersion":2,"config":{}}}"#, serde_json::to_string(&blob).unwrap());
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
    let identified = self::pusher(&remote_with(password("u", "secret")), &name).await;
    let error = push(&*identified, &descriptor, manifest.as_bytes()).await;
    assert_says(error, Kind::FailedPrecondition, &[&fake.host(), "lacks what", &blob.digest.to_string()]);
}

#[tokio::test]
async fn a_tag_is_for_the_digest_that_the_name_has() {
    let (fake, name, _, _) = nothing().await;
    let child = r#"{"schemaVersion":2,"manifests":[]}"#;
    let child = (Descriptor::of(MediaType::OCI_INDEX, child.as_bytes()), child.to_owned());
    let parent = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, serde_json::to_string(&child.0).unwrap());
    let parent = (Descriptor::of(MediaType::OCI_INDEX, parent.as_bytes()), parent);
    let pusher = pusher(&remote(), &format!("{name}@{}", parent.0.digest)).await;
    for (descriptor, bytes) in [&child, &parent] {
        assert_eq!(push(&*pusher, descriptor, bytes.as_bytes()).await.unwrap(), "uploaded");
        assert_eq!(push(&*pusher, descriptor, bytes.as_bytes()).await.unwrap(), "exists");
    }
    assert_eq!(fake.manifest("a/b", "1").unwrap().1, parent.1);
    assert_eq!(fake.manifest("a/b", &child.0.digest.to_string()).unwrap().1, child.1);
    // A tag that points at something else is not what is wanted.
    let pusher = self::pusher(&remote(), &format!("{name}@{}", child.0.digest)).await;
    assert_eq!(push(&*pusher, &child.0, child.1.as_bytes()).await.unwrap(), "uploaded");
    assert_eq!(fake.manifest("a/b", "1").unwrap().1, child.1);
}

fn referrer(of: &Descriptor, kind: &str) -> (Descriptor, String) {
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "artifactType": kind,
        "manifests": [], "subject": of, "annotations": {"k": kind},
    })
    .to_string();
    (Descriptor::of(MediaType::OCI_INDEX, json.as_bytes()), json)
}

#[tokio::test]
async fn referrers_are_listed_by_a_tag_unless_the_registry_lists_them() {
    let (fake, name, subject, _) = nothing().await;
    let by_digest = |descriptor: &Descriptor| format!("{}@{}", name.trim_end_matches(":1"), descriptor.digest);
    let tag = format!("sha256-{}", subject.digest.hex());
    for (at, kind) in ["text/a", "text/b"].into_iter().enumerate() {
        let (descriptor, json) = referrer(&subject, kind);
        let pusher = pusher(&remote(), &by_digest(&descriptor)).await;
        assert_eq!(push(&*pusher, &descriptor, json.as_bytes()).await.unwrap(), "uploaded");
        let list: serde_json::Value = serde_json::from_slice(&fake.manifest("a/b", &tag).unwrap().1).unwrap();
        let entry = &list["manifests"][at];
        assert_eq!(list["manifests"].as_array().unwrap().len(), at + 1);
        assert_eq!((&entry["artifactType"], &entry["annotations"]["k"]), (&kind.into(), &kind.into()));
        assert_eq!(entry["digest"], descriptor.digest.to_string());
    }
    fake.take(Taking { lists_referrers: true, ..Taking::default() });
    let (descriptor, json) = referrer(&subject, "text/c");
    fake.forget_requests();
    push(&*pusher(&remote(), &by_digest(&descriptor)).await, &descriptor, json.as_bytes()).await.unwrap();
    assert_eq!(fake.count(&format!("/v2/a/b/manifests/{tag}")), 0);

    // A tag of that name which is something else is left alone.
    fake.take(Taking::default());
    fake.add_manifest("a/b", Some(&tag), MediaType::OCI_MANIFEST, "{}");
    let (descriptor, json) = referrer(&subject, "text/d");
    let error = push(&*pusher(&remote(), &by_digest(&descriptor)).await, &descriptor, json.as_bytes()).await;
    assert_says(error, Kind::FailedPrecondition, &[&tag, "not an index"]);
    assert_eq!(fake.manifest("a/b", &tag).unwrap().1, "{}");
}

#[tokio::test]
async fn a_list_that_others_write_over_is_written_again() {
    let (fake, name, subject, _) = nothing().await;
    let tag = format!("sha256-{}", subject.digest.hex());
    let (descriptor, json) = referrer(&subject, "text/a");
    // The first time it is read again, somebody else's list is there.
    let theirs = r#"{"schemaVersion":2,"manifests":[{"digest":"theirs"}]}"#;
    let path = format!("/v2/a/b/manifests/{tag}");
    fake.fault_method("GET", path.clone(), Fault::Bytes(theirs.into()), 3);
    let pusher = pusher(&remote(), &format!("{}@{}", name.trim_end_matches(":1"), descriptor.digest)).await;
    assert_eq!(push(&*pusher, &descriptor, json.as_bytes()).await.unwrap(), "uploaded");
    let list = String::from_utf8(fake.manifest("a/b", &tag).unwrap().1.to_vec()).unwrap();
    assert!(list.contains(&descriptor.digest.to_string()), "{list}");
}

#[tokio::test]
async fn a_real_registry_takes_an_image_and_gives_it_back() {
    for registry in [DockerRegistry::start(), DockerRegistry::start_with_password()] {
        let sample = sample::layout();
        let remote = match registry.credentials() {
            Some((user, secret)) => remote_with(password(user, secret)),
            None => remote(),
        };
        let name = format!("{}/a/b:pushed", registry.host());
        let to = pusher(&remote, &format!("{name}@{}", sample.manifest.digest)).await;
        let from = remote.fetcher(&sample.reference("multi").parse().unwrap()).await.unwrap();
        for descriptor in [&sample.layer, &sample.config, &sample.manifest] {
            let body = from.fetch(descriptor, windlass_core::remote::ByteRange::default()).await.unwrap();
            let bytes = crate::support::read(body).await.unwrap();
            assert_eq!(push(&*to, descriptor, &bytes).await.unwrap(), "uploaded");
            assert_eq!(push(&*to, descriptor, &bytes).await.unwrap(), "exists");
        }
        assert_eq!(resolve(&remote, &name).await.unwrap().descriptor, sample.manifest);
        let range = windlass_core::remote::ByteRange::default();
        let (_, _, layer) = fetch(&remote, &name, &sample.layer, range).await.unwrap();
        assert_eq!(layer, sample.layer_bytes);
        // Another repository of the same host takes it over.
        let other = pusher(&remote, &format!("{}/c:1", registry.host())).await;
        let annotations = [(format!("{SOURCE_LABEL}{}", registry.host()), "a/b".to_owned())].into();
        let came = Descriptor { annotations, ..sample.layer.clone() };
        assert_eq!(push(&*other, &came, &sample.layer_bytes).await.unwrap(), "mounted");
    }
}

#[tokio::test]
async fn a_real_registry_goes_on_with_a_cut_upload_and_takes_chunks() {
    let registry = DockerRegistry::start();
    let bytes = noise(5_000_000);
    let blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes);
    let name = format!("{}/a/b:1", registry.host());
    // A fake in front answers for the real one where it is to go wrong: here the connection is ours to cut.
    let to = pusher(&remote(), &name).await;
    let Push::Upload(mut writer) = to.push(&blob).await.unwrap() else { panic!("it is there") };
    writer.write(Bytes::copy_from_slice(&bytes[..3_000_000])).await.unwrap();
    drop(writer);
    assert_eq!(push(&*to, &blob, &bytes).await.unwrap(), "uploaded");
    let (_, _, back) = fetch(&remote(), &name, &blob, windlass_core::remote::ByteRange::default()).await.unwrap();
    assert_eq!(back, bytes);
}
