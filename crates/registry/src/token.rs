//! Tokens: what a registry's token server gives for a scope.
//!
//! distribution's documentation, "Token Authentication Specification" (`GET`) and "OAuth2 Token Authentication"
//! (`POST`, which an identity token needs).

mod grant;

use std::time::Instant;

use http::Uri;
use http::uri::{Authority, Scheme};
use windlass_core::{Error, Result};

use crate::ask::Access;
use crate::auth::Authorization;
use crate::challenge::Challenge;
use crate::elsewhere::is_never_asked;
use crate::hosts::Repository;

pub(crate) use grant::{Asked, Offline, fetch};

/// What the scope of a repository begins with.
const REPOSITORY: &str = "repository:";

/// A token, and until when to use it.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) authorization: Authorization,
    pub(crate) expires: Instant,
}

/// Where a host's tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenServer {
    realm: Uri,
    service: Option<String>,
    /// Scopes that the host asks for beside the repository's.
    extra_scopes: Vec<String>,
    /// What is before the names of repositories in scopes, with a slash at its end, where the root of the API is below a repository.
    prefix: String,
}

impl TokenServer {
    /// Reads a `Bearer` challenge.
    ///
    /// # Errors
    /// `FailedPrecondition` for a realm that is not a URL, or one to which a password would travel without TLS.
    pub(crate) fn of_challenge(repository: &Repository, challenge: &Challenge) -> Result<Self> {
        let host = &repository.host;
        let realm: Uri = challenge
            .parameter("realm")
            .and_then(|realm| realm.parse().ok())
            .filter(|realm: &Uri| {
                let own = |name: &str| host.authority.parse().is_ok_and(|own: Authority| own.host() == name);
                realm.host().is_some_and(|name| !is_never_asked(name) || own(name))
                    && !realm.authority().is_some_and(|a| a.as_str().contains('@'))
            })
            .ok_or_else(|| {
                Error::failed_precondition(format!("{} wants a token but does not say from where", host.name))
                    .coded("challenge-malformed")
                    .hint("its answer has no usable realm in WWW-Authenticate; the operator has to look at it")
            })?;
        let usable = realm.scheme() == Some(&Scheme::HTTPS)
            || (realm.scheme() == Some(&Scheme::HTTP) && host.scheme == Scheme::HTTP);
        if !usable {
            return Err(Error::failed_precondition(format!(
                "{} wants a token from {}, which is not asked over TLS",
                host.name,
                realm.host().unwrap_or_default()
            ))
            .coded("token-server-without-tls")
            .hint("credentials are not sent without TLS; the operator of the registry has to look at it"));
        }
        // Scopes of repositories are ours to name; others, such as Amazon's `aws`, are the host's.
        let mut scopes = challenge.parameter("scope").unwrap_or_default().split(' ');
        let extra_scopes = scopes.clone().filter(|scope| !scope.is_empty() && !scope.starts_with(REPOSITORY));
        let prefix = scopes.find_map(|scope| prefix(repository, scope));
        Ok(Self {
            realm,
            service: challenge.parameter("service").map(str::to_owned),
            extra_scopes: extra_scopes.map(str::to_owned).collect(),
            prefix: prefix.unwrap_or_default(),
        })
    }

    /// Returns the scopes that some access to a repository needs.
    pub(crate) fn scopes(&self, repository: &Repository, access: &Access) -> Vec<String> {
        let own = access.scopes(&repository.name).into_iter();
        let own = own.map(|scope| match scope.strip_prefix(REPOSITORY) {
            Some(rest) => format!("{REPOSITORY}{}{rest}", self.prefix),
            None => scope,
        });
        own.chain(self.extra_scopes.iter().cloned()).collect()
    }

    /// Returns what tells this server from others, and its services from each other.
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.realm, self.service.as_deref().unwrap_or_default())
    }

    pub(crate) fn host(&self) -> &str {
        self.realm.host().unwrap_or_default()
    }
}

/// Returns what a host with a root of its own has before the name of a repository in a scope. A host with the usual root has nothing
/// there: which repository is meant is ours to say.
fn prefix(repository: &Repository, scope: &str) -> Option<String> {
    let (named, _) = scope.strip_prefix(REPOSITORY)?.rsplit_once(':')?;
    let prefix = named.strip_suffix(&repository.name).filter(|prefix| prefix.ends_with('/'))?;
    repository.host.has_own_root().then(|| prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::RegistryHost;
    use crate::options::PlainHttp;

    fn repository(plain_http: PlainHttp) -> Repository {
        Repository::at(RegistryHost::itself("a.test", plain_http), "b/c")
    }

    fn challenge(parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Challenge { scheme: "bearer".to_owned(), parameters }
    }

    #[test]
    fn a_host_with_a_root_of_its_own_says_what_is_before_the_names_of_its_repositories() {
        let scope = challenge(&[("realm", "https://auth.test/token"), ("scope", "repository:hub/b/c:pull aws")]);
        let usual = repository(PlainHttp::Never);
        let host = RegistryHost { path: "/v2/hub".to_owned(), ..RegistryHost::itself("a.test", PlainHttp::Never) };
        let below = Repository { host: host.into(), ..usual.clone() };
        let scopes = |repository: &Repository, access| {
            TokenServer::of_challenge(repository, &scope).unwrap().scopes(repository, &access)
        };
        assert_eq!(scopes(&usual, Access::Pull), ["repository:b/c:pull", "aws"]);
        assert_eq!(scopes(&below, Access::Pull), ["repository:hub/b/c:pull", "aws"]);
        let mount = scopes(&below, Access::MountFrom("x".to_owned()));
        assert!(mount.iter().all(|scope| scope == "aws" || scope.starts_with("repository:hub/")), "{mount:?}");
    }

    #[test]
    fn a_token_server_without_tls_is_not_asked_for_a_registry_with_tls() {
        let plain = challenge(&[("realm", "http://auth.test/token")]);
        assert!(TokenServer::of_challenge(&repository(PlainHttp::Never), &plain).is_err());
        assert!(TokenServer::of_challenge(&repository(PlainHttp::Always), &plain).is_ok());
        for realm in ["", "not a url", "/token", "https://u:p@auth.test/token"] {
            let malformed = challenge(&[("realm", realm)]);
            assert!(TokenServer::of_challenge(&repository(PlainHttp::Always), &malformed).is_err(), "{realm:?}");
        }
    }
}
