//! Redirects: followed within bounds, and without credentials to anyone else.

use windlass_core::Kind;
use windlass_core::remote::ByteRange;
use windlass_core::{Descriptor, MediaType};
use windlass_registry::{Certificate, Options, Remote};
use windlass_testkit::registry::{Auth, Fake, Fault, Identity};

use crate::support::{
    OTHER_NAME, assert_hints, assert_says, blob_path, fetch, options, password, remote, remote_with, resolve,
};

const SECRET: &str = "hunter2-is-secret";

/// A registry that wants a password and redirects its blob to a place of the given host name.
async fn redirecting_to(name: &str) -> (Fake, Fake, String, Descriptor) {
    let (registry, storage) = (Fake::start().await, Fake::start().await);
    registry.require(Auth::Basic { username: "user".to_owned(), password: SECRET.to_owned() });
    let blob = registry.add_blob("a/b", MediaType::OCI_LAYER_GZIP, "the blob");
    storage.add_blob("a/b", MediaType::OCI_LAYER_GZIP, "the blob");
    let location = format!("http://{name}:{}{}?signature=signed", storage.port(), blob_path("a/b", &blob));
    registry.fault(blob_path("a/b", &blob), Fault::redirect_to(location));
    let reference = format!("{}/a/b:1", registry.host());
    (registry, storage, reference, blob)
}

#[tokio::test]
async fn credentials_do_not_leave_the_host_they_are_for() {
    for name in ["127.0.0.1", "localhost"] {
        let (registry, storage, reference, blob) = redirecting_to(name).await;
        let remote = remote_with(password("user", SECRET));
        // The registry has asked before, so that the password is sent at once.
        registry.add_image("a/b", "1", &[]);
        resolve(&remote, &reference).await.unwrap();
        let (offset, _, part) = fetch(&remote, &reference, &blob, ByteRange::from(4)).await.unwrap();
        assert_eq!((offset, &part[..]), (4, &b"blob"[..]));
        assert!(registry.requests().last().unwrap().header("authorization").is_some());
        let [request] = &storage.requests()[..] else { panic!("{:?}", storage.requests()) };
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("range"), Some("bytes=4-"));
        assert_eq!(request.query.as_deref(), Some("signature=signed"));
    }
}

#[tokio::test]
async fn credentials_stay_on_a_redirect_within_the_host() {
    let registry = Fake::start().await;
    registry.require(Auth::Basic { username: "user".to_owned(), password: SECRET.to_owned() });
    let (from, to) = (registry.add_blob("a/b", "", "from"), registry.add_blob("a/c", "", "to"));
    registry.fault(blob_path("a/b", &from), Fault::redirect_to(blob_path("a/c", &to)));
    let remote = remote_with(password("user", SECRET));
    let name = format!("{}/a/b:1", registry.host());
    let (_, _, bytes) = fetch(&remote, &name, &from, ByteRange::default()).await.unwrap();
    assert_eq!(bytes, b"to");
}

#[tokio::test]
async fn the_challenge_of_another_host_is_not_answered() {
    let (registry, storage, reference, blob) = redirecting_to("127.0.0.1").await;
    storage.require(Auth::Basic { username: "user".to_owned(), password: SECRET.to_owned() });
    // The fault answers before the registry asks: nothing is sent to anyone.
    let remote = remote_with(password("user", SECRET));
    let fetched = fetch(&remote, &reference, &blob, ByteRange::default()).await;
    let error = assert_says(
        fetched,
        Kind::Unauthenticated,
        &[&storage.host(), &registry.host(), &blob.digest.to_string(), "redirects"],
    );
    assert!(!format!("{error:?}").contains("signature"), "{error:?}");
    assert_eq!(storage.requests().len(), 1);
    assert_eq!(storage.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_redirect_in_a_circle_ends() {
    let registry = Fake::start().await;
    let blob = registry.add_blob("a/b", "", "x");
    let path = blob_path("a/b", &blob);
    registry.fault(path.clone(), Fault::redirect_to(path.clone()));
    let name = format!("{}/a/b:1", registry.host());
    let fetched = fetch(&remote(), &name, &blob, ByteRange::default()).await;
    let error = assert_says(fetched, Kind::FailedPrecondition, &[&registry.host(), "a/b", "10 times"]);
    assert_hints(&error, "circle");
    assert_eq!(registry.count(&path), 11);
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_refused() {
    let registry = Fake::start().await;
    let blob = registry.add_blob("a/b", "", "x");
    let name = format!("{}/a/b:1", registry.host());
    for location in ["ftp://a.test/x", "http://user:hunter2@a.test/", "", "http://a b/"] {
        registry.clear_faults();
        registry.fault(blob_path("a/b", &blob), Fault::redirect_to(location));
        let fetched = fetch(&remote(), &name, &blob, ByteRange::default()).await;
        let error = assert_says(fetched, Kind::FailedPrecondition, &[&registry.host(), "redirects"]);
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn tls_is_not_given_up_by_a_redirect() {
    let identity = Identity::new(&[OTHER_NAME]);
    let (registry, storage) = (Fake::start_tls(&identity).await, Fake::start().await);
    let blob = registry.add_blob("a/b", "", "x");
    storage.add_blob("a/b", "", "x");
    let path = blob_path("a/b", &blob);
    registry.fault(path.clone(), Fault::redirect_to(format!("{}{path}", storage.url())));
    let extra_roots = Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap();
    let remote = Remote::new(Options { extra_roots, ..options() }).unwrap();
    let name = format!("{OTHER_NAME}:{}/a/b:1", registry.port());
    let fetched = fetch(&remote, &name, &blob, ByteRange::default()).await;
    assert_says(fetched, Kind::FailedPrecondition, &[OTHER_NAME, "from HTTPS to plain HTTP"]);
    assert!(storage.requests().is_empty());
}
