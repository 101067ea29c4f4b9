//! Every way in which a fetch fails, as it is told: what failed, who was asked and what each said, what to do next; and that
//! nothing of it is kept.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use windlass::core::{Digest, MediaType, Platform};
use windlass::registry::{Options, PlainHttp, Remote};
use windlass_testkit::image::{Bundle, Image, Index, Layer, schema1};
use windlass_testkit::registry::{Auth, Bearer, Fake, Fault, Identity, Validity};

use crate::transcript::{MISSING, NAME, NOWHERE, SECRET, Transcript, options, remote, trusting, with_password};

fn image() -> Bundle {
    Image::new(&Platform::host().to_string()).layer(Layer::new().file("a", "a".repeat(20_000))).build()
}

/// Puts an image into a fake registry, as `a/b:1`.
fn serve(fake: &Fake, bundle: &Bundle) {
    for (digest, bytes) in &bundle.blobs {
        if *digest == bundle.root.digest {
            fake.add_manifest("a/b", Some("1"), bundle.root.media_type.as_str(), bytes.clone());
        } else {
            fake.add_blob("a/b", "application/octet-stream", bytes.clone());
        }
    }
}

/// A registry with an image, and the reference to it.
async fn registry(transcript: &mut Transcript) -> (Fake, String) {
    let fake = Fake::start().await;
    serve(&fake, &image());
    transcript.hide(fake.host(), "HOST");
    let reference = format!("{}/a/b:1", fake.host());
    (fake, reference)
}

/// The same with TLS, by a name.
async fn secure(transcript: &mut Transcript, identity: &Identity) -> (Fake, String) {
    let fake = Fake::start_tls(identity).await;
    serve(&fake, &image());
    transcript.hide(fake.port().to_string(), "PORT");
    let reference = format!("{NAME}:{}/a/b:1", fake.port());
    (fake, reference)
}

