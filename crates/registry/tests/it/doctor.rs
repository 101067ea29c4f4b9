//! The way to a registry, looked at piece by piece: good ones, and each way in which one is broken.

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use windlass_core::checkup::{Check, Verdict, worst};
use windlass_registry::{Certificate, Options, Remote};
use windlass_testkit::registry::{Access, Auth, DockerRegistry, Fake, Fault, Identity, Validity};

use crate::support::{NO_NAME, OTHER_NAME, options, password, remote, remote_with};

async fn look(remote: &Remote, reference: &str) -> Vec<Check> {
    let checks = remote.check_up(&reference.parse().unwrap()).await;
    let without_hint = checks.iter().find(|check| check.verdict != Verdict::Ok && check.hint.is_none());
    assert_eq!(without_hint, None);
    checks
}

fn about<'a>(checks: &'a [Check], what: &str) -> &'a Check {
    checks.iter().find(|check| check.about == what).unwrap_or_else(|| panic!("nothing about {what} in {checks:#?}"))
}

/// Looks that something fails with these words, and that nothing after it was tried.
fn fails(checks: &[Check], what: &str, words: &[&str]) {
    let check = about(checks, what);
    assert_eq!(check.verdict, Verdict::Fail, "{checks:#?}");
    for word in words {
        assert!(check.found.contains(word), "{word} is not in {check:#?}");
    }
    assert_eq!(checks.last(), Some(check), "{checks:#?}");
}

fn names(checks: &[Check]) -> Vec<&str> {
    checks.iter().map(|check| check.about.as_str()).collect()
}

#[tokio::test]
async fn a_good_way_is_ok_from_the_host_to_the_manifest() {
    let fake = Fake::start().await;
    let image = fake.add_image("a/b", "1", &[]);
    let checks = look(&remote(), &format!("{}/a/b:1", fake.host())).await;
    assert_eq!(names(&checks), ["host", "credentials", "dns", "tcp", "tls", "clock", "api", "manifest"]);
    assert_eq!(worst(&checks), Verdict::Ok, "{checks:#?}");
    assert!(checks.iter().all(|check| check.of.as_deref() == Some(fake.host().as_str())), "{checks:#?}");
    assert!(about(&checks, "host").found.ends_with("/v2 is asked, named by the reference"), "{checks:#?}");
    assert!(about(&checks, "manifest").found.contains(&image.digest.to_string()), "{checks:#?}");
    // Nothing of the image itself is fetched.
    assert!(fake.requests().iter().all(|request| !request.path.contains("/blobs/")));
}

