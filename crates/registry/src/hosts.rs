//! Where to ask: the hosts that serve a reference, in order.
//!
//! Today there is one, the host of the reference; mirrors and per-host settings join this list and nothing else.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::uri::Scheme;
use windlass_core::{Error, Reference, Result};

use crate::options::PlainHttp;

/// What Docker Hub is called in references.
const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub serves the distribution API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A host that speaks the distribution API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegistryHost {
    /// What the user calls it; credentials are known under this name.
    pub(crate) name: String,
    /// How it is spoken to.
    pub(crate) scheme: Scheme,
    /// Where it is, with the port when it is not the usual one.
    pub(crate) authority: String,
}

/// A repository at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) host: RegistryHost,
    pub(crate) name: String,
}

impl Repository {
    /// Returns the URL of a part of the repository: OCI distribution-spec, "Endpoints".
    pub(crate) fn url(&self, part: &str) -> Result<Uri> {
        let RegistryHost { scheme, authority, .. } = &self.host;
        let url = format!("{scheme}://{authority}/v2/{}/{part}", self.name);
        url.parse().map_err(|e| Error::invalid_argument(format!("{url:?} is not a URL")).source(e))
    }
}

/// Returns where a reference is looked for, first choice first.
pub(crate) fn repositories(reference: &Reference, plain_http: PlainHttp) -> Result<Vec<Repository>> {
    let (Some(host), Some(repository)) = (reference.host(), reference.repository()) else {
        return Err(Error::invalid_argument(format!("{reference} does not name a registry")));
    };
    Ok(vec![Repository { host: registry_host(host, plain_http), name: repository.to_owned() }])
}

fn registry_host(host: &str, plain_http: PlainHttp) -> RegistryHost {
    let plain = match plain_http {
        PlainHttp::Always => true,
        PlainHttp::Never => false,
        PlainHttp::Loopback => is_loopback(host),
    };
    let authority = if canonical_host(host) == DOCKER_HUB { DOCKER_HUB_API } else { host };
    RegistryHost {
        name: host.to_owned(),
        scheme: if plain { Scheme::HTTP } else { Scheme::HTTPS },
        authority: authority.to_owned(),
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

    fn url(reference: &str, plain_http: PlainHttp) -> String {
        let repositories = repositories(&reference.parse().unwrap(), plain_http).unwrap();
        repositories[0].url("manifests/7").unwrap().to_string()
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
