//! A dry run of a pull: what is asked on the way to a manifest, looked at piece by piece. Nothing is stored.
//!
//! ```text
//! hosts ─► credentials ─► dns ─► tcp ─► tls ─► api (clock, rate) ─► manifest      for each host that would be asked
//! ```
//!
//! What each step needs is what a pull uses too; only the handshake is made by hand, to see the certificates of a server that is
//! not trusted. Nothing is sent over such a connection.

mod network;

use std::time::{Duration, SystemTime};

use http::header::DATE;
use http::{HeaderMap, Method, StatusCode, Uri};
use windlass_core::checkup::{Check, Verdict};
use windlass_core::settings::Unknown;
use windlass_core::{Error, Reference, Result};

use crate::ask::Ask;
use crate::balance::Balance;
use crate::client::Answer;
use crate::credentials::{Credential, Known};
use crate::error::status_text;
use crate::hosts::{Capability, Repositories, Repository};
use crate::layout;
use crate::options::Fallback;
use crate::remote::Remote;
use crate::resolver::RegistryResolver;

pub(crate) use network::Probe;

/// How far clocks may be apart before it is said, and before tokens and certificates stop working.
const SKEW_SEEN: Duration = Duration::from_secs(30);
const SKEW_BAD: Duration = Duration::from_mins(5);

impl Remote {
    /// Looks at everything on the way to what a reference means: which hosts are asked, by which rule, as whom, and what
    /// they say.
    pub async fn check_up(&self, reference: &Reference) -> Vec<Check> {
        if let Some(path) = reference.layout_path() {
            let resolved = layout::resolve(path, reference).await;
            return vec![manifest(resolved.map(|resolved| resolved.descriptor.digest.to_string()))];
        }
        let mut checks = Vec::new();
        let (directories, host) = (self.directories.clone(), reference.host().unwrap_or_default().to_owned());
        let unknown = tokio::task::spawn_blocking(move || directories.unknown(&host)).await;
        if let Ok(Ok(unknown)) = unknown {
            checks.extend(unknown.iter().map(not_understood));
        }
        let repositories = match self.repositories(reference).await {
            Ok(repositories) => repositories,
            Err(error) => {
                let check = Check::failed("hosts", &error);
                let hint =
                    check.hint.clone().unwrap_or_else(|| "correct the file: it is read anew each time".to_owned());
                checks.push(check.hint(hint));
                return checks;
            }
        };
        let hosts = repositories.that_may(Capability::Resolve);
        if hosts.is_empty() {
            checks.push(
                Check::fail("hosts", format!("no host may be asked what {reference} means"))
                    .hint("give one the capability \"resolve\" in its hosts.toml"),
            );
        }
        for repository in hosts {
            let mut about = Vec::new();
            self.host(repository, reference, &mut about).await;
            checks.extend(about.into_iter().map(|check| check.of(&repository.host.name)));
        }
        checks
    }

    /// Looks at one host; what needs something that fails is left out.
    async fn host(&self, repository: &Repository, reference: &Reference, checks: &mut Vec<Check>) {
        let host = &repository.host;
        checks
            .push(Check::ok("host", format!("{} is asked, {}", host.root().trim_end_matches('/'), chosen(&host.rule))));
        if host.connection.skip_verify {
            checks.push(
                Check::warn("host", "its certificate is not looked at: skip_verify")
                    .hint("give the certificate of its authority with ca in its hosts.toml instead"),
            );
        }
        checks.push(self.credentials(repository).await);
        let reached = match repository.url("") {
            Ok(url) => self.probe.reach(host, &url, checks).await,
            Err(error) => {
                checks.push(Check::failed("host", &error));
                false
            }
        };
        if reached && self.api(repository, checks).await {
            let alone = Repositories::new(vec![repository.clone()], Fallback::Never);
            let resolver = RegistryResolver { client: self.client.clone() };
            let resolved = resolver.resolve(&alone, reference).await;
            let found = |descriptor: windlass_core::Descriptor| {
                format!("{reference} is {} ({}, {} bytes)", descriptor.digest, descriptor.media_type, descriptor.size)
            };
            checks.push(manifest(resolved.map(|resolved| found(resolved.descriptor))));
        }
    }

    async fn credentials(&self, repository: &Repository) -> Check {
        let known = match self.client.authorizer.known_of(repository).await {
            Ok(known) => known,
            Err(error) => return Check::failed("credentials", &error),
        };
        let from = known.1.map(|source| format!(", from {source}")).unwrap_or_default();
        match known.0 {
            Known::Nothing => Check::ok("credentials", "none are there: it is asked anonymously"),
            Known::Unusable { hint } => {
                Check::warn("credentials", format!("what is there cannot be used{from}")).hint(hint)
            }
            Known::Credential(credential) => {
                let kind = match credential {
                    Credential::Password { .. } => "a user name and a password",
                    Credential::IdentityToken(_) => "a refresh token",
                    Credential::RegistryToken(_) => "a token of the registry",
                };
                Check::ok("credentials", format!("{kind}{from}"))
            }
        }
    }

