//! Asking a token server: for what, and as whom.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;
use windlass_core::{Attempt, Error, Result};

use super::{Token, TokenServer};
use crate::auth::Authorization;
use crate::body;
use crate::credentials::{Credential, Secret};
use crate::error::{Complaint, attempt_of, status_text};
use crate::exchange::{Exchange, Rule};
use crate::hosts::Repository;
use crate::payload::Payload;
use crate::scopes::Scopes;
use crate::transport::Response;

/// The largest answer of a token server that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a token lives when the server does not say; the specification's number, and its minimum.
const USUAL_LIFE: u64 = 60;
/// The part of a token's life that is not used, so that none expires on its way.
const MARGIN: Duration = Duration::from_secs(5);
/// What we are called by OAuth2.
const CLIENT: (&str, &str) = ("client_id", "windlass");

/// What a token server has given.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) token: Token,
    /// What gets tokens in place of the password from now on.
    pub(crate) refresh: Option<Secret>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    scope: Option<String>,
}

/// As whom a token is asked for.
#[derive(Debug, Clone, Copy)]
enum Grant<'a> {
    /// `GET`, as anyone.
    Anyone,
    /// `GET`, with the password in `Authorization`; and whether it is asked for what gets tokens without it.
    Basic { username: &'a Secret, password: &'a Secret, offline: bool },
    /// `POST`, with the password in a form.
    Password { username: &'a Secret, password: &'a Secret },
    /// `POST`, with a token that was given before.
    Refresh(&'a Secret),
}

/// Whether what gets tokens without the password is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offline {
    Wanted,
    NotAskedFor,
}

/// A server, and on whose behalf it is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) repository: &'a Repository,
    pub(crate) server: &'a TokenServer,
    pub(crate) scopes: &'a [String],
}

/// Gets a token for scopes. A password is sent by `GET`, and by `POST` to a server that does not know that; `remembered` is what such a
/// server has given before, which goes before the password.
///
/// # Errors
/// `Unauthenticated` when the server refuses, `Unavailable` when it does not work.
pub(crate) async fn fetch(
    asked: Asked<'_>,
    credential: Option<&Credential>,
    remembered: Option<&Secret>,
    offline: Offline,
) -> Result<Given> {
    let (username, password) = match credential {
        None | Some(Credential::RegistryToken(_)) => return asked.for_good(Grant::Anyone).await,
        Some(Credential::IdentityToken(token)) => return asked.for_good(Grant::Refresh(token)).await,
        Some(Credential::Password { username, password }) => (username, password),
    };
    if let Some(remembered) = remembered {
        let response = asked.send(Grant::Refresh(remembered)).await?;
        if response.status() == StatusCode::OK {
            return asked.read(response).await;
        }
        tracing::debug!(status = response.status().as_u16(), "what was to replace the password does not any more");
    }
    let offline = offline == Offline::Wanted;
    let response = asked.send(Grant::Basic { username, password, offline }).await?;
    match response.status() {
        StatusCode::OK => asked.read(response).await,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            asked.for_good(Grant::Password { username, password }).await
        }
        _ => Err(asked.refused(response, true).await),
    }
}

impl Asked<'_> {
    /// Asks, and takes a refusal for one.
    async fn for_good(self, grant: Grant<'_>) -> Result<Given> {
        let response = self.send(grant).await?;
        if response.status() == StatusCode::OK {
            return self.read(response).await;
        }
        Err(self.refused(response, !matches!(grant, Grant::Anyone)).await)
    }

    async fn send(self, grant: Grant<'_>) -> Result<Response> {
        let mut request = request(self.server, self.scopes, grant)?;
        self.repository.host.prepare(&mut request);
        request.extensions_mut().insert(Scopes::asked(self.scopes));
        request.extensions_mut().insert(Rule(format!("the token server of {}", self.repository.host.name).into()));
        // Redirects are not followed: what is sent is meant for this server alone.
        self.exchange.send(self.server.host(), request, None).await
    }

    async fn read(self, response: Response) -> Result<Given> {
        let asked = Instant::now();
        let about = format!("the token for {}", self.repository.name);
        let idle = self.exchange.timeouts.idle;
        let attempt = attempt_of(&response).cloned();
        let no_token = || self.no_token(attempt.clone());
        let bytes = body::read(response, self.server.host(), &about, MAX_ANSWER, idle).await?;
        // The parser's words could quote the token.
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| no_token())?;
        let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let token = token.ok_or_else(no_token)?;
        let scopes = Scopes::asked(self.scopes).granted(answer.scope.as_deref(), &token);
        let life = Duration::from_secs(answer.expires_in.unwrap_or(USUAL_LIFE).clamp(USUAL_LIFE, 24 * 3600));
        let token = Token {
            authorization: Authorization::bearer(&token)?.for_scopes(scopes),
            expires: asked + life.saturating_sub(MARGIN),
        };
        Ok(Given { token, refresh: answer.refresh_token.filter(|token| !token.is_empty()).map(Secret::new) })
    }

    fn no_token(self, attempt: Option<Attempt>) -> Error {
        let (at, host) = (self.server.host(), &self.repository.host.name);
        Error::unavailable(format!("{at}, the token server of {host}, gives no token"))
            .coded("no-token")
            .hint("its answer is not what a token server sends; look whether a proxy or a login page is in between")
            .attempts(attempt)
    }

    async fn refused(self, response: Response, identified: bool) -> Error {
        let (host, at) = (&self.repository.host.name, self.server.host());
        let status = response.status();
        let mut attempt = attempt_of(&response).cloned();
        let complaint = Complaint::read(response, self.exchange.timeouts.idle).await;
        if let Some(attempt) = &mut attempt {
            complaint.add_to(attempt);
        }
        let error = match status.as_u16() {
            // Some servers answer 400 to a credential they do not know.
            400 | 401 | 403 if identified => {
                Error::unauthenticated(format!("{at}, the token server of {host}, refuses the credentials{complaint}"))
                    .coded("credentials-refused")
                    .hint(format!("`dist login {host}` replaces them"))
            }
            401 | 403 => Error::unauthenticated(format!(
                "{at}, the token server of {host}, wants credentials for {}{complaint}",
                self.repository.name
            ))
            .coded("credentials-needed")
            .hint(format!("`dist login {host}` takes them")),
            429 => Error::resource_exhausted(format!(
                "{at}, the token server of {host}, limits the rate of requests{complaint}"
            ))
            .coded("rate-limited")
            .hint("wait a while, then run the command again"),
            _ => {
                let status = status_text(status);
                Error::unavailable(format!("{at}, the token server of {host}, answers {status}{complaint}"))
                    .coded("token-server-failed")
                    .hint("run the command again later")
            }
        };
        error.attempts(attempt)
    }
}

