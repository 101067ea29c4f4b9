//! Tokens: what a registry's token server gives for a scope.
//!
//! distribution's documentation, "Token Authentication Specification" (`GET`) and "OAuth2 Token Authentication"
//! (`POST`, which an identity token needs).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use serde::Deserialize;
use windlass_core::{Error, Result};

use crate::ask::Access;
use crate::auth::Authorization;
use crate::body;
use crate::challenge::Challenge;
use crate::credentials::Credential;
use crate::error::{Complaint, status_text};
use crate::exchange::Exchange;
use crate::hosts::Repository;
use crate::payload::Payload;
use crate::transport::Response;

/// The largest answer of a token server that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a token lives when the server does not say; the specification's number, and its minimum.
const USUAL_LIFE: u64 = 60;
/// The part of a token's life that is not used, so that none expires on its way.
const MARGIN: Duration = Duration::from_secs(5);

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
                realm.host().is_some() && !realm.authority().is_some_and(|a| a.as_str().contains('@'))
            })
            .ok_or_else(|| {
                Error::failed_precondition(format!("{} wants a token but does not say from where", host.name))
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
            .hint("credentials are not sent without TLS; the operator of the registry has to look at it"));
        }
        // Scopes of repositories are ours to name; others, such as Amazon's `aws`, are the host's.
        let scopes = challenge.parameter("scope").unwrap_or_default().split(' ');
        let extra_scopes = scopes.filter(|scope| !scope.is_empty() && !scope.starts_with("repository:"));
        Ok(Self {
            realm,
            service: challenge.parameter("service").map(str::to_owned),
            extra_scopes: extra_scopes.map(str::to_owned).collect(),
        })
    }

    /// Returns the scopes that some access to a repository needs.
    pub(crate) fn scopes(&self, repository: &Repository, access: &Access) -> Vec<String> {
        access.scopes(&repository.name).into_iter().chain(self.extra_scopes.iter().cloned()).collect()
    }

    fn host(&self) -> &str {
        self.realm.host().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Gets a token for scopes.
///
/// # Errors
/// `Unauthenticated` when the server refuses, `Unavailable` when it does not work.
pub(crate) async fn fetch(
    exchange: &Exchange,
    repository: &Repository,
    server: &TokenServer,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Result<Token> {
    let request = request(server, scopes, credential)?;
    // Redirects are not followed: what is sent is meant for this server alone.
    let response = exchange.send(server.host(), request, None).await?;
    let asked = Instant::now();
    if response.status() != StatusCode::OK {
        return Err(refused(exchange, repository, server, response, credential.is_some()).await);
    }
    let about = format!("the token for {}", repository.name);
    let bytes = body::read(response, server.host(), &about, MAX_ANSWER, exchange.timeouts.idle).await?;
    // The parser's words could quote the token.
    let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| no_token(repository, server))?;
    let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
    let life = Duration::from_secs(answer.expires_in.unwrap_or(USUAL_LIFE).clamp(USUAL_LIFE, 24 * 3600));
    Ok(Token {
        authorization: Authorization::bearer(&token.ok_or_else(|| no_token(repository, server))?)?,
        expires: asked + life.saturating_sub(MARGIN),
    })
}

fn request(server: &TokenServer, scopes: &[String], credential: Option<&Credential>) -> Result<Request<Payload>> {
    let service = server.service.iter().map(|service| ("service", service.as_str()));
    let mut request = Request::new(Payload::Empty);
    if let Some(Credential::IdentityToken(token)) = credential {
        let scopes = scopes.join(" ");
        let fixed = [("grant_type", "refresh_token"), ("refresh_token", token.expose()), ("client_id", "windlass")];
        let form = form(fixed.into_iter().chain(service).chain([("scope", scopes.as_str())]));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = server.realm.clone();
        *request.body_mut() = Payload::Bytes(form.into());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
        return Ok(request);
    }
    let query = form(service.chain(scopes.iter().map(|scope| ("scope", scope.as_str()))));
    let separator = if server.realm.query().is_some() { '&' } else { '?' };
    *request.uri_mut() = format!("{}{separator}{query}", server.realm).parse().map_err(|e| {
        Error::failed_precondition(format!("the token server {} is not usable", server.host())).source(e)
    })?;
    if let Some(Credential::Password { username, password }) = credential {
        let basic = Authorization::basic(username.expose(), password.expose())?;
        request.headers_mut().insert(AUTHORIZATION, basic.header());
    }
    Ok(request)
}

/// `application/x-www-form-urlencoded`; everything but RFC 3986's unreserved characters is escaped.
fn form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut form = String::new();
    for (name, value) in pairs {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                form.push(char::from(byte));
            } else {
                let written = write!(form, "%{byte:02X}");
                debug_assert!(written.is_ok(), "a string takes anything");
            }
        }
    }
    form
}

