//! What is told of fetches that fail, for comparison with what was told before.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use tempfile::TempDir;
use windlass::core::progress::Tracker;
use windlass::core::{Error, Host as _, Kind, MediaType, Namespace, Reference};
use windlass::registry::{Certificate, Credential, Credentials, Floor, Known, Options, Remote, Retry, Timeouts};
use windlass::transfer::{self, Pull};
use windlass::{Engine, core};
use windlass_testkit::registry::Identity;

/// A name that leads to this machine and is not known to be loopback; one that leads nowhere; one that does not exist.
pub(crate) const NAME: &str = "registry.test";
pub(crate) const NOWHERE: &str = "nowhere.test";
pub(crate) const MISSING: &str = "missing.test";
pub(crate) const SECRET: &str = "hunter2-is-secret";

/// What is told of fetches that fail, without what changes from run to run.
pub(crate) struct Transcript {
    pub(crate) text: String,
    hidden: Vec<(String, &'static str)>,
    pub(crate) cases: usize,
}

pub(crate) fn options() -> Options {
    // A multicast address: there is no way to it over TCP.
    let addresses =
        [(NAME, vec![Ipv4Addr::LOCALHOST]), (NOWHERE, vec![Ipv4Addr::new(224, 0, 0, 1)]), (MISSING, vec![])];
    let addresses = addresses.map(|(name, all)| (name.to_owned(), all.into_iter().map(IpAddr::V4).collect()));
    Options {
        addresses: addresses.into(),
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            response: Duration::from_millis(400),
            idle: Duration::from_millis(400),
            floor: Floor { rate: 100_000, over: Duration::from_millis(300) },
        },
        retry: Retry {
            attempts: 2,
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(4),
            longest_wait: Duration::from_secs(1),
            patience: Duration::from_millis(300),
        },
        ..Options::default()
    }
}

pub(crate) fn remote() -> Remote {
    Remote::new(options()).unwrap()
}

pub(crate) fn trusting(identity: &Identity) -> Remote {
    let extra_roots = Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap();
    Remote::new(Options { extra_roots, ..options() }).unwrap()
}

/// Credentials that are the same for every host.
struct Same(Known);

#[async_trait::async_trait]
impl Credentials for Same {
    async fn of(&self, _host: &str, _repository: &str) -> core::Result<Known> {
        Ok(self.0.clone())
    }
}

pub(crate) fn with_password(password: &str) -> Remote {
    let credentials = Arc::new(Same(Known::Credential(Credential::password("user", password))));
    Remote::new(Options { credentials, ..options() }).unwrap()
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self { text: String::new(), hidden: Vec::new(), cases: 0 }
    }

    pub(crate) fn hide(&mut self, text: impl Into<String>, name: &'static str) {
        self.hidden.push((text.into(), name));
    }

    /// Fetches what cannot be fetched, and returns why.
    pub(crate) async fn fails(&mut self, what: &str, remote: &Remote, reference: &str) -> Error {
        let reference: Reference = reference.parse().unwrap();
        let root = TempDir::new().unwrap();
        let engine = Engine::open(root.path().join("root")).await.unwrap();
        let (pull, tracker) = (Pull::default(), Tracker::new());
        let fetched = transfer::fetch(&engine, &Namespace::default(), remote, &reference, &pull, &tracker).await;
        let error = fetched.map(|_| what).unwrap_err();
        assert_nothing_of_it(&engine, what, &error).await;
        self.tell(what, &error);
        error
    }

    /// Takes what is told of a failure.
    pub(crate) fn tell(&mut self, what: &str, error: &Error) {
        let hint = error.hint_text().unwrap_or("(what is true of its class)");
        let tried: Vec<String> = error.trace().iter().map(|attempt| format!("tried: {attempt}\n")).collect();
        let tried = tried.concat();
        let mut told =
            format!("# {what}\n{} / {}: {error}\n{tried}hint: {hint}\n\n", error.kind().code(), error.code());
        for (text, name) in &self.hidden {
            told = told.replace(text, name);
        }
        // How often there is time for it depends on chance: each wait is a random one.
        for times in 1..=9 {
            let (one, any) = (
                format!("429 Too Many Requests; tried again {times} times"),
                "429 Too Many Requests; tried again N times",
            );
            told = told.replace(&one, any);
        }
        for secret in [SECRET, "dXNlcjpodW50ZXI", "fake-token", "X-Signature"] {
            assert!(!told.contains(secret), "{what}: {told}");
        }
        self.text.push_str(&told);
        self.cases += 1;
    }
}

/// Asserts that no image is recorded, that nothing is unfinished unless the next try can go on with it, and that what is kept is right.
async fn assert_nothing_of_it(engine: &Engine, what: &str, error: &Error) {
    let services = engine.services(&Namespace::default().into()).await.unwrap();
    let images: Vec<_> = services.images.list(&[]).try_collect().await.unwrap();
    assert_eq!(images, [], "{what}");
    let kept: Vec<_> = services.content.list(&[]).try_collect().await.unwrap();
    let may_continue = matches!(
        error.kind(),
        Kind::Unavailable | Kind::DeadlineExceeded | Kind::ResourceExhausted | Kind::Unauthenticated
    );
    if !may_continue {
        assert!(kept.is_empty(), "{what}: {kept:?}");
        assert_eq!(services.content.statuses(&[]).await.unwrap(), [], "{what}");
    }
    for info in kept {
        let descriptor = core::Descriptor::new(MediaType::new(MediaType::OCTET_STREAM), info.digest.clone(), info.size);
        core::content::ProviderExt::verify(&*services.content, &descriptor).await.unwrap();
    }
}