    /// Asks for the root of the API, with the credentials; tells whether it is worth asking for more.
    async fn api(&self, repository: &Repository, checks: &mut Vec<Check>) -> bool {
        let answer = match self.root(repository).await {
            Ok(answer) => answer,
            Err(error) => {
                checks.push(Check::failed("api", &error));
                return false;
            }
        };
        let headers = answer.response.headers().clone();
        let status = answer.response.status();
        checks.extend(clock(&headers, SystemTime::now()));
        let check = match status {
            StatusCode::OK => Check::ok("api", "it is a registry, and lets us in"),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let error = self.client.refused(repository, "the API", answer).await;
                Check::failed("auth", &error)
            }
            _ => Check::warn("api", format!("it answers {} to the root of the API", status_text(status)))
                .hint("check that this is the address of a registry, and the path in its hosts.toml"),
        };
        let goes_on = check.verdict != Verdict::Fail;
        checks.push(check);
        checks.extend(Balance::of(&headers).and_then(|balance| rate(&balance)));
        goes_on
    }

    async fn root(&self, repository: &Repository) -> Result<Answer> {
        let url: Uri = repository
            .host
            .root()
            .parse()
            .map_err(|error| Error::invalid_argument("the root of the API is no URL").source(error))?;
        self.client.send_to(url, Ask::new(Method::GET, repository, "")).await
    }
}

fn not_understood(unknown: &Unknown) -> Check {
    let Unknown { place, key, nearest, known } = unknown;
    let check = Check::warn("hosts", format!("{place}: nobody knows the key {key}"));
    match nearest {
        Some(nearest) => check.hint(format!("did you mean {nearest}?")),
        None => check.hint(format!("known there are: {}", known.join(", "))),
    }
}

fn chosen(rule: &str) -> String {
    if rule.contains('/') { format!("by {rule}") } else { rule.to_owned() }
}

fn manifest(resolved: Result<String>) -> Check {
    match resolved {
        Ok(found) => Check::ok("manifest", found),
        Err(error) => Check::failed("manifest", &error),
    }
}

/// Compares the clocks, as far as the server tells the time. RFC 9110 section 6.6.1.
fn clock(headers: &HeaderMap, now: SystemTime) -> Option<Check> {
    let theirs = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let (apart, direction) = match now.duration_since(theirs) {
        Ok(apart) => (apart, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let found = format!("this machine's clock is {} s {direction} the server's", apart.as_secs());
    let hint = "set the clock: certificates and tokens are good for a time";
    Some(if apart < SKEW_SEEN {
        Check::ok("clock", "this machine and the server agree on the time")
    } else if apart < SKEW_BAD {
        Check::warn("clock", found).hint(hint)
    } else {
        Check::fail("clock", found).hint(hint)
    })
}

/// Tells how many requests are left.
fn rate(balance: &Balance) -> Option<Check> {
    let (left, limit) = (balance.remaining?, balance.limit);
    let of = limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let source = balance.source.as_ref().map(|source| format!(", counted for {source}")).unwrap_or_default();
    let found = format!("{left}{of} requests are left{source}");
    Some(match left {
        0 => Check::fail("rate", found).hint("wait, or log in: users may ask more often than strangers"),
        left if limit.is_some_and(|limit| left < limit / 10) => {
            Check::warn("rate", found).hint("log in: users may ask more often than strangers")
        }
        _ => Check::ok("rate", found),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_told() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let at = |date: &str| {
            let headers = HeaderMap::from_iter([(DATE, date.parse().unwrap())]);
            clock(&headers, now).map(|check| check.verdict)
        };
        assert_eq!(at("Sun, 09 Sep 2001 01:46:41 GMT"), Some(Verdict::Ok));
        assert_eq!(at("Sun, 09 Sep 2001 01:48:00 GMT"), Some(Verdict::Warn));
        assert_eq!(at("Sun, 09 Sep 2001 00:46:40 GMT"), Some(Verdict::Fail));
        assert_eq!(at("yesterday"), None);
    }

    #[test]
    fn what_is_left_of_a_quota_is_told() {
        let rate = |left: &str| {
            let headers = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", left)];
            let headers = headers.map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
            Balance::of(&HeaderMap::from_iter(headers))
                .and_then(|it| rate(&it))
                .map(|check| (check.verdict, check.found))
        };
        assert_eq!(rate("76;w=21600"), Some((Verdict::Ok, "76 of 100 requests are left".to_owned())));
        assert_eq!(rate("3;w=21600").unwrap().0, Verdict::Warn);
        assert_eq!(rate("0").unwrap().0, Verdict::Fail);
        assert_eq!(rate("many"), None);
    }
}