fn request(server: &TokenServer, scopes: &[String], grant: Grant<'_>) -> Result<Request<Payload>> {
    let service = server.service.iter().map(|service| ("service", service.as_str()));
    let mut request = Request::new(Payload::Empty);
    let fields = match grant {
        Grant::Anyone | Grant::Basic { .. } => {
            let offline = matches!(grant, Grant::Basic { offline: true, .. });
            let offline = offline.then_some([("offline_token", "true"), CLIENT]).into_iter().flatten();
            let query = form(service.chain(offline).chain(scopes.iter().map(|scope| ("scope", scope.as_str()))));
            let separator = if server.realm.query().is_some() { '&' } else { '?' };
            *request.uri_mut() = format!("{}{separator}{query}", server.realm).parse().map_err(|e| {
                Error::failed_precondition(format!("the token server {} is not usable", server.host())).source(e)
            })?;
            if let Grant::Basic { username, password, .. } = grant {
                let basic = Authorization::basic(username.expose(), password.expose())?;
                request.headers_mut().insert(AUTHORIZATION, basic.header());
            }
            return Ok(request);
        }
        Grant::Password { username, password } => vec![
            ("grant_type", "password"),
            ("username", username.expose()),
            ("password", password.expose()),
            ("access_type", "offline"),
        ],
        Grant::Refresh(token) => vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())],
    };
    let scopes = scopes.join(" ");
    let scope = (!scopes.is_empty()).then_some(("scope", scopes.as_str()));
    let form = form(fields.into_iter().chain([CLIENT]).chain(service).chain(scope));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = server.realm.clone();
    *request.body_mut() = Payload::Bytes(form.into());
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(CONTENT_TYPE, form);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> TokenServer {
        TokenServer {
            realm: "https://auth.test/token?x=1".parse().unwrap(),
            service: Some("a b".to_owned()),
            extra_scopes: Vec::new(),
            prefix: String::new(),
        }
    }

    #[test]
    fn a_password_is_sent_as_basic_and_in_a_form_where_nothing_else_is_known() {
        let (server, scopes) = (server(), ["repository:b/c:pull".to_owned(), "aws".to_owned()]);
        let (username, password) = (&Secret::new("u"), &Secret::new("p"));
        let get = request(&server, &scopes, Grant::Basic { username, password, offline: false }).unwrap();
        assert_eq!(
            get.uri().to_string(),
            "https://auth.test/token?x=1&service=a%20b&scope=repository%3Ab%2Fc%3Apull&scope=aws"
        );
        assert_eq!(get.headers()[AUTHORIZATION], "Basic dTpw");
        assert!(!format!("{get:?}").contains("dTpw"));
        let login = request(&server, &[], Grant::Basic { username, password, offline: true }).unwrap();
        assert!(login.uri().to_string().ends_with("?x=1&service=a%20b&offline_token=true&client_id=windlass"));

        let posted = |grant| {
            let post = request(&server, &scopes, grant).unwrap();
            assert_eq!((post.method(), post.headers().contains_key(AUTHORIZATION)), (&Method::POST, false));
            let Payload::Bytes(form) = post.into_body() else { panic!("there is no form") };
            String::from_utf8(form.to_vec()).unwrap()
        };
        let rest = "&client_id=windlass&service=a%20b&scope=repository%3Ab%2Fc%3Apull%20aws";
        let given = Secret::new("r&t");
        let refresh = posted(Grant::Refresh(&given));
        assert_eq!(refresh, format!("grant_type=refresh_token&refresh_token=r%26t{rest}"));
        let form = posted(Grant::Password { username, password });
        assert_eq!(form, format!("grant_type=password&username=u&password=p&access_type=offline{rest}"));
    }
}
