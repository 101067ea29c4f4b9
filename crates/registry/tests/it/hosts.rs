//! Which hosts are asked, in which order, and what becomes of one that fails.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_core::remote::ByteRange;
use windlass_core::{Error, Kind, MediaType};
use windlass_registry::{Fallback, Options, Remote, Retry};
use windlass_testkit::registry::{Auth, Bearer, Fake, Fault};

use crate::support::{assert_hints, assert_says, blob_path, fetch, fetcher, options, password, read, resolve};

/// A mirror, a registry, and a directory that says so; both have the image `a/b:1`.
struct Mirrored {
    mirror: Fake,
    registry: Fake,
    directory: TempDir,
    reference: String,
}

impl Mirrored {
    async fn new() -> Self {
        let (mirror, registry) = (Fake::start().await, Fake::start().await);
        for fake in [&mirror, &registry] {
            fake.add_image("a/b", "1", &["layer".into()]);
        }
        let reference = format!("{}/a/b:1", registry.host());
        let mirrored = Self { mirror, registry, directory: TempDir::new().unwrap(), reference };
        mirrored.say("");
        mirrored
    }

    /// Writes that the mirror is one, with more about it.
    fn say(&self, more: &str) {
        self.write(&format!("[host.\"{}\"]\n{more}\n", self.mirror.url()));
    }

    fn write(&self, text: &str) {
        write(self.directory.path(), &self.registry.host(), text);
    }

    fn remote(&self) -> Remote {
        Remote::new(self.options()).unwrap()
    }

    fn options(&self) -> Options {
        Options { hosts_dirs: vec![self.directory.path().to_owned()], ..options() }
    }

    /// Returns how many requests each was asked: the mirror, the registry.
    fn asked(&self) -> (usize, usize) {
        let asked = (self.mirror.requests().len(), self.registry.requests().len());
        self.mirror.forget_requests();
        self.registry.forget_requests();
        asked
    }
}

fn write(directory: &Path, host: &str, text: &str) {
    let directory = directory.join(host);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("hosts.toml"), text).unwrap();
}

