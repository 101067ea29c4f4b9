//! What is told of fetches that fail at real registries: Debian's `docker-registry` with passwords, tokens and TLS, and nginx
//! before it.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use windlass::core::remote::Resolver as _;
use windlass::core::{Descriptor, Digest, Platform};
use windlass::registry::{Certificate, Credential, ForHost, Options, Remote, Timeouts};
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::registry::{Access, DockerRegistry, Front, Identity, Nginx, TokenServer, Validity};

use crate::transcript::{NAME, SECRET, Transcript, options};

/// Who is asked are programs, which take their time on a machine that is busy.
fn patient() -> Options {
    Options { timeouts: Timeouts::default(), ..options() }
}

fn remote() -> Remote {
    Remote::new(patient()).unwrap()
}

fn by(registry: &str, user: (&str, &str)) -> Remote {
    let credentials = Arc::new(ForHost::new(registry, Credential::password(user.0, user.1), "a test"));
    Remote::new(Options { credentials, ..patient() }).unwrap()
}

fn trusting(identity: &Identity) -> Remote {
    let extra_roots = Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap();
    Remote::new(Options { extra_roots, ..patient() }).unwrap()
}

/// Pushes an image, as `NAME:1`.
fn fill(registry: &DockerRegistry, names: &[&str]) {
    let layout = TempDir::new().unwrap();
    let bundle = Image::new(&Platform::host().to_string()).layer(Layer::new().file("a", "a")).build();
    bundle.write_layout(layout.path(), "1").unwrap();
    for name in names {
        registry.push_layout(format!("{}:1", layout.path().display()), &format!("{name}:1"));
    }
}

/// Starts a registry, and hides where it is.
fn start(told: &mut Transcript, access: Access<'_>) -> DockerRegistry {
    let registry = DockerRegistry::start_with(access);
    told.hide(registry.host(), "HOST");
    told.hide(registry.port().to_string(), "PORT");
    registry
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_what_is_missing() {
    let mut told = Transcript::new();
    let registry = start(&mut told, Access { password: true, ..Access::default() });
    fill(&registry, &["a/b"]);
    let (host, user) = (registry.host(), registry.credentials().unwrap());
    let reference = format!("{host}/a/b:1");
    told.fails("a registry with passwords, without one", &remote(), &reference).await;
    told.fails("a wrong password", &by(host, (user.0, SECRET)), &reference).await;
    told.fails("a user who is not known", &by(host, ("nobody", SECRET)), &reference).await;
    let known = by(host, user);
    told.fails("a tag that is not there", &known, &format!("{host}/a/b:2")).await;
    told.fails("a repository that is not there", &known, &format!("{host}/absent:1")).await;
    let absent = Digest::sha256(b"absent");
    told.fails("a manifest that is not there", &known, &format!("{host}/a/b@{absent}")).await;
    assert!(!told.text.contains(user.1), "{}", told.text);
    insta::assert_snapshot!("real_passwords", told.text);
    assert_eq!(told.cases, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens() {
    let mut told = Transcript::new();
    let tokens = TokenServer::start().await;
    let registry = start(&mut told, Access { tokens: Some(&tokens), ..Access::default() });
    fill(&registry, &["team/a", "secret/a"]);
    let host = registry.host();
    let reader = by(host, TokenServer::READER);
    told.fails("a token for nothing, to whom nobody knows", &remote(), &format!("{host}/team/a:1")).await;
    told.fails("a token for less than was asked for", &reader, &format!("{host}/secret/a:1")).await;
    let wrong = by(host, (TokenServer::READER.0, SECRET));
    told.fails("a password that the token server refuses", &wrong, &format!("{host}/team/a:1")).await;

    let blob = Descriptor::of("application/octet-stream", b"a blob");
    let name = format!("{host}/team/a:1").parse().unwrap();
    let refused = reader.pusher(&name).await.unwrap().push(&blob).await;
    told.tell("a token that reads, and is to write", &refused.err().unwrap());
    assert!(!told.text.contains(TokenServer::READER.1), "{}", told.text);
    insta::assert_snapshot!("real_tokens", told.text);
    assert_eq!(told.cases, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates() {
    let mut told = Transcript::new();
    for (what, identity, is_trusted) in [
        ("a registry of an authority that is not known", Identity::new(&[NAME]), false),
        ("a registry with a certificate for another name", Identity::new(&["other.test"]), true),
        ("a registry whose certificate has expired", Identity::valid(&[NAME], Validity::Expired), true),
    ] {
        let registry = start(&mut told, Access { tls: Some(&identity), ..Access::default() });
        let remote = if is_trusted { trusting(&identity) } else { remote() };
        told.fails(what, &remote, &format!("{NAME}:{}/a/b:1", registry.port())).await;
    }
    let registry = start(&mut told, Access::default());
    told.fails("TLS to a registry without", &remote(), &format!("{NAME}:{}/a/b:1", registry.port())).await;

    let (server, clients) = (Identity::new(&[NAME]), Identity::new(&["client"]));
    let front = Front { upstream: registry.host(), tls: Some(&server), clients: Some(&clients), ..Front::default() };
    let nginx = Nginx::start(front);
    told.hide(nginx.port().to_string(), "PORT");
    told.fails("nginx that wants a certificate of ours", &trusting(&server), &format!("{NAME}:{}/a/b:1", nginx.port()))
        .await;
    insta::assert_snapshot!("real_certificates", told.text);
    assert_eq!(told.cases, 5);
}

/// Makes the one request that is allowed.
async fn use_up(host: &str) {
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(stream.read_to_end(&mut Vec::new()).await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_gateways() {
    let mut told = Transcript::new();
    let registry = start(&mut told, Access::default());
    fill(&registry, &["a/b"]);
    for (what, front) in [
        (
            "nginx that answers 429 to more than one request in a minute",
            Front { upstream: registry.host(), refuses: Some(429), ..Front::default() },
        ),
        (
            "nginx that answers 503 to more than one request in a minute",
            Front { upstream: registry.host(), refuses: Some(503), ..Front::default() },
        ),
        ("nginx before a registry that is not there", Front { upstream: "127.0.0.1:1", ..Front::default() }),
        (
            "nginx that serves the registry elsewhere",
            Front { upstream: registry.host(), prefix: "/x", ..Front::default() },
        ),
    ] {
        let nginx = Nginx::start(front);
        let host = format!("127.0.0.1:{}", nginx.port());
        told.hide(&host, "HOST");
        use_up(&host).await;
        told.fails(what, &remote(), &format!("{host}/a/b:1")).await;
    }
    insta::assert_snapshot!("real_limits", told.text);
    assert_eq!(told.cases, 4);
}