fn no_token(repository: &Repository, server: &TokenServer) -> Error {
    Error::unavailable(format!("{}, the token server of {}, gives no token", server.host(), repository.host.name))
        .hint("its answer is not what a token server sends; look whether a proxy or a login page is in between")
}

async fn refused(
    exchange: &Exchange,
    repository: &Repository,
    server: &TokenServer,
    response: Response,
    identified: bool,
) -> Error {
    let (host, at) = (&repository.host.name, server.host());
    let status = response.status();
    let complaint = Complaint::read(response, exchange.timeouts.idle).await;
    match status.as_u16() {
        // Some servers answer 400 to a credential they do not know.
        400 | 401 | 403 if identified => {
            Error::unauthenticated(format!("{at}, the token server of {host}, refuses the credentials{complaint}"))
                .hint(format!("correct the entry for {host} in the docker config file"))
        }
        401 | 403 => Error::unauthenticated(format!(
            "{at}, the token server of {host}, wants credentials for {}{complaint}",
            repository.name
        ))
        .hint(format!("put credentials for {host} into the docker config file, under \"auths\"")),
        429 => Error::resource_exhausted(format!(
            "{at}, the token server of {host}, limits the rate of requests{complaint}"
        ))
        .hint("wait a while, then run the command again"),
        _ => {
            Error::unavailable(format!("{at}, the token server of {host}, answers {}{complaint}", status_text(status)))
                .hint("run the command again later")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;
    use crate::hosts;
    use crate::options::PlainHttp;

    fn repository(plain_http: PlainHttp) -> Repository {
        hosts::repositories(&"a.test/b/c:1".parse().unwrap(), plain_http).unwrap().remove(0)
    }

    fn challenge(parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Challenge { scheme: "bearer".to_owned(), parameters }
    }

    #[test]
    fn a_password_is_sent_as_basic_and_a_refresh_token_in_a_form() {
        let repository = repository(PlainHttp::Never);
        let challenge = challenge(&[
            ("realm", "https://auth.test/token?x=1"),
            ("service", "a b"),
            ("scope", "repository:b/c:pull aws"),
        ]);
        let server = TokenServer::of_challenge(&repository, &challenge).unwrap();
        let scopes = server.scopes(&repository, &Access::Pull);
        assert_eq!(scopes, ["repository:b/c:pull", "aws"]);

        let get = request(&server, &scopes, Some(&Credential::password("u", "p"))).unwrap();
        assert_eq!(
            get.uri().to_string(),
            "https://auth.test/token?x=1&service=a%20b&scope=repository%3Ab%2Fc%3Apull&scope=aws"
        );
        assert_eq!(get.headers()[AUTHORIZATION], "Basic dTpw");
        assert!(!format!("{get:?}").contains("dTpw"));

        let post = request(&server, &scopes, Some(&Credential::IdentityToken(Secret::new("r&t")))).unwrap();
        assert_eq!(post.method(), Method::POST);
        let Payload::Bytes(form) = post.body() else { panic!("there is no form") };
        let form = String::from_utf8(form.to_vec()).unwrap();
        assert!(form.contains("grant_type=refresh_token&refresh_token=r%26t&"), "{form}");
        assert!(form.ends_with("&scope=repository%3Ab%2Fc%3Apull%20aws"), "{form}");
        assert!(!post.headers().contains_key(AUTHORIZATION));
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