fn rules(error: &Error) -> Vec<String> {
    error
        .trace()
        .iter()
        .map(|attempt| format!("{} {}", attempt.host, attempt.rule.clone().unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_whose_content_is_meant() {
    let mirrored = Mirrored::new().await;
    mirrored.say("[host.\"x.test\".header]\nx-one = \"1\"");
    mirrored.say(&format!("[host.\"{}\".header]\nx-one = \"1\"\nx-two = [\"2\", \"3\"]", mirrored.mirror.url()));
    let target = resolve(&mirrored.remote(), &mirrored.reference).await.unwrap().descriptor;
    fetch(&mirrored.remote(), &mirrored.reference, &target, ByteRange::default()).await.unwrap();
    let namespace = format!("ns={}", mirrored.registry.host());
    let requests = mirrored.mirror.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.query.as_deref(), Some(namespace.as_str()));
        assert_eq!(request.header("x-one"), Some("1"));
        assert_eq!(request.headers.get_all("x-two").iter().count(), 2);
    }
    assert_eq!(mirrored.asked().1, 0);
}

#[tokio::test]
async fn the_files_are_read_anew_for_each_pull() {
    let mirrored = Mirrored::new().await;
    let remote = mirrored.remote();
    resolve(&remote, &mirrored.reference).await.unwrap();
    assert_eq!(mirrored.asked(), (1, 0));
    mirrored.write("");
    resolve(&remote, &mirrored.reference).await.unwrap();
    assert_eq!(mirrored.asked(), (0, 1));
    mirrored.write("sever = ]");
    let error = resolve(&remote, &mirrored.reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.to_string().contains("hosts.toml:1"), "{error}");
    assert_eq!(mirrored.asked(), (0, 0), "nobody is asked by half of a file");
}

#[tokio::test]
async fn each_operation_has_hosts_of_its_own() {
    let mirrored = Mirrored::new().await;
    mirrored.say("capabilities = [\"pull\"]");
    let remote = mirrored.remote();
    let target = resolve(&remote, &mirrored.reference).await.unwrap().descriptor;
    assert_eq!(mirrored.asked(), (0, 1), "to say what a tag is takes trust");
    fetch(&remote, &mirrored.reference, &target, ByteRange::default()).await.unwrap();
    let by_digest = format!("{}/a/b@{}", mirrored.registry.host(), target.digest);
    resolve(&remote, &by_digest).await.unwrap();
    assert_eq!(mirrored.asked(), (2, 0), "a digest says itself what is right");

    mirrored.write(&format!(
        "capabilities = [\"push\"]\n[host.\"{}\"]\ncapabilities = [\"pull\"]\n",
        mirrored.mirror.url()
    ));
    let nobody = assert_says(
        resolve(&remote, &mirrored.reference).await,
        Kind::FailedPrecondition,
        &["no host that may resolve tag \"1\""],
    );
    assert_hints(&nobody, "hosts.toml");
}

#[tokio::test]
async fn what_a_mirror_does_not_do_the_registry_does_whatever_the_failure() {
    let mirrored = Mirrored::new().await;
    let target = resolve(&mirrored.remote(), &mirrored.reference).await.unwrap().descriptor;
    for fault in [
        Fault::error(404, "NAME_UNKNOWN", "not here"),
        Fault::status(500, "broken"),
        Fault::status(429, "too much"),
        Fault::status(403, "no"),
        Fault::status(401, "who?"),
        Fault::Hangup,
        Fault::redirect_to("ftp://x.test/"),
    ] {
        mirrored.mirror.clear_faults();
        mirrored.mirror.fault("/v2/", fault.clone());
        // What one has learned of the mirror the next one does not know.
        let remote = mirrored.remote();
        let resolved = resolve(&remote, &mirrored.reference).await;
        assert_eq!(resolved.unwrap().descriptor.digest, target.digest, "{fault:?}");
        let fetched = fetch(&remote, &mirrored.reference, &target, ByteRange::default()).await;
        assert_eq!(fetched.unwrap().2.len() as u64, target.size, "{fault:?}");
        assert!(mirrored.asked().0 > 0, "{fault:?}");
    }
}

#[tokio::test]
async fn when_nobody_does_it_everything_that_was_tried_is_told_with_the_rule_that_chose_it() {
    let mirrored = Mirrored::new().await;
    mirrored.mirror.fault("/v2/", Fault::status(403, "no"));
    mirrored.registry.fault("/v2/", Fault::status(403, "no"));
    let error = resolve(&mirrored.remote(), &mirrored.reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains(&mirrored.registry.host()), "{error}");
    let file = mirrored.directory.path().join(mirrored.registry.host()).join("hosts.toml").display().to_string();
    let (first, last) = (rules(&error).remove(0), rules(&error).pop().unwrap());
    assert_eq!(first, format!("{} {file}:1", mirrored.mirror.host()));
    assert_eq!(last, format!("{} {file}", mirrored.registry.host()));
}

#[tokio::test]
async fn without_fallback_only_the_first_host_of_an_operation_is_asked() {
    let mirrored = Mirrored::new().await;
    mirrored.mirror.fault("/v2/", Fault::status(403, "no"));
    let remote = Remote::new(Options { fallback: Fallback::Never, ..mirrored.options() }).unwrap();
    let error = resolve(&remote, &mirrored.reference).await.unwrap_err();
    assert!(error.to_string().contains(&mirrored.mirror.host()), "{error}");
    assert_eq!(mirrored.asked().1, 0);
    mirrored.say("capabilities = [\"pull\"]");
    resolve(&remote, &mirrored.reference).await.unwrap();
    assert_eq!(mirrored.asked(), (0, 1), "it is the first that may resolve");
}

#[tokio::test]
async fn a_mirror_that_is_away_is_not_waited_for_again_by_the_same_pull() {
    let mirrored = Mirrored::new().await;
    let layer = mirrored.registry.add_blob("a/b", MediaType::OCI_LAYER_GZIP, "a layer");
    mirrored.mirror.fault("/v2/", Fault::Hangup);
    let fetcher = fetcher(&mirrored.remote(), &mirrored.reference).await;
    read(fetcher.fetch(&layer, ByteRange::default()).await.unwrap()).await.unwrap();
    assert_eq!(mirrored.asked(), (3, 1));
    for _ in 0..3 {
        read(fetcher.fetch(&layer, ByteRange::default()).await.unwrap()).await.unwrap();
    }
    assert_eq!(mirrored.asked(), (0, 3));
    // It still is when nobody else does it.
    mirrored.mirror.clear_faults();
    mirrored.mirror.add_blob("a/b", MediaType::OCI_LAYER_GZIP, "a layer");
    mirrored.registry.remove("a/b", &layer.digest);
    read(fetcher.fetch(&layer, ByteRange::default()).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_mirror_that_limits_requests_is_not_waited_for_while_others_can_be_asked() {
    let mirrored = Mirrored::new().await;
    let headers = vec![("retry-after".to_owned(), "20".to_owned())];
    mirrored.mirror.fault("/v2/", Fault::Answer { status: 429, headers, body: "too much".into() });
    let began = Instant::now();
    let remote = Remote::new(Options { retry: Retry::default(), ..mirrored.options() }).unwrap();
    resolve(&remote, &mirrored.reference).await.unwrap();
    assert_eq!(mirrored.asked(), (1, 1));
    for _ in 0..3 {
        resolve(&remote, &mirrored.reference).await.unwrap();
    }
    assert_eq!(mirrored.asked(), (0, 3), "it said when to come back");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    mirrored.registry.fault("/v2/", Fault::status(403, "no"));
    let error = resolve(&remote, &mirrored.reference).await.unwrap_err();
    assert!(error.trace().iter().any(|attempt| attempt.host == mirrored.mirror.host()), "{error:?}");
}

#[tokio::test]
async fn the_root_of_the_api_may_be_anywhere_and_tokens_are_for_what_it_is_called_there() {
    let mirrored = Mirrored::new().await;
    mirrored.mirror.add_image("hub/a/b", "1", &["layer".into()]);
    mirrored.mirror.require(Auth::Bearer(Bearer::default()));
    mirrored.write(&format!("[host.\"{}/v2/hub\"]\noverride_path = true\n", mirrored.mirror.url()));
    resolve(&mirrored.remote(), &mirrored.reference).await.unwrap();
    let paths: Vec<String> = mirrored.mirror.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/v2/hub/a/b/manifests/1", "/token", "/v2/hub/a/b/manifests/1"]);
    assert_eq!(mirrored.asked().1, 0);
}

#[tokio::test]
async fn the_password_of_the_registry_is_nothing_for_a_mirror_and_headers_of_a_mirror_for_nobody_else() {
    let mirrored = Mirrored::new().await;
    let storage = Fake::start().await;
    let blob = mirrored.mirror.add_blob("a/b", "", "blob");
    storage.add_blob("a/b", "", "blob");
    mirrored.say(&format!("[host.\"{}\".header]\nx-secret = \"hunter2\"", mirrored.mirror.url()));
    let path = blob_path("a/b", &blob);
    mirrored.mirror.fault(path.clone(), Fault::redirect_to(format!("{}{path}", storage.url())));
    mirrored.mirror.require(Auth::Basic { username: "user".to_owned(), password: "hunter2".to_owned() });
    mirrored.registry.require(Auth::Basic { username: "user".to_owned(), password: "hunter2".to_owned() });
    let mut options = mirrored.options();
    let windlass_registry::Known::Credential(credential) = password("user", "hunter2") else { unreachable!() };
    options.credentials =
        std::sync::Arc::new(windlass_registry::ForHost::new(&mirrored.registry.host(), credential, "a test"));
    let remote = Remote::new(options).unwrap();
    resolve(&remote, &mirrored.reference).await.unwrap();
    fetch(&remote, &mirrored.reference, &blob, ByteRange::default()).await.unwrap();
    assert!(mirrored.mirror.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(mirrored.mirror.requests().iter().all(|request| request.header("x-secret") == Some("hunter2")));
    assert!(mirrored.registry.requests().iter().any(|request| request.header("authorization").is_some()));
    assert!(mirrored.registry.requests().iter().all(|request| request.header("x-secret").is_none()));
    let storages = storage.requests();
    assert_eq!(storages.len(), 1);
    assert!(storages[0].header("x-secret").is_none() && storages[0].header("authorization").is_none());
}
