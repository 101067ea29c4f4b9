//! Getting through to a host, and what is said when that fails.

use std::net::TcpListener;

use windlass_core::remote::ByteRange;
use windlass_core::{Kind, MediaType};
use windlass_registry::{Certificate, Options, PlainHttp, Remote};
use windlass_testkit::registry::{Fake, Fault, Identity, Validity};

use crate::support::{
    NO_NAME, OTHER_NAME, assert_hints, assert_says, fetch, fetcher, noise, one_image, options, read, remote, resolve,
};

fn trusting(identity: &Identity) -> Remote {
    let extra_roots = Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap();
    Remote::new(Options { extra_roots, ..options() }).unwrap()
}

/// A registry with TLS and the reference to an image in it, by a name that is not loopback.
async fn with_tls(identity: &Identity) -> (Fake, String) {
    let fake = Fake::start_tls(identity).await;
    fake.add_image("a/b", "1", &[]);
    let reference = format!("{OTHER_NAME}:{}/a/b:1", fake.port());
    (fake, reference)
}

#[tokio::test]
async fn https_is_spoken_to_a_host_that_is_not_this_machine() {
    let identity = Identity::new(&[OTHER_NAME]);
    let (fake, reference) = with_tls(&identity).await;
    let remote = trusting(&identity);
    let target = resolve(&remote, &reference).await.unwrap().descriptor;
    let bytes = noise(3_000_000);
    let layer = fake.add_blob("a/b", MediaType::OCI_LAYER_GZIP, bytes.clone());
    assert_eq!(fetch(&remote, &reference, &target, ByteRange::default()).await.unwrap().1, Some(target.size));

    // HTTP/2 was negotiated: all of it goes over one connection.
    let fetcher = fetcher(&remote, &reference).await;
    let fetches = (0..6).map(|_| async { read(fetcher.fetch(&layer, ByteRange::default()).await.unwrap()).await });
    for received in futures::future::join_all(fetches).await {
        assert_eq!(received.unwrap(), bytes);
    }
    assert!(fake.requests().iter().all(|request| request.connection == 0));
}

#[tokio::test]
async fn the_certificate_of_a_trusted_authority_itself_is_taken() {
    let identity = Identity::self_signed(&[OTHER_NAME], Validity::Current);
    let (_fake, reference) = with_tls(&identity).await;
    resolve(&trusting(&identity), &reference).await.unwrap();
    // Its name is not what makes it trusted.
    let another = Identity::self_signed(&[OTHER_NAME], Validity::Current);
    let refused = resolve(&trusting(&another), &reference).await;
    assert_says(refused, Kind::FailedPrecondition, &["certificate", "authority that is not trusted"]);
}

#[tokio::test]
async fn a_certificate_is_refused_with_the_reason() {
    for (identity, trusted, words, hint) in [
        (Identity::new(&[OTHER_NAME]), false, "authority that is not trusted", "ca-certificates"),
        (Identity::new(&["other.test"]), true, "other names (other.test)", "by a name"),
        (Identity::valid(&[OTHER_NAME], Validity::Expired), true, "has expired", "renew"),
        (Identity::valid(&[OTHER_NAME], Validity::NotYet), true, "not valid yet", "clock"),
        (
            Identity::self_signed(&[OTHER_NAME], Validity::Current),
            false,
            "authority that is not trusted",
            "ca-certificates",
        ),
        (
            Identity::self_signed_for_others(&[OTHER_NAME], "other.test"),
            true,
            "authority that is not trusted",
            "ca-certificates",
        ),
        (Identity::self_signed(&["other.test"], Validity::Current), true, "other names (other.test)", "by a name"),
        (Identity::self_signed(&[OTHER_NAME], Validity::Expired), true, "has expired", "renew"),
        (Identity::self_signed(&[OTHER_NAME], Validity::NotYet), true, "not valid yet", "clock"),
    ] {
        let (fake, reference) = with_tls(&identity).await;
        let remote = if trusted { trusting(&identity) } else { remote() };
        let resolved = resolve(&remote, &reference).await;
        let error = assert_says(resolved, Kind::FailedPrecondition, &["certificate", OTHER_NAME, words]);
        assert_hints(&error, hint);
        assert!(fake.requests().is_empty());
    }
}

#[tokio::test]
async fn a_host_without_an_address_is_not_found() {
    let error = assert_says(
        resolve(&remote(), &format!("{NO_NAME}/a/b:1")).await,
        Kind::NotFound,
        &[&format!("host {NO_NAME} is not found")],
    );
    assert_hints(&error, "spelling");
}

#[tokio::test]
async fn a_refused_connection_names_the_port() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for host in [format!("127.0.0.1:{port}"), format!("{OTHER_NAME}:{port}")] {
        let error = assert_says(
            resolve(&remote(), &format!("{host}/a/b:1")).await,
            Kind::Unavailable,
            &[&host, "refuses the connection"],
        );
        assert_hints(&error, &host);
    }
}

#[tokio::test]
async fn tls_to_a_plain_port_hints_at_plain_http() {
    let (fake, _, target) = one_image().await;
    let reference = format!("{OTHER_NAME}:{}/a/b:1", fake.port());
    let error =
        assert_says(resolve(&remote(), &reference).await, Kind::FailedPrecondition, &[OTHER_NAME, "speaks plain HTTP"]);
    assert_hints(&error, "--plain-http");
    let plain = Remote::new(Options { plain_http: PlainHttp::Always, ..options() }).unwrap();
    assert_eq!(resolve(&plain, &reference).await.unwrap().descriptor, target);
}

#[tokio::test]
async fn plain_http_to_a_tls_port_hints_at_tls() {
    let identity = Identity::new(&[OTHER_NAME]);
    let (fake, reference) = with_tls(&identity).await;
    let plain = Remote::new(Options { plain_http: PlainHttp::Always, ..options() }).unwrap();
    let error = resolve(&plain, &reference).await.unwrap_err();
    assert!(error.to_string().contains(OTHER_NAME), "{error}");
    assert_hints(&error, "leave out --plain-http");

    let loopback = resolve(&remote(), &format!("{}/a/b:1", fake.host())).await.unwrap_err();
    assert_hints(&loopback, "another name than a loopback one");
}

#[tokio::test]
async fn a_web_servers_answer_to_plain_http_on_its_tls_port_hints_at_tls() {
    let (fake, reference, _) = one_image().await;
    fake.fault("/v2/", Fault::status(400, "Client sent an HTTP request to an HTTPS server.\n"));
    let error = assert_says(
        resolve(&remote(), &reference).await,
        Kind::FailedPrecondition,
        &[&fake.host(), "tag \"1\" of a/b", "400 Bad Request", "plain HTTP"],
    );
    assert_hints(&error, "if it speaks TLS");
}

#[tokio::test]
async fn loopback_names_are_spoken_to_in_plain_http() {
    let (fake, _, target) = one_image().await;
    let reference = format!("localhost:{}/a/b:1", fake.port());
    assert_eq!(resolve(&remote(), &reference).await.unwrap().descriptor, target);
}

#[tokio::test]
async fn a_remote_can_be_told_to_never_speak_plain_http() {
    let (_fake, reference, _) = one_image().await;
    let remote = Remote::new(Options { plain_http: PlainHttp::Never, ..options() }).unwrap();
    assert_says(resolve(&remote, &reference).await, Kind::FailedPrecondition, &["speaks plain HTTP"]);
}
