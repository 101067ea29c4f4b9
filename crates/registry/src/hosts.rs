//! Where to ask: the hosts that serve a reference, in order.
//!
//! ```text
//! directories    which directory says something about a registry
//!   file         its hosts.toml
//!   certificates its certificates, without one
//! address        the URLs in there
//! walk           the way through the hosts, until one does what it is asked for
//! ```

mod address;
mod certificates;
mod directories;
mod file;
mod walk;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::uri::Scheme;
use http::{HeaderMap, Request, Uri};
use windlass_core::{Error, Result};

use crate::connection::Connection;
use crate::options::PlainHttp;
use crate::redirect;

pub(crate) use directories::Directories;
#[cfg(fuzzing)]
pub(crate) use file::HostsFile;
pub(crate) use walk::Repositories;

/// Where directories of registries usually are: those of containerd, Docker and podman.
pub const HOSTS_DIRS: [&str; 3] = ["/etc/containerd/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"];

/// What Docker Hub is called in references.
pub(crate) const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub serves the distribution API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// What chose a host of which nothing is configured.
const ITSELF: &str = "named by the reference";

/// What a host can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// To give content whose digest is known.
    Pull,
    /// To say which digest a tag has.
    Resolve,
    /// To take content.
    Push,
}

impl Capability {
    /// The words for it, as containerd has them.
    const WORDS: [(&'static str, Self); 3] = [("pull", Self::Pull), ("resolve", Self::Resolve), ("push", Self::Push)];

    pub(crate) fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, known)| *known == self).map_or("", |(word, _)| word)
    }
}

/// What of this a host can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities(u8);

impl Capabilities {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(0b111);

    pub(crate) fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability as u8)
    }

    pub(crate) fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }
}

/// A host that speaks the distribution API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegistryHost {
    /// What the user calls it; credentials are known under this name and go nowhere else.
    pub(crate) name: String,
    /// How it is spoken to.
    pub(crate) scheme: Scheme,
    /// Where it is, with the port when it is not the usual one.
    pub(crate) authority: String,
    /// The root of the API there, without a slash at its end.
    pub(crate) path: String,
    /// What it may be asked for.
    pub(crate) capabilities: Capabilities,
    /// What every request to it has.
    pub(crate) headers: HeaderMap,
    /// The host of the reference, when this is another one: it is told whose content is meant, as `?ns=`.
    pub(crate) namespace: Option<String>,
    /// How to connect.
    pub(crate) connection: Arc<Connection>,
    /// What chose it: file and line, or that the reference names it.
    pub(crate) rule: String,
}

impl RegistryHost {
    /// Makes the host that a reference names, of which nothing is configured.
    pub(crate) fn itself(name: &str, plain_http: PlainHttp) -> Self {
        let plain = match plain_http {
            PlainHttp::Always => true,
            PlainHttp::Never => false,
            PlainHttp::Loopback => is_loopback(name),
        };
        let authority = if canonical_host(name) == DOCKER_HUB { DOCKER_HUB_API } else { name };
        Self {
            name: name.to_owned(),
            scheme: if plain { Scheme::HTTP } else { Scheme::HTTPS },
            authority: authority.to_owned(),
            path: address::API.to_owned(),
            capabilities: Capabilities::ALL,
            headers: HeaderMap::new(),
            namespace: None,
            connection: Arc::default(),
            rule: ITSELF.to_owned(),
        }
    }

    /// Returns the root of the API, with a slash at its end.
    pub(crate) fn root(&self) -> String {
        let Self { scheme, authority, path, .. } = self;
        format!("{scheme}://{authority}{path}/")
    }

    /// Makes the host recognisable among all hosts, however they were chosen: what it has asked for and what was given for it is
    /// remembered under this.
    pub(crate) fn key(&self) -> String {
        match &self.connection.socket {
            Some(_) => format!("{}{}", self.name, self.path),
            None => self.root(),
        }
    }

