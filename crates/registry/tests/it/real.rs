//! Debian's `docker-registry` the way it stands in the world: over TLS, behind nginx, with tokens, on a socket, and beyond proxies.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use windlass_core::Kind;
use windlass_core::remote::ByteRange;
use windlass_registry::{Certificate, Credential, ForHost, Known, Options, Proxies, Remote};
use windlass_testkit::registry::{Access, DockerRegistry, Front, Identity, Nginx, Socks, Squid, TokenServer};

use crate::sample::{self, Sample};
use crate::support::{NO_NAME, OTHER_NAME, assert_hints, assert_says, fetch, options, password, remote_with, resolve};

/// Options with a `hosts.toml` for a registry, and files beside it.
fn configured(host: &str, text: &str, files: &[(&str, &str)]) -> (TempDir, Options) {
    let place = TempDir::new().unwrap();
    let directory = place.path().join(host);
    fs::create_dir_all(&directory).unwrap();
    for (name, text) in [("hosts.toml", text)].iter().chain(files).filter(|(_, text)| !text.is_empty()) {
        fs::write(directory.join(name), text).unwrap();
    }
    let hosts_dirs = vec![place.path().to_owned()];
    (place, Options { hosts_dirs, ..options() })
}

fn push(registry: &DockerRegistry, name: &str) -> Sample {
    let sample = sample::layout();
    registry.push_layout(format!("{}:single", sample.path().display()), name);
    sample
}

/// Checks that an image and its layer come as they are.
async fn assert_comes(remote: &Remote, name: &str, sample: &Sample) {
    assert_eq!(resolve(remote, name).await.unwrap().descriptor, sample.manifest);
    let (_, _, bytes) = fetch(remote, name, &sample.layer, ByteRange::default()).await.unwrap();
    assert_eq!(bytes, sample.layer_bytes);
}

fn by(user: (&str, &str)) -> Remote {
    remote_with(password(user.0, user.1))
}

#[tokio::test]
async fn an_authority_is_trusted_by_hosts_toml_and_by_a_certificate_as_docker_has_it() {
    let identity = Identity::new(&[OTHER_NAME]);
    let registry = DockerRegistry::start_with(Access { tls: Some(&identity), ..Access::default() });
    let sample = push(&registry, "a/b:7");
    let host = format!("{OTHER_NAME}:{}", registry.port());
    let name = format!("{host}/a/b:7");
    let authority = identity.authority_pem();
    for (text, file) in [("ca = \"authority.pem\"", "authority.pem"), ("", "ca.crt")] {
        let (_place, options) = configured(&host, text, &[(file, &authority)]);
        assert_comes(&Remote::new(options).unwrap(), &name, &sample).await;
    }
    let (_place, options) = configured(&host, "skip_verify = true", &[]);
    assert_comes(&Remote::new(options).unwrap(), &name, &sample).await;
    let (_place, options) = configured(&host, "", &[]);
    let refused = resolve(&Remote::new(options).unwrap(), &name).await;
    assert_says(refused, Kind::FailedPrecondition, &["authority that is not trusted"]);
}

#[tokio::test]
async fn nginx_before_a_registry_gets_a_certificate_a_path_and_http_2() {
    let (server, clients, others) =
        (Identity::new(&[OTHER_NAME]), Identity::new(&["client"]), Identity::new(&["client"]));
    let registry = DockerRegistry::start();
    let sample = push(&registry, "a/b:7");
    let nginx = Nginx::start(Front {
        upstream: registry.host(),
        tls: Some(&server),
        clients: Some(&clients),
        prefix: "/x",
        rate: Some(200_000_000),
        refuses: None,
    });
    let mirror = format!("https://{OTHER_NAME}:{}/x", nginx.port());
    let more = "ca = \"ca.pem\"\nclient = [[\"other.pem\", \"other.key\"], [\"client.pem\", \"client.key\"]]";
    let files = [
        ("ca.pem", &*server.authority_pem()),
        ("client.pem", &*clients.certificate_pem()),
        ("client.key", &*clients.key_pem()),
        ("other.pem", &*others.certificate_pem()),
        ("other.key", &*others.key_pem()),
    ];
    let (_place, options) = configured("a.test", &format!("server = \"{mirror}\"\n{more}\n"), &files);
    assert_comes(&Remote::new(options).unwrap(), "a.test/a/b:7", &sample).await;
    let log = nginx.access_log();
    assert!(log.contains("GET /x/v2/a/b/blobs/") && log.contains("ns=a.test HTTP/2.0"), "{log}");

    let (_place, options) = configured("a.test", &format!("server = \"{mirror}\"\nca = \"ca.pem\"\n"), &files);
    let refused = resolve(&Remote::new(options).unwrap(), "a.test/a/b:7").await.unwrap_err();
    assert!(refused.to_string().contains("400"), "{refused}");
}

