//! The fake registry: what it holds, what it was asked, and its life.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use hyper::http::HeaderMap;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use windlass_core::{Descriptor, Digest, MediaType};

use super::access::{Access, Auth};
use super::fault::{Fault, Scripted, When};
use super::serve;
use super::tls::Identity;
use super::uploads::{Taking, Upload};

/// A registry in memory on a loopback port. It stops when it is dropped, and with it every connection.
#[derive(Debug)]
pub struct Fake {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query, if there was one.
    pub query: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Which connection it came over, counted from 0.
    pub connection: u64,
}

impl Recorded {
    /// Tells whether it may change something.
    pub(super) fn writes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD")
    }

    /// Returns a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What the connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: SocketAddr,
    /// Whether the registry speaks TLS.
    pub(super) secure: bool,
    /// How many bytes of bodies were sent.
    pub(super) sent: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) repositories: BTreeMap<String, Repository>,
    pub(super) scripted: Vec<Scripted>,
    pub(super) recorded: Vec<Recorded>,
    pub(super) access: Access,
    /// How many referrers a page has; none when the registry does not know them.
    pub(super) referrers: Option<usize>,
    pub(super) uploads: BTreeMap<String, Upload>,
    /// How many uploads were begun.
    pub(super) begun: usize,
    pub(super) taking: Taking,
}

#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) tags: BTreeMap<String, Digest>,
    pub(super) manifests: BTreeMap<String, (String, Bytes)>,
    pub(super) blobs: BTreeMap<String, Bytes>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }
}

impl Fake {
    /// Starts a registry that speaks plain HTTP.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// Starts a registry that speaks TLS, with HTTP/2 for those who ask for it.
    pub async fn start_tls(identity: &Identity) -> Self {
        Self::listen(Some(identity)).await
    }

    async fn listen(identity: Option<&Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { address, secure: identity.is_some(), sent: Arc::default(), state: Mutex::default() });
        let acceptor = identity.map(Identity::acceptor);
        let server = tokio::spawn(serve::accept(listener, acceptor, shared.clone()));
        Self { shared, server }
    }

    /// Returns where the registry is: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.shared.address.port()
    }

    /// Returns the base URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.shared.url()
    }

    /// Puts a blob into a repository.
    pub fn add_blob(&self, repository: &str, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        let mut state = self.shared.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.blobs.insert(descriptor.digest.to_string(), bytes);
        descriptor
    }

    /// Puts a manifest into a repository, under a tag if one is given.
    pub fn add_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        let mut state = self.shared.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.manifests.insert(descriptor.digest.to_string(), (media_type.to_owned(), bytes));
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), descriptor.digest.clone());
        }
        descriptor
    }

    /// Puts a small OCI image into a repository under a tag: a config and the given layers, which are not looked into.
    pub fn add_image(&self, repository: &str, tag: &str, layers: &[Bytes]) -> Descriptor {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = self.add_blob(repository, MediaType::OCI_CONFIG, config.to_vec());
        let layers: Vec<Descriptor> =
            layers.iter().map(|layer| self.add_blob(repository, MediaType::OCI_LAYER_GZIP, layer.clone())).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": config,
            "layers": layers,
        });
        self.add_manifest(repository, Some(tag), MediaType::OCI_MANIFEST, manifest.to_string())
    }

    /// Takes a blob or a manifest away.
    pub fn remove(&self, repository: &str, digest: &Digest) {
        let mut state = self.shared.state();
        if let Some(repository) = state.repositories.get_mut(repository) {
            repository.blobs.remove(&digest.to_string());
            repository.manifests.remove(&digest.to_string());
        }
    }

    /// Goes wrong from now on for every path that begins so. Faults add up.
    pub fn fault(&self, path: impl Into<String>, fault: Fault) {
        self.script(path.into(), fault, None);
    }

    /// Goes wrong so many times, then no more.
    pub fn fault_times(&self, path: impl Into<String>, fault: Fault, times: usize) {
        self.script(path.into(), fault, Some(times));
    }

    /// Goes wrong for every request for a part of what is at a path that begins so.
    pub fn fault_when_ranged(&self, path: impl Into<String>, fault: Fault) {
        let when = When { path: path.into(), ranged: true, ..When::default() };
        self.shared.state().scripted.push(Scripted { when, fault, times: None });
    }

    /// Goes right for so many requests for a part, and then wrong for so many.
    pub fn fault_ranged_after(&self, path: impl Into<String>, fault: Fault, skip: usize, times: usize) {
        let when = When { path: path.into(), ranged: true, skip, ..When::default() };
        self.shared.state().scripted.push(Scripted { when, fault, times: Some(times) });
    }

    /// Goes wrong for requests with a method, so many times.
    pub fn fault_method(&self, method: &str, path: impl Into<String>, fault: Fault, times: usize) {
        let when = When { path: path.into(), method: Some(method.to_owned()), ..When::default() };
        self.shared.state().scripted.push(Scripted { when, fault, times: Some(times) });
    }

    /// Says how it takes what it is given.
    pub fn take(&self, taking: Taking) {
        self.shared.state().taking = taking;
    }

    /// Forgets the uploads under way.
    pub fn forget_uploads(&self) {
        self.shared.state().uploads.clear();
    }

    /// Returns how many uploads were begun.
    pub fn uploads_begun(&self) -> usize {
        self.shared.state().begun
    }

    /// Returns a blob that a repository has.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.shared.state().repositories.get(repository)?.blobs.get(&digest.to_string()).cloned()
    }

    /// Returns the media type and the bytes of a manifest that a repository has, by its tag or digest.
    pub fn manifest(&self, repository: &str, object: &str) -> Option<(String, Bytes)> {
        let state = self.shared.state();
        let repository = state.repositories.get(repository)?;
        let digest = repository.tags.get(object).map_or_else(|| object.to_owned(), ToString::to_string);
        repository.manifests.get(&digest).cloned()
    }

    fn script(&self, path: String, fault: Fault, times: Option<usize>) {
        let when = When { path, ..When::default() };
        self.shared.state().scripted.push(Scripted { when, fault, times });
    }

    /// Goes right from now on.
    pub fn clear_faults(&self) {
        self.shared.state().scripted.clear();
    }

    /// Knows from now on what is attached to a manifest, and lists so many on a page.
    pub fn know_referrers(&self, page: usize) {
        self.shared.state().referrers = Some(page.max(1));
    }

    /// Asks for credentials from now on.
    pub fn require(&self, auth: Auth) {
        self.shared.state().access.require(auth);
    }

    /// Refuses every token it has given so far.
    pub fn revoke_tokens(&self) {
        self.shared.state().access.revoke();
    }

    /// Returns every request so far, in the order they arrived.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().recorded.clone()
    }

    /// Returns how many bytes of bodies it has sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Returns how many requests there were for a path, with any method.
    pub fn count(&self, path: &str) -> usize {
        self.shared.state().recorded.iter().filter(|request| request.path == path).count()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.state().recorded.clear();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}
