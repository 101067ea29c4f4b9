//! Who we say we are: basic, tokens with and without credentials, and what is said when that is refused.

use std::sync::Arc;

use windlass_core::Kind;
use windlass_core::remote::ByteRange;
use windlass_registry::{Credential, DockerConfig, Known, Options, Remote, Secret};
use windlass_testkit::registry::{Auth, Bearer, Fake, Fault};

use crate::support::{
    assert_hints, assert_says, fetch, fetcher, one_image, options, password, read, remote, remote_with, resolve,
};

const SECRET: &str = "hunter2-is-secret";

fn basic() -> Auth {
    Auth::Basic { username: "user".to_owned(), password: SECRET.to_owned() }
}

fn tokens_for_the_user() -> Bearer {
    Bearer { anonymous: false, user: Some(("user".to_owned(), SECRET.to_owned())), ..Bearer::default() }
}

fn token_requests(fake: &Fake) -> usize {
    fake.count("/token")
}

#[tokio::test]
async fn a_password_is_sent_when_it_is_asked_for_and_from_then_on_at_once() {
    let (fake, reference, target) = one_image().await;
    fake.require(basic());
    let remote = remote_with(password("user", SECRET));
    assert_eq!(resolve(&remote, &reference).await.unwrap().descriptor, target);
    let sent: Vec<bool> = fake.requests().iter().map(|request| request.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true]);
    fake.forget_requests();
    fetch(&remote, &reference, &target, ByteRange::default()).await.unwrap();
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_token_is_fetched_once_for_everyone_who_needs_it() {
    let (fake, reference, target) = one_image().await;
    fake.require(Auth::Bearer(Bearer::default()));
    let remote = remote();
    let fetcher = fetcher(&remote, &reference).await;
    let fetches = (0..8).map(|_| async { read(fetcher.fetch(&target, ByteRange::default()).await.unwrap()).await });
    for fetched in futures::future::join_all(fetches).await {
        assert_eq!(fetched.unwrap().len() as u64, target.size);
    }
    assert_eq!(token_requests(&fake), 1);

    // Another repository needs another token, and is asked with it at once.
    let other = fake.add_image("a/c", "1", &[]);
    fake.forget_requests();
    assert_eq!(resolve(&remote, &format!("{}/a/c:1", fake.host())).await.unwrap().descriptor, other);
    let paths: Vec<String> = fake.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/token", "/v2/a/c/manifests/1"]);
}