    /// Tells whether the root of the API is elsewhere than usual.
    pub(crate) fn has_own_root(&self) -> bool {
        self.path != address::API
    }

    /// Makes a request one to this host, or to where it sends on: what only this host may know stays with it.
    pub(crate) fn prepare<B>(&self, request: &mut Request<B>) {
        let own = self.root().parse().is_ok_and(|root: Uri| redirect::same_origin(&root, request.uri()));
        if !own {
            request.extensions_mut().insert(Arc::new(self.connection.elsewhere()));
            return;
        }
        request.extensions_mut().insert(self.connection.clone());
        for name in self.headers.keys() {
            // What the request itself needs goes before.
            if !request.headers().contains_key(name) {
                let values = self.headers.get_all(name).iter().cloned().map(|value| (name.clone(), value));
                request.headers_mut().extend(values);
            }
        }
    }
}

/// A repository at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) host: Arc<RegistryHost>,
    pub(crate) name: String,
    /// Whether another host is asked when this one refuses: nobody stands in line at it then.
    pub(crate) others_follow: bool,
}

impl Repository {
    /// Makes a repository at a host that is asked and no other.
    pub(crate) fn at(host: impl Into<Arc<RegistryHost>>, name: impl Into<String>) -> Self {
        Self { host: host.into(), name: name.into(), others_follow: false }
    }
}

impl Repository {
    /// Returns the URL of a part of the repository: OCI distribution-spec, "Endpoints".
    pub(crate) fn url(&self, part: &str) -> Result<Uri> {
        let mut url = format!("{}{}/{part}", self.host.root(), self.name);
        if let Some(namespace) = &self.host.namespace {
            let separator = if part.contains('?') { '&' } else { '?' };
            url.push(separator);
            url.push_str("ns=");
            url.push_str(namespace);
        }
        url.parse().map_err(|e| Error::invalid_argument(format!("{url:?} is not a URL")).source(e))
    }
}

/// Returns the one spelling of a host: lower case, and one name for Docker Hub.
pub(crate) fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | DOCKER_HUB_API => DOCKER_HUB.to_owned(),
        _ => host,
    }
}

/// Tells whether a host, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split(']').next().unwrap_or(rest);
        return address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    let name = host.split(':').next().unwrap_or(host);
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Fallback;

    fn url(reference: &str, plain_http: PlainHttp) -> String {
        let nowhere = Directories::new(Vec::new(), plain_http, Fallback::Allowed);
        let repositories = nowhere.repositories(&reference.parse().unwrap()).unwrap();
        repositories.that_may(Capability::Pull)[0].url("manifests/7").unwrap().to_string()
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_plain_http() {
        for (host, scheme) in [
            ("localhost", "http"),
            ("LOCALHOST:5000", "http"),
            ("127.0.0.1:5000", "http"),
            ("127.8.9.10", "http"),
            ("[::1]:5000", "http"),
            ("[::1]", "http"),
            ("128.0.0.1", "https"),
            ("[::2]:5000", "https"),
            ("localhost.example.com", "https"),
            ("127.0.0.1.example.com", "https"),
            ("example.com:80", "https"),
        ] {
            let url = url(&format!("{host}/a/b:7"), PlainHttp::Loopback);
            assert_eq!(url, format!("{scheme}://{host}/v2/a/b/manifests/7"));
        }
        assert!(url("example.com/a:7", PlainHttp::Always).starts_with("http:"));
        assert!(url("127.0.0.1/a:7", PlainHttp::Never).starts_with("https:"));
    }

    #[test]
    fn docker_hub_is_served_elsewhere() {
        let expected = "https://registry-1.docker.io/v2/library/redis/manifests/7";
        assert_eq!(url("docker.io/library/redis:7", PlainHttp::Loopback), expected);
        assert_eq!(url("index.docker.io/library/redis:7", PlainHttp::Loopback), expected);
    }
}