#[tokio::test]
async fn a_registry_on_a_unix_socket_is_a_host_like_others() {
    let filled = DockerRegistry::start();
    let sample = push(&filled, "a/b:7");
    let registry = DockerRegistry::start_with(Access { socket: true, password: true, ..Access::default() });
    registry.take_over(&filled);
    let url = format!("unix://{}", registry.host());
    let (_place, mut options) = configured("a.test", &format!("server = \"{url}\"\n"), &[]);
    let (user, secret) = registry.credentials().unwrap();
    options.credentials = Arc::new(ForHost::new(&url, Credential::password(user, secret), "a test"));
    assert_comes(&Remote::new(options).unwrap(), "a.test/a/b:7", &sample).await;

    let (_place, options) = configured("a.test", "server = \"unix:///no/such/socket\"\n", &[]);
    let missing = resolve(&Remote::new(options).unwrap(), "a.test/a/b:7").await;
    let missing = assert_says(missing, Kind::Unavailable, &["unix:///no/such/socket", "No such file"]);
    assert_hints(&missing, "socket");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_asked_for_with_the_scope_that_is_needed_and_what_is_not_granted_is_refused() {
    let tokens = TokenServer::start().await;
    let registry = DockerRegistry::start_with(Access { tokens: Some(&tokens), ..Access::default() });
    let host = registry.host();
    for repository in ["public/a", "team/a", "secret/a"] {
        push(&registry, &format!("{repository}:7"));
    }
    tokens.forget_requests();
    let (reader, anyone) = (by(TokenServer::READER), remote_with(Known::Nothing));
    resolve(&anyone, &format!("{host}/public/a:7")).await.unwrap();
    resolve(&reader, &format!("{host}/team/a:7")).await.unwrap();
    let asked: Vec<(String, String, Vec<String>, Vec<String>)> =
        tokens.requests().into_iter().map(|it| (it.user, it.by, it.asked, it.granted)).collect();
    let scope = |name: &str| vec![format!("repository:{name}:pull")];
    assert_eq!(
        asked,
        [
            (String::new(), String::new(), scope("public/a"), scope("public/a")),
            ("reader".to_owned(), "basic".to_owned(), scope("team/a"), scope("team/a")),
        ]
    );
    for (remote, repository) in [(&anyone, "team/a"), (&reader, "secret/a")] {
        let refused = resolve(remote, &format!("{host}/{repository}:7")).await;
        let refused = assert_says(refused, Kind::Unauthenticated, &[host, repository]);
        assert_hints(&refused, "dist login");
    }
    let wrong = resolve(&by(("reader", "hunter2")), &format!("{host}/team/a:7")).await;
    let wrong =
        assert_says(wrong, Kind::Unauthenticated, &["token server", "refuses the credentials", "incorrect username"]);
    assert!(!format!("{wrong:?} {:?}", wrong.trace()).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_in_the_middle_of_a_layer_is_renewed() {
    let tokens = TokenServer::start().await;
    let registry = DockerRegistry::start_with(Access { tokens: Some(&tokens), ..Access::default() });
    let sample = push(&registry, "team/a:7");
    tokens.forget_requests();
    tokens.tokens_live(2);
    let name = format!("{}/team/a:7", registry.host());
    let remote = by(TokenServer::READER);
    let half = sample.layer.size / 2;
    let (_, _, mut bytes) =
        fetch(&remote, &name, &sample.layer, ByteRange { start: 0, end: Some(half) }).await.unwrap();
    assert_eq!(tokens.requests().len(), 1);
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let rest = (0..4).map(|_| fetch(&remote, &name, &sample.layer, ByteRange::from(half)));
    for fetched in futures::future::join_all(rest).await {
        let (offset, _, rest) = fetched.unwrap();
        assert_eq!((offset, bytes.len() as u64), (half, half));
        bytes.extend_from_slice(&rest);
        assert_eq!(bytes, sample.layer_bytes);
        bytes.truncate(usize::try_from(half).unwrap());
    }
    assert_eq!(tokens.requests().len(), 2, "one new token for all of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_server_that_takes_forms_alone_gives_what_replaces_the_password() {
    let tokens = TokenServer::start().await;
    let registry = DockerRegistry::start_with(Access { tokens: Some(&tokens), ..Access::default() });
    for repository in ["x/a", "x/b", "x/c"] {
        push(&registry, &format!("{repository}:7"));
    }
    tokens.only_post();
    tokens.forget_requests();
    let remote = by(TokenServer::WRITER);
    let ways = || tokens.requests().into_iter().map(|it| (it.method, it.by, it.status)).collect::<Vec<_>>();
    let way = |method: &str, by: &str, status| (method.to_owned(), by.to_owned(), status);
    resolve(&remote, &format!("{}/x/a:7", registry.host())).await.unwrap();
    resolve(&remote, &format!("{}/x/b:7", registry.host())).await.unwrap();
    let first = [way("GET", "basic", 405), way("POST", "password", 200), way("POST", "refresh_token", 200)];
    assert_eq!(ways(), first);
    tokens.forget_requests();
    tokens.forget_refresh_tokens();
    resolve(&remote, &format!("{}/x/c:7", registry.host())).await.unwrap();
    let again = [way("POST", "refresh_token", 401), way("GET", "basic", 405), way("POST", "password", 200)];
    assert_eq!(ways(), again);

    let token = Credential::IdentityToken(windlass_registry::Secret::new(tokens.refresh_token()));
    tokens.forget_requests();
    resolve(&remote_with(Known::Credential(token)), &format!("{}/x/a:7", registry.host())).await.unwrap();
    assert_eq!(ways(), [way("POST", "refresh_token", 200)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_checked_before_it_is_kept_and_a_token_is_kept_in_place_of_the_password() {
    let tokens = TokenServer::start().await;
    let with_tokens = DockerRegistry::start_with(Access { tokens: Some(&tokens), ..Access::default() });
    let with_password = DockerRegistry::start_with_password();
    let open = DockerRegistry::start();
    let remote = remote_with(Known::Nothing);
    let credential = |user: (&str, &str)| Credential::password(user.0, user.1);

    let login = remote.login(with_tokens.host(), &credential(TokenServer::WRITER)).await.unwrap();
    assert!(matches!(login.credential, Credential::IdentityToken(_)) && login.checked, "{login:?}");
    push(&with_tokens, "secret/a:7");
    let name = format!("{}/secret/a:7", with_tokens.host());
    resolve(&remote_with(Known::Credential(login.credential)), &name).await.unwrap();
    let reader = credential(TokenServer::READER);
    assert_eq!(remote.login(with_tokens.host(), &reader).await.unwrap().credential, reader);

    let right = credential(with_password.credentials().unwrap());
    assert_eq!(remote.login(with_password.host(), &right).await.unwrap().credential, right);
    for host in [with_tokens.host(), with_password.host()] {
        let refused = remote.login(host, &credential(("user", "hunter2"))).await;
        let refused = assert_says(refused, Kind::Unauthenticated, &[host, "refuses the credentials"]);
        assert!(!format!("{refused:?}").contains("hunter2"));
    }
    assert!(!remote.login(open.host(), &right).await.unwrap().checked);
    assert_says(remote.login("not a host", &right).await, Kind::InvalidArgument, &["is not a registry"]);
    let (_place, options) = configured(open.host(), "server = \"https://b.test\"\n", &[]);
    let elsewhere = Remote::new(options).unwrap().login(open.host(), &right).await;
    assert_hints(&assert_says(elsewhere, Kind::FailedPrecondition, &["nobody is asked under the name"]), "b.test");
}

fn proxied(variables: &[(&str, String)], identity: Option<&Identity>) -> Options {
    let proxies = Proxies::of_variables(|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    });
    let extra_roots =
        identity.map_or_else(Vec::new, |identity| Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap());
    // The proxy knows the name, this side does not.
    let addresses = [(OTHER_NAME.to_owned(), Vec::new()), (NO_NAME.to_owned(), Vec::new())].into();
    Options { proxies: proxies.unwrap(), extra_roots, addresses, ..options() }
}

#[tokio::test]
async fn squid_is_a_tunnel_for_tls_and_is_sent_what_is_in_plain_http() {
    let identity = Identity::new(&[OTHER_NAME]);
    let secure = DockerRegistry::start_with(Access { tls: Some(&identity), ..Access::default() });
    let plain = DockerRegistry::start();
    let squid = Squid::start(&[OTHER_NAME]);
    let sample = push(&secure, "a/b:7");
    plain.push_layout(format!("{}:single", sample.path().display()), "a/b:7");

    let url = format!("http://{}", squid.address());
    let remote = Remote::new(proxied(&[("HTTPS_PROXY", url.clone())], Some(&identity))).unwrap();
    assert_comes(&remote, &format!("{OTHER_NAME}:{}/a/b:7", secure.port()), &sample).await;
    drop(remote);
    squid.has_logged(&format!("CONNECT {OTHER_NAME}:{}", secure.port())).await;

    let options =
        Options { plain_http: windlass_registry::PlainHttp::Always, ..proxied(&[("HTTP_PROXY", url.clone())], None) };
    let name = format!("{OTHER_NAME}:{}/a/b:7", plain.port());
    assert_comes(&Remote::new(options.clone()).unwrap(), &name, &sample).await;
    squid.has_logged(&format!("HEAD http://{OTHER_NAME}:{}/v2/a/b/manifests/7", plain.port())).await;

    let excepted = proxied(&[("HTTP_PROXY", url), ("NO_PROXY", "test".to_owned())], None);
    let excepted = Remote::new(Options { plain_http: options.plain_http, ..excepted }).unwrap();
    assert_says(resolve(&excepted, &name).await, Kind::NotFound, &["is not found"]);
}

#[tokio::test]
async fn a_proxy_gets_the_password_of_its_url_and_nobody_else_does() {
    let identity = Identity::new(&[OTHER_NAME]);
    let secure = DockerRegistry::start_with(Access { tls: Some(&identity), ..Access::default() });
    let plain = DockerRegistry::start();
    let squid = Squid::start_with_password(&[OTHER_NAME]);
    let sample = push(&secure, "a/b:7");
    plain.push_layout(format!("{}:single", sample.path().display()), "a/b:7");
    let (user, secret) = Squid::credentials();
    let secret = secret.replace(' ', "%20");
    let through = |credentials: &str| {
        let url = format!("http://{credentials}{}", squid.address());
        let options = proxied(&[("ALL_PROXY", url)], Some(&identity));
        (
            Remote::new(options.clone()).unwrap(),
            Remote::new(Options { plain_http: windlass_registry::PlainHttp::Always, ..options }).unwrap(),
        )
    };
    let names = [&secure, &plain].map(|registry| format!("{OTHER_NAME}:{}/a/b:7", registry.port()));
    let (tunnelled, sent) = through(&format!("{user}:{secret}@"));
    assert_comes(&tunnelled, &names[0], &sample).await;
    assert_comes(&sent, &names[1], &sample).await;
    assert!(!plain.log().contains("Proxy-Authorization"), "{}", plain.log());

    let (tunnelled, sent) = through("porter:hunter2@");
    let refused =
        assert_says(resolve(&tunnelled, &names[0]).await, Kind::Unavailable, &[&squid.address(), "refuses the user"]);
    assert_hints(&refused, "HTTPS_PROXY");
    let also = resolve(&sent, &names[1]).await.unwrap_err();
    assert!(also.to_string().contains("407"), "{also}");
    assert!(!format!("{refused:?} {also:?}").contains("hunter2"));
    let (tunnelled, _) = through("");
    assert_says(resolve(&tunnelled, &names[0]).await, Kind::Unavailable, &["wants a user"]);
}

#[tokio::test]
async fn a_socks_proxy_looks_names_up_when_it_is_to() {
    let identity = Identity::new(&[OTHER_NAME]);
    let registry = DockerRegistry::start_with(Access { tls: Some(&identity), ..Access::default() });
    let sample = push(&registry, "a/b:7");
    let name = format!("{OTHER_NAME}:{}/a/b:7", registry.port());
    let socks = Socks::start(Some(("porter", "pass:word"))).await;
    let proxy = |scheme: &str| [("ALL_PROXY", format!("{scheme}://porter:pass%3Aword@{}", socks.address()))];
    assert_comes(&Remote::new(proxied(&proxy("socks5h"), Some(&identity))).unwrap(), &name, &sample).await;
    assert_eq!(socks.asked()[0], format!("{OTHER_NAME}:{}", registry.port()));

    let here = Options { addresses: options().addresses, ..proxied(&proxy("socks5"), Some(&identity)) };
    assert_comes(&Remote::new(here).unwrap(), &name, &sample).await;
    assert_eq!(socks.asked().last().unwrap(), &format!("127.0.0.1:{}", registry.port()));

    // One host may have a proxy of its own, whatever the environment says.
    let text = format!(
        "server = \"https://{OTHER_NAME}:{}\"\nca = \"ca.pem\"\nproxy = \"{}\"\n",
        registry.port(),
        proxy("socks5h")[0].1
    );
    let (_place, own) = configured("a.test", &text, &[("ca.pem", &identity.authority_pem())]);
    let before = socks.asked().len();
    let own = Options { proxies: proxied(&[("ALL_PROXY", "http://127.0.0.1:1".to_owned())], None).proxies, ..own };
    assert_comes(&Remote::new(own).unwrap(), "a.test/a/b:7", &sample).await;
    assert!(socks.asked().len() > before);
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named_and_the_host_is_not_blamed() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let remote = Remote::new(proxied(&[("ALL_PROXY", nowhere.clone())], None)).unwrap();
    let error = resolve(&remote, &format!("{OTHER_NAME}/a/b:7")).await;
    let error = assert_says(
        error,
        Kind::Unavailable,
        &[OTHER_NAME, &format!("the proxy {nowhere} does not answer"), "refused"],
    );
    assert_hints(&error, "NO_PROXY");
}