#[tokio::test]
async fn a_token_is_asked_for_with_the_password_and_every_scope() {
    let (fake, reference, target) = one_image().await;
    fake.require(Auth::Bearer(Bearer {
        field: "access_token".to_owned(),
        extra_scope: Some("aws".to_owned()),
        ..tokens_for_the_user()
    }));
    let remote = remote_with(password("user", SECRET));
    assert_eq!(resolve(&remote, &reference).await.unwrap().descriptor, target);
    let token = fake.requests().into_iter().find(|request| request.path == "/token").unwrap();
    assert_eq!(token.method, "GET");
    assert_eq!(token.query.as_deref(), Some("service=fake%20registry&scope=repository%3Aa%2Fb%3Apull&scope=aws"));
    // The password went to the token server, and the registry saw the token only.
    for request in fake.requests().iter().filter(|request| request.path != "/token") {
        assert!(!request.header("authorization").unwrap_or_default().starts_with("Basic"));
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let (fake, reference, target) = one_image().await;
    fake.require(Auth::Bearer(Bearer {
        anonymous: false,
        refresh_token: Some(SECRET.to_owned()),
        ..Bearer::default()
    }));
    let remote = remote_with(Known::Credential(Credential::IdentityToken(Secret::new(SECRET))));
    assert_eq!(resolve(&remote, &reference).await.unwrap().descriptor, target);
    let token = fake.requests().into_iter().find(|request| request.path == "/token").unwrap();
    assert_eq!(token.method, "POST");
    assert_eq!(token.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(token.query, None);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced() {
    let (fake, reference, target) = one_image().await;
    fake.require(Auth::Bearer(Bearer { expires_in: Some(3600), ..Bearer::default() }));
    let remote = remote();
    resolve(&remote, &reference).await.unwrap();
    fake.revoke_tokens();
    fake.forget_requests();
    let fetcher = fetcher(&remote, &reference).await;
    let fetches = (0..4).map(|_| async { read(fetcher.fetch(&target, ByteRange::default()).await.unwrap()).await });
    for fetched in futures::future::join_all(fetches).await {
        fetched.unwrap();
    }
    assert_eq!(token_requests(&fake), 1);
}

#[tokio::test]
async fn missing_and_wrong_credentials_are_told_apart_and_never_repeated() {
    for auth in [basic(), Auth::Bearer(tokens_for_the_user())] {
        let (fake, reference, _) = one_image().await;
        fake.require(auth);
        let host = fake.host();
        let none = assert_says(resolve(&remote(), &reference).await, Kind::Unauthenticated, &["127.0.0.1", "a/b"]);
        assert!(none.to_string().contains("wants credentials"), "{none}");
        assert_hints(&none, &format!("`dist login {host}` takes them"));

        let wrong = resolve(&remote_with(password("user", "wrong-secret")), &reference).await;
        let wrong = assert_says(wrong, Kind::Unauthenticated, &["refuses the credentials"]);
        let printed = format!("{wrong} {wrong:?} {:?}", wrong.hint_text());
        assert!(!printed.contains("wrong-secret") && !printed.contains("dXNlcjp3cm9uZy1zZWNyZXQ"), "{printed}");
        assert_hints(&wrong, &host);
    }
}

#[tokio::test]
async fn a_config_that_names_only_a_helper_is_no_obstacle_until_the_registry_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, r#"{"auths":{},"credsStore":"desktop"}"#).unwrap();
    let config = DockerConfig::load(&path).unwrap();
    let remote = Remote::new(Options { credentials: Arc::new(config), ..options() }).unwrap();

    let (fake, reference, target) = one_image().await;
    assert_eq!(resolve(&remote, &reference).await.unwrap().descriptor, target);
    fake.require(basic());
    let error = assert_says(resolve(&remote, &reference).await, Kind::Unauthenticated, &["a/b", "cannot be used"]);
    assert_hints(&error, "helper \"desktop\"");
}

#[tokio::test]
async fn a_docker_config_file_is_enough() {
    let (fake, reference, target) = one_image().await;
    fake.require(basic());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let entry = serde_json::json!({ "auths": { fake.host(): { "username": "user", "password": SECRET } } });
    std::fs::write(&path, entry.to_string()).unwrap();
    let options = Options { credentials: Arc::new(DockerConfig::load(&path).unwrap()), ..options() };
    assert!(!format!("{options:?}").contains(SECRET));
    let remote = Remote::new(options).unwrap();
    assert_eq!(resolve(&remote, &reference).await.unwrap().descriptor, target);
    assert!(!format!("{remote:?}").contains(SECRET));
}

#[tokio::test]
async fn a_token_server_that_does_not_work_is_named() {
    let (fake, reference, _) = one_image().await;
    fake.require(Auth::Bearer(Bearer::default()));
    for (fault, kind, words) in [
        (Fault::status(503, "<html>"), Kind::Unavailable, "503 Service Unavailable"),
        (Fault::status(200, "<html>login</html>"), Kind::Unavailable, "gives no token"),
        (Fault::status(200, r#"{"token":""}"#), Kind::Unavailable, "gives no token"),
        (Fault::status(200, r#"{"token":"a\nb"}"#), Kind::Unauthenticated, "cannot be sent"),
        (Fault::status(429, ""), Kind::ResourceExhausted, "limits the rate"),
        (Fault::status(302, ""), Kind::Unavailable, "302"),
    ] {
        fake.clear_faults();
        fake.fault("/token", fault.clone());
        let error = resolve(&remote(), &reference).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error:?}");
        assert!(error.to_string().contains(words), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn a_token_of_the_registry_is_sent_as_it_is() {
    let (fake, reference, _) = one_image().await;
    fake.require(Auth::Bearer(Bearer::default()));
    let remote = remote_with(Known::Credential(Credential::RegistryToken(Secret::new(SECRET))));
    let error = assert_says(resolve(&remote, &reference).await, Kind::Unauthenticated, &["refuses the credentials"]);
    assert!(!format!("{error:?}").contains(SECRET));
    assert_eq!(token_requests(&fake), 0);
    let sent = fake.requests().iter().find_map(|request| request.header("authorization").map(str::to_owned));
    assert_eq!(sent, Some(format!("Bearer {SECRET}")));
}