#[tokio::test]
async fn debians_registry_over_tls_with_a_password_is_good() {
    let identity = Identity::new(&["127.0.0.1"]);
    let registry = DockerRegistry::start_with(Access { password: true, tls: Some(&identity), ..Access::default() });
    let (user, secret) = registry.credentials().unwrap();
    let extra_roots = Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap();
    let with = |known| {
        let credentials = std::sync::Arc::new(crate::support::Same(known));
        let plain_http = windlass_registry::PlainHttp::Never;
        Remote::new(Options { extra_roots: extra_roots.clone(), credentials, plain_http, ..options() }).unwrap()
    };
    let reference = format!("{}/a/b:1", registry.host());
    let checks = look(&with(password(user, secret)), &reference).await;
    assert_eq!(about(&checks, "tls").verdict, Verdict::Ok, "{checks:#?}");
    assert!(about(&checks, "tls").found.starts_with("TLSv1.3, with a certificate of"), "{checks:#?}");
    assert_eq!(about(&checks, "clock").verdict, Verdict::Ok);
    assert_eq!(about(&checks, "api").verdict, Verdict::Ok);
    fails(&checks, "manifest", &["is not at"]);

    let checks = look(&with(password(user, "wrong")), &reference).await;
    fails(&checks, "auth", &["refuses the credentials"]);
    assert!(!format!("{checks:?}").contains("wrong"), "{checks:?}");
    let checks = look(&with(windlass_registry::Known::Nothing), &reference).await;
    fails(&checks, "auth", &["wants credentials"]);
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_told_with_what_it_says() {
    for (identity, trusted, words) in [
        (Identity::new(&[OTHER_NAME]), false, "authority that is not trusted"),
        (Identity::new(&["other.test"]), true, "other names"),
        (Identity::valid(&[OTHER_NAME], Validity::Expired), true, "has expired"),
        (Identity::valid(&[OTHER_NAME], Validity::NotYet), true, "not valid yet"),
    ] {
        let fake = Fake::start_tls(&identity).await;
        fake.add_image("a/b", "1", &[]);
        let extra_roots = Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap();
        let extra_roots = if trusted { extra_roots } else { Vec::new() };
        let remote = Remote::new(Options { extra_roots, ..options() }).unwrap();
        let checks = look(&remote, &format!("{OTHER_NAME}:{}/a/b:1", fake.port())).await;
        fails(&checks, "tls", &[words, "it shows a certificate of", "good from"]);
        if words == "has expired" {
            assert!(about(&checks, "tls").found.contains("good from 2000-01-01 to 2001-01-01"), "{checks:#?}");
        }
        assert!(fake.requests().is_empty(), "something was sent to a server that is not trusted");
    }
}

#[tokio::test]
async fn no_name_nobody_there_and_no_tls_are_told() {
    let checks = look(&remote(), &format!("{NO_NAME}/a/b:1")).await;
    fails(&checks, "dns", &["is not found"]);

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let checks = look(&remote(), &format!("127.0.0.1:{port}/a/b:1")).await;
    fails(&checks, "tcp", &["refuses the connection"]);

    let fake = Fake::start().await;
    let checks = look(&remote(), &format!("{OTHER_NAME}:{}/a/b:1", fake.port())).await;
    fails(&checks, "tls", &["plain HTTP"]);
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_manifest_are_told() {
    let fake = Fake::start().await;
    fake.add_image("a/b", "1", &[]);
    let reference = format!("{}/a/b:2", fake.host());
    let checks = look(&remote(), &reference).await;
    fails(&checks, "manifest", &["tag \"2\" is not in repository a/b"]);

    fake.require(Auth::Basic { username: "u".to_owned(), password: "p".to_owned() });
    let checks = look(&remote_with(password("u", "hunter2")), &reference).await;
    assert_eq!(worst(&checks), Verdict::Fail, "{checks:#?}");
    assert!(checks.iter().any(|check| check.found.contains("refuses the credentials")), "{checks:#?}");
    assert!(!format!("{checks:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_clock_that_is_wrong_and_a_quota_that_is_used_up_are_told() {
    let fake = Fake::start().await;
    fake.add_image("a/b", "1", &[]);
    let reference = format!("{}/a/b:1", fake.host());
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_hours(1));
    fake.fault("/v2/", Fault::Header("date".to_owned(), date));
    fake.fault("/v2/", Fault::Header("ratelimit-limit".to_owned(), "100;w=21600".to_owned()));
    fake.fault("/v2/", Fault::Header("ratelimit-remaining".to_owned(), "0;w=21600".to_owned()));
    let checks = look(&remote(), &reference).await;
    let clock = about(&checks, "clock");
    assert_eq!(clock.verdict, Verdict::Fail);
    assert!(clock.found.contains("behind the server's"), "{clock:?}");
    assert_eq!(about(&checks, "rate").found, "0 of 100 requests are left");
    assert_eq!(about(&checks, "rate").verdict, Verdict::Fail);
}

#[tokio::test]
async fn the_rule_that_chose_a_host_and_keys_that_nobody_knows_are_told() {
    let (mirror, registry) = (Fake::start().await, Fake::start().await);
    registry.add_image("a/b", "1", &[]);
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join(registry.host());
    std::fs::create_dir(&own).unwrap();
    let file = own.join("hosts.toml");
    let text = format!("[host.\"{}\"]\ncapabilites = [\"pull\"]\nskip_verify = true\n", mirror.url());
    std::fs::write(&file, text).unwrap();
    let remote = Remote::new(Options { hosts_dirs: vec![directory.path().to_owned()], ..options() }).unwrap();
    let reference = format!("{}/a/b:1", registry.host());
    let checks = look(&remote, &reference).await;
    let unknown = about(&checks, "hosts");
    assert_eq!(unknown.verdict, Verdict::Warn);
    assert!(unknown.found.starts_with(&format!("{}:2: nobody knows the key", file.display())), "{unknown:?}");
    assert!(unknown.hint.as_ref().unwrap().contains("capabilities"), "{unknown:?}");
    let chosen = format!("{}/v2 is asked, by {}:1", mirror.url(), file.display());
    assert!(checks.iter().any(|check| check.found == chosen), "{checks:#?}");
    assert!(checks.iter().any(|check| check.verdict == Verdict::Warn && check.found.contains("skip_verify")));
    // The mirror has no such image, and the registry has.
    let manifests: Vec<Verdict> =
        checks.iter().filter(|check| check.about == "manifest").map(|check| check.verdict).collect();
    assert_eq!(manifests, [Verdict::Fail, Verdict::Ok], "{checks:#?}");

    std::fs::write(&file, "server = \n").unwrap();
    let checks = look(&remote, &reference).await;
    fails(&checks, "hosts", &["hosts.toml:1"]);
}
