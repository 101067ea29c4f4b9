//! What these tests share: remotes of several tempers, and how to look at what it says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use windlass_core::remote::{Body, ByteRange, Fetcher, Resolved, Resolver as _};
use windlass_core::{Descriptor, Error, Kind, Reference, Result};
use windlass_registry::{Credential, Credentials, Floor, Known, Options, Remote, Retry, Timeouts};
use windlass_testkit::registry::Fake;

/// A host name that leads to this machine, and is not known to be loopback.
pub(crate) const OTHER_NAME: &str = "registry.test";
/// A host name that does not exist.
pub(crate) const NO_NAME: &str = "missing.test";

/// Options that retry at once, and wait long enough for a busy machine.
pub(crate) fn options() -> Options {
    let here = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    Options {
        addresses: [(OTHER_NAME.to_owned(), here), (NO_NAME.to_owned(), Vec::new())].into(),
        timeouts: Timeouts {
            connect: Duration::from_secs(30),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            floor: Floor { rate: 1024, over: Duration::from_secs(30) },
        },
        retry: Retry {
            attempts: 3,
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(4),
            longest_wait: Duration::from_secs(2),
            patience: Duration::from_secs(2),
        },
        ..Options::default()
    }
}

pub(crate) fn remote() -> Remote {
    Remote::new(options()).unwrap()
}

/// A remote that waits 0.5 s for an answer, and 0.3 s between two pieces of a body.
pub(crate) fn impatient() -> Remote {
    let timeouts =
        Timeouts { response: Duration::from_millis(500), idle: Duration::from_millis(300), ..options().timeouts };
    Remote::new(Options { timeouts, ..options() }).unwrap()
}

pub(crate) fn remote_with(credentials: Known) -> Remote {
    Remote::new(Options { credentials: Arc::new(Same(credentials)), ..options() }).unwrap()
}

pub(crate) fn password(username: &str, password: &str) -> Known {
    Known::Credential(Credential::password(username, password))
}

/// The same for every host.
pub(crate) struct Same(pub(crate) Known);

#[async_trait::async_trait]
impl Credentials for Same {
    async fn of(&self, _host: &str, _repository: &str) -> Result<Known> {
        Ok(self.0.clone())
    }
}

pub(crate) async fn resolve(remote: &Remote, reference: &str) -> Result<Resolved> {
    remote.resolve(&reference.parse::<Reference>().unwrap()).await
}

pub(crate) async fn fetcher(remote: &Remote, name: &str) -> Arc<dyn Fetcher> {
    remote.fetcher(&name.parse().unwrap()).await.unwrap()
}

/// Fetches a part of something and reads it to the end.
pub(crate) async fn fetch(
    remote: &Remote,
    name: &str,
    descriptor: &Descriptor,
    range: ByteRange,
) -> Result<(u64, Option<u64>, Vec<u8>)> {
    let body = fetcher(remote, name).await.fetch(descriptor, range).await?;
    let (offset, size) = (body.offset, body.size);
    Ok((offset, size, read(body).await?))
}

/// Reads a body to the end, or to its failure.
pub(crate) async fn read(mut body: Body) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(bytes) = body.stream.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}

/// Checks the kind of an error, that its message has all of these words, and that it says what to do.
#[track_caller]
pub(crate) fn assert_says<T: std::fmt::Debug>(result: Result<T>, kind: Kind, words: &[&str]) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    assert!(error.hint_text().is_some(), "there is no hint: {error}");
    error
}

/// Asserts that an error has a stable code, and says what its host answered.
#[track_caller]
pub(crate) fn assert_tells(error: &Error, code: &str, host: &str, status: u16) {
    assert_eq!(error.code(), code, "{error:?}");
    let told = error.trace().iter().any(|attempt| attempt.host == host && attempt.status == Some(status));
    assert!(told, "{status} of {host} is not told: {error:?}");
}

#[track_caller]
pub(crate) fn assert_hints(error: &Error, words: &str) {
    assert!(error.hint_text().unwrap_or_default().contains(words), "{words:?} is not in the hint: {error:?}");
}

/// Bytes that do not repeat soon.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length / 8 + 1).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// The path of a blob in the fake.
pub(crate) fn blob_path(repository: &str, descriptor: &Descriptor) -> String {
    format!("/v2/{repository}/blobs/{}", descriptor.digest)
}

/// A registry with one image, `a/b:1`, and the reference to it.
pub(crate) async fn one_image() -> (Fake, String, Descriptor) {
    let fake = Fake::start().await;
    let target = fake.add_image("a/b", "1", &["layer".into()]);
    let reference = format!("{}/a/b:1", fake.host());
    (fake, reference, target)
}