/// A server that answers every connection with these bytes, once it was sent something, and closes it.
async fn answering(bytes: impl Into<Bytes>) -> (JoinHandle<()>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, bytes) = (listener.local_addr().unwrap().port(), bytes.into());
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut some = [0; 4096];
                let _ = stream.read(&mut some).await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (server, port)
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Fault {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Fault::Answer { status, headers, body: body.to_owned().into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections() {
    let mut told = Transcript::new();
    told.fails("a host without an address", &remote(), &format!("{MISSING}/a/b:1")).await;
    told.fails("a host to which there is no way", &remote(), &format!("{NOWHERE}:5000/a/b:1")).await;
    told.fails("a port where nothing listens", &remote(), "127.0.0.1:1/a/b:1").await;

    let (fake, reference) = registry(&mut told).await;
    fake.fault("/v2/", Fault::Silence);
    told.fails("a server that never answers", &remote(), &reference).await;
    fake.clear_faults();
    fake.fault("/v2/", Fault::Hangup);
    told.fails("a server that hangs up", &remote(), &reference).await;
    fake.clear_faults();
    told.hide(fake.port().to_string(), "PORT");
    told.fails("TLS to a server without", &remote(), &format!("{NAME}:{}/a/b:1", fake.port())).await;

    let bomb: Vec<String> = (0..20_000).map(|number| format!("X-{number}: {}\r\n", "x".repeat(50))).collect();
    let bomb = bomb.concat();
    for (what, bytes) in [
        ("something that is not HTTP", "SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
        ("a bomb of headers", format!("HTTP/1.1 200 OK\r\n{bomb}\r\n")),
        ("many headers", format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(1000))),
        ("a server that closes without an answer", String::new()),
    ] {
        let (_server, port) = answering(bytes).await;
        told.hide(port.to_string(), "PORT");
        told.fails(what, &remote(), &format!("127.0.0.1:{port}/a/b:1")).await;
    }
    insta::assert_snapshot!("connections", told.text);
    assert_eq!(told.cases, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls() {
    let mut told = Transcript::new();
    for (what, identity, trusted) in [
        ("an authority that is not known", Identity::new(&[NAME]), false),
        ("a certificate for another name", Identity::new(&["other.test"]), true),
        ("a certificate that has expired", Identity::valid(&[NAME], Validity::Expired), true),
        ("a certificate of the future", Identity::valid(&[NAME], Validity::NotYet), true),
    ] {
        let (fake, reference) = secure(&mut told, &identity).await;
        let remote = if trusted { trusting(&identity) } else { remote() };
        told.fails(what, &remote, &reference).await;
        assert!(fake.requests().is_empty(), "{what}");
    }
    let (_server, port) = answering(Bytes::new()).await;
    told.hide(port.to_string(), "PORT");
    told.fails("a server that breaks the handshake off", &remote(), &format!("{NAME}:{port}/a/b:1")).await;
    // A fatal alert, handshake_failure: RFC 8446 section 6.
    let (_server, port) = answering(&b"\x15\x03\x03\x00\x02\x02\x28"[..]).await;
    told.hide(port.to_string(), "PORT");
    told.fails("a server that refuses the handshake", &remote(), &format!("{NAME}:{port}/a/b:1")).await;

    let (fake, _reference) = secure(&mut told, &Identity::new(&[NAME])).await;
    let plain = Remote::new(Options { plain_http: PlainHttp::Always, ..options() }).unwrap();
    told.fails("plain HTTP to a server with TLS", &plain, &format!("{NAME}:{}/a/b:1", fake.port())).await;
    insta::assert_snapshot!("tls", told.text);
    assert_eq!(told.cases, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects() {
    let mut told = Transcript::new();
    let (fake, reference) = registry(&mut told).await;
    for (what, location) in [
        ("a redirect in a circle", "/v2/a/b/manifests/1"),
        ("a redirect to nothing that is a URL", "https://user:secret@elsewhere.test/"),
        ("a redirect to another protocol", "ftp://elsewhere.test/"),
        ("a redirect to a host that is not there", &format!("http://127.0.0.1:1/blob?X-Signature={SECRET}")),
    ] {
        fake.clear_faults();
        fake.fault("/v2/", Fault::redirect_to(location));
        told.fails(what, &remote(), &reference).await;
    }
    let elsewhere = Fake::start().await;
    elsewhere.fault("/", Fault::error(403, "AccessDenied", "Request has expired"));
    told.hide(elsewhere.host(), "ELSEWHERE");
    fake.clear_faults();
    fake.fault("/v2/a/b/blobs/", Fault::redirect_to(format!("{}/blob?X-Signature={SECRET}", elsewhere.url())));
    told.fails("a redirect to a host that refuses", &remote(), &reference).await;
    elsewhere.clear_faults();
    elsewhere.fault("/", answer(401, &[("www-authenticate", "Basic realm=\"x\"")], ""));
    told.fails("a redirect to a host that wants credentials", &with_password(SECRET), &reference).await;
    assert!(elsewhere.requests().iter().all(|request| request.header("authorization").is_none()));

    let identity = Identity::new(&[NAME]);
    let (fake, reference) = secure(&mut told, &identity).await;
    fake.fault("/v2/", Fault::redirect_to("http://elsewhere.test/"));
    told.fails("a redirect out of TLS", &trusting(&identity), &reference).await;
    insta::assert_snapshot!("redirects", told.text);
    assert_eq!(told.cases, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials() {
    let mut told = Transcript::new();
    let (fake, reference) = registry(&mut told).await;
    fake.require(Auth::Basic { username: "user".into(), password: "another".into() });
    told.fails("no credentials", &remote(), &reference).await;
    told.fails("a wrong password", &with_password(SECRET), &reference).await;

    let for_user = || Bearer { anonymous: false, user: Some(("user".into(), SECRET.into())), ..Bearer::default() };
    fake.require(Auth::Bearer(for_user()));
    told.fails("a token server that knows nobody without credentials", &remote(), &reference).await;
    told.fails("a token server that refuses a password", &with_password("another"), &reference).await;
    for (what, fault) in [
        ("a token server that fails", Fault::status(500, "")),
        ("a token server that gives no token", Fault::status(200, "<html>log in</html>")),
        ("a token server that limits the rate", answer(429, &[("retry-after", "600")], "")),
    ] {
        fake.clear_faults();
        fake.fault("/token", fault);
        told.fails(what, &with_password(SECRET), &reference).await;
    }
    fake.clear_faults();
    let challenge =
        format!("Bearer realm=\"{}/token\",service=\"fake registry\",scope=\"repository:a/b:pull\"", fake.url());
    fake.fault("/v2/", answer(401, &[("www-authenticate", &challenge)], ""));
    told.fails("a registry that refuses every token", &with_password(SECRET), &reference).await;
    assert!(fake.count("/token") < 20, "{}", fake.count("/token"));
    fake.clear_faults();
    fake.fault("/v2/", answer(401, &[("www-authenticate", "Bearer service=\"x\"")], ""));
    told.fails("a challenge that says not from where", &remote(), &reference).await;

    fake.clear_faults();
    told.fails("a scope that the token does not have", &scoped(&fake), &reference).await;
    fake.clear_faults();
    fake.fault("/v2/", Fault::error(403, "DENIED", "requested access to the resource is denied"));
    told.fails("access that is denied", &remote(), &reference).await;

    let identity = Identity::new(&[NAME]);
    let (fake, reference) = secure(&mut told, &identity).await;
    fake.require(Auth::Bearer(Bearer { realm: Some("http://elsewhere.test/token".into()), ..Bearer::default() }));
    told.fails("a token server without TLS", &trusting(&identity), &reference).await;
    insta::assert_snapshot!("credentials", told.text);
    assert_eq!(told.cases, 12);
}

/// Has the token server give a token that says it is for nothing, and the registry refuse it.
fn scoped(fake: &Fake) -> Remote {
    use base64::Engine as _;
    let claims = json!({ "access": [{ "type": "repository", "name": "a/b", "actions": [] }] }).to_string();
    let token = format!("e30.{}.x", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims));
    fake.fault("/token", Fault::status(200, json!({ "token": token }).to_string()));
    with_password(SECRET)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_and_what_is_limited() {
    let mut told = Transcript::new();
    let (fake, reference) = registry(&mut told).await;
    let host = fake.host();
    told.fails("a tag that is not there", &remote(), &format!("{host}/a/b:2")).await;
    told.fails("a repository that is not there", &remote(), &format!("{host}/absent:1")).await;
    let absent = Digest::sha256(b"absent");
    told.fails("a digest that is not there", &remote(), &format!("{host}/a/b@{absent}")).await;
    fake.remove("a/b", &image().image().layers[0].digest);
    told.fails("a layer that is not there", &remote(), &reference).await;

    let soon = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_600));
    let now = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    for (what, fault) in [
        ("429 without a time", Fault::error(429, "TOOMANYREQUESTS", "too many requests")),
        ("429 for longer than is waited", answer(429, &[("retry-after", "600")], "")),
        ("429 until a moment", answer(429, &[("retry-after", &soon), ("date", &now)], "")),
        (
            "a quota that is used up",
            answer(429, &[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600")], ""),
        ),
        ("500", Fault::error(500, "UNKNOWN", "unknown error")),
        ("502 with a page", Fault::status(502, "<html>Bad Gateway</html>")),
        ("503", Fault::status(503, "")),
        ("504", Fault::status(504, "")),
        ("400 of a registry", Fault::error(400, "NAME_INVALID", "invalid repository name")),
        ("400 of a web server", Fault::status(400, "plain HTTP was sent to a port for HTTPS")),
        ("405", Fault::status(405, "")),
        ("418", Fault::status(418, "")),
    ] {
        let (fake, reference) = registry(&mut told).await;
        fake.fault("/v2/", fault);
        told.fails(what, &remote(), &reference).await;
    }
    insta::assert_snapshot!("missing_and_limited", told.text);
    assert_eq!(told.cases, 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests() {
    let mut told = Transcript::new();
    let other = Digest::sha256(b"other");
    let tag = "/v2/a/b/manifests/";
    for (what, faults) in [
        ("a manifest without an end", vec![Fault::WithoutHeader("docker-content-digest".into()), Fault::Endless]),
        ("a manifest that is announced as too large", vec![Fault::header("content-length", "99999999")]),
        (
            "another manifest than the header says",
            vec![Fault::NoHead, Fault::header("docker-content-digest", other.to_string())],
        ),
        ("a page", vec![Fault::NoHead, answer(200, &[("content-type", "text/html")], "<html>log in</html>")]),
        (
            "a manifest that is no JSON",
            vec![Fault::NoHead, answer(200, &[("content-type", MediaType::OCI_MANIFEST)], "{")],
        ),
        ("an encoded manifest", vec![Fault::NoHead, Fault::header("content-encoding", "gzip")]),
    ] {
        let (fake, reference) = registry(&mut told).await;
        for fault in faults {
            fake.fault(tag, fault);
        }
        told.fails(what, &remote(), &reference).await;
    }
    let (fake, reference) = registry(&mut told).await;
    let by_digest = format!("{}/a/b@{}", fake.host(), image().root.digest);
    fake.fault(tag, Fault::NoHead);
    fake.fault(tag, Fault::Bytes("{}".into()));
    told.fails("another manifest than the digest says", &remote(), &by_digest).await;
    fake.clear_faults();
    fake.fault(format!("{tag}sha256"), Fault::CorruptByte(3));
    told.fails("a manifest that changes after it was resolved", &remote(), &reference).await;

    let others = Index::new()
        .bundle(&Image::new("linux/mips64le").layer(Layer::new().file("a", "a")).build())
        .bundle(&Image::new("windows/amd64").layer(Layer::new().file("b", "b")).build())
        .build();
    for (what, bundle) in [("an image of schema 1", schema1("a/b", "1")), ("no image for the platform", others)] {
        let fake = Fake::start().await;
        serve(&fake, &bundle);
        told.hide(fake.host(), "HOST");
        told.fails(what, &remote(), &format!("{}/a/b:1", fake.host())).await;
    }
    insta::with_settings!({ filters => vec![(r"linux/(amd64|arm64)\b", "PLATFORM")] }, {
        insta::assert_snapshot!("manifests", told.text);
    });
    assert_eq!(told.cases, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers() {
    let mut told = Transcript::new();
    let bundle = image();
    let layer = &bundle.image().layers[0];
    let path = format!("/v2/a/b/blobs/{}", layer.digest);
    let drip = Fault::Trickle { piece: 1, pause: Duration::from_millis(20) };
    for (what, fault) in [
        ("a layer that ends early", Fault::TruncateAfter(0)),
        ("a layer whose connection is reset", Fault::ResetAfter(0)),
        ("a layer that stalls", Fault::StallAfter(0)),
        ("a layer that trickles", drip),
        ("a layer that is encoded on the way", Fault::header("content-encoding", "gzip")),
        ("a layer with a wrong byte", Fault::CorruptByte(50)),
        ("a layer that is longer than its manifest says", Fault::Bytes(vec![0; 30_000].into())),
        ("a layer that is shorter than its manifest says", Fault::Bytes(vec![0; 10].into())),
        ("a layer without an end", Fault::Endless),
        ("a layer that is a page", answer(200, &[("content-type", "text/html")], "<html>log in</html>")),
        ("a layer that is refused", Fault::error(403, "DENIED", "denied")),
        ("a layer of a registry that fails", Fault::status(500, "")),
    ] {
        let (fake, reference) = registry(&mut told).await;
        fake.fault(&*path, fault);
        told.fails(what, &remote(), &reference).await;
    }
    // How much had come, and how fast, is the machine's.
    let filters = vec![
        (r"after \d+ bytes", "after N bytes"),
        (r"no more than \d+ bytes", "no more than N bytes"),
        (r"after \d+ of", "after N of"),
        (r"sha256:[0-9a-f]{64}", "DIGEST"),
        (r"\d+ or more bytes|\d+ bytes or more|has \d+ bytes|of \d+ bytes|\d+ are declared|than \d+", "N bytes"),
    ];
    insta::with_settings!({ filters => filters }, {
        insta::assert_snapshot!("layers", told.text);
    });
    assert_eq!(told.cases, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors() {
    let mut told = Transcript::new();
    let bundle = image();
    let layer = format!("/v2/a/b/blobs/{}", bundle.image().layers[0].digest);
    let manifest = format!("/v2/a/b/manifests/{}", bundle.root.digest);
    for (what, path, faults) in [
        (
            "a layer of which each host sends something else",
            &layer,
            [vec![Fault::CorruptByte(50)], vec![Fault::Bytes(vec![0; 10].into())], vec![Fault::CorruptByte(60)]],
        ),
        (
            "a layer that two send wrong and the last has not got",
            &layer,
            [
                vec![Fault::CorruptByte(50)],
                vec![Fault::CorruptByte(60)],
                vec![Fault::error(404, "BLOB_UNKNOWN", "blob unknown to registry")],
            ],
        ),
        (
            "a layer that one sends wrong, one breaks off, and the last is encoded",
            &layer,
            [
                vec![Fault::CorruptByte(50)],
                vec![Fault::TruncateAfter(0)],
                vec![Fault::header("content-encoding", "gzip")],
            ],
        ),
        (
            "a manifest of which each host sends something else",
            &manifest,
            [vec![Fault::CorruptByte(3)], vec![Fault::Bytes("{}".into())], vec![Fault::CorruptByte(4)]],
        ),
    ] {
        let hosts = [Fake::start().await, Fake::start().await, Fake::start().await];
        for ((fake, name), faults) in hosts.iter().zip(["FIRST", "SECOND", "HOST"]).zip(faults) {
            serve(fake, &bundle);
            told.hide(fake.host(), name);
            for fault in faults {
                fake.fault(&**path, fault);
            }
        }
        let [first, second, host] = &hosts;
        let place = TempDir::new().unwrap();
        let directory = place.path().join(host.host());
        std::fs::create_dir(&directory).unwrap();
        let text = format!("[host.\"{}\"]\n[host.\"{}\"]\n", first.url(), second.url());
        std::fs::write(directory.join("hosts.toml"), text).unwrap();
        told.hide(place.path().display().to_string(), "DIRECTORY");
        let remote = Remote::new(Options { hosts_dirs: vec![place.path().to_owned()], ..options() }).unwrap();
        told.fails(what, &remote, &format!("{}/a/b:1", host.host())).await;
    }
    let filters =
        vec![(r"sha256:[0-9a-f]{64}", "DIGEST"), (r"\d+ (bytes|are declared)", "N $1"), (r"says \d+", "says N")];
    insta::with_settings!({ filters => filters }, {
        insta::assert_snapshot!("mirrors", told.text);
    });
    assert_eq!(told.cases, 4);
}
