//! Requests to registries: authorised, and followed where they are redirected to.
//!
//! `Authorization` is for one host and leaves it in no case; what a redirect leads to is asked without, and its own
//! challenges are not answered. The same is true of the URLs that a registry gives for uploads.

use std::sync::Arc;

use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use windlass_core::{Attempt, Error, Result};

use crate::ask::{Access, Ask};
use crate::auth::{Authorization, Authorizer};
use crate::challenge;
use crate::error::{Earlier, attempt_of};
use crate::exchange::{Exchange, OthersFollow, Rule};
use crate::hosts::Repository;
use crate::passed_over;
use crate::payload::Payload;
use crate::redirect::{self, MAX_HOPS, Refused};
use crate::traffic::{Hosts, Traffic};
use crate::transport::Response;

/// Speaks to registries.
pub(crate) struct Client {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) authorizer: Authorizer,
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) transfers_per_host: usize,
    /// Who failed and was passed over.
    pub(crate) passed_over: passed_over::List,
}

/// An answer, and who gave it.
pub(crate) struct Answer {
    /// The host, as the user calls it or as a redirect names it.
    pub(crate) host: String,
    /// What was asked in the end.
    pub(crate) url: Uri,
    /// What it answered.
    pub(crate) response: Response,
    /// Whether it is the host that was asked, or one that a redirect led to.
    pub(crate) from: From,
}

impl Answer {
    /// Returns where the answer's `Location` leads, by the rules for redirects.
    ///
    /// # Errors
    /// `FailedPrecondition` when there is none, or when it leads from HTTPS to plain HTTP.
    pub(crate) fn location(&self) -> Result<Uri> {
        redirect::target(&self.url, location(&self.response)).map_err(|refused| not_followed(&self.host, refused))
    }
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The host that was asked.
    Registry,
    /// Another one, to which a redirect led.
    Elsewhere,
}

/// A request that knows where it goes.
struct Outbound<'a> {
    repository: &'a Repository,
    method: Method,
    url: Uri,
    headers: HeaderMap,
    body: Payload,
}

impl Client {
    /// Returns the traffic with the host of a repository, wherever it redirects to.
    pub(crate) fn traffic(&self, repository: &Repository) -> Arc<Traffic> {
        self.hosts.with(&repository.host.name, self.transfers_per_host)
    }

    /// Asks for a part of a repository.
    ///
    /// # Errors
    /// Why there is no answer; an answer of any status is no error.
    pub(crate) async fn send(&self, ask: Ask<'_>) -> Result<Answer> {
        let url = ask.repository.url(ask.part)?;
        self.send_to(url, ask).await
    }

    /// Asks at a URL that the registry of the repository gave, in place of the part's. At another host nobody says who
    /// we are.
    ///
    /// # Errors
    /// Those of [`Client::send`]; `Unavailable` when a stream was refused by a registry that wants another token, which
    /// is there the next time.
    pub(crate) async fn send_to(&self, url: Uri, ask: Ask<'_>) -> Result<Answer> {
        let Ask { method, repository, headers, body, access, .. } = ask;
        let again = body.copy();
        let outbound = |body| {
            let (method, url, headers) = (method.clone(), url.clone(), headers.clone());
            Outbound { repository, method, url, headers, body }
        };
        if !redirect::same_origin(&repository.url("")?, &url) {
            return self.follow(outbound(body), None).await;
        }
        let known = self.authorizer.known(&self.exchange, repository, &access).await?;
        let answer = self.follow(outbound(body), known.as_ref()).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED || answer.from == From::Elsewhere {
            return Ok(answer);
        }
        let tried = attempt_of(&answer.response).cloned();
        let authorized = self.authorize(repository, &access, answer.response.headers(), known.as_ref()).await;
        match (authorized.map_err(|error| error.attempts(tried))?, again) {
            (Some(authorization), Some(body)) => self.follow(outbound(body), Some(&authorization)).await,
            (Some(_), None) => Err(Error::unavailable(format!(
                "{} wanted another token in the middle of an upload to {}",
                answer.host, repository.name
            ))
            .hint("run the command again: it continues")),
            (None, _) => Ok(answer),
        }
    }

    /// Answers the challenges of a refusal.
    async fn authorize(
        &self,
        repository: &Repository,
        access: &Access,
        headers: &HeaderMap,
        refused: Option<&Authorization>,
    ) -> Result<Option<Authorization>> {
        let challenges = challenge::of_headers(headers);
        self.authorizer.answer(&self.exchange, repository, access, &challenges, refused).await
    }

    /// Sends a request on to wherever it is redirected.
    async fn follow(&self, outbound: Outbound<'_>, authorization: Option<&Authorization>) -> Result<Answer> {
        let Outbound { repository, method, mut url, mut headers, mut body } = outbound;
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.header());
        }
        let traffic = self.traffic(repository);
        let (mut host, mut from) = (repository.host.name.clone(), From::Registry);
        let mut rule = Rule(repository.host.rule.clone().into());
        let mut tried: Vec<Attempt> = Vec::new();
        if !redirect::same_origin(&repository.url("")?, &url) {
            (host, from) = (authority(&url), From::Elsewhere);
        }
        for _ in 0..=MAX_HOPS {
            let again = body.copy();
            let mut request = Request::new(body);
            *request.method_mut() = method.clone();
            *request.uri_mut() = url.clone();
            *request.headers_mut() = headers.clone();
            repository.host.prepare(&mut request);
            request.extensions_mut().insert(rule.clone());
            if repository.others_follow {
                request.extensions_mut().insert(OthersFollow);
            }
            if let Some(scopes) = authorization.and_then(Authorization::scopes).filter(|_| from == From::Registry) {
                request.extensions_mut().insert(scopes.clone());
            }
            let sent = self.exchange.send(&host, request, Some(&traffic)).await;
            let mut response = sent.map_err(|error| error.attempts(tried.iter().cloned()))?;
            if !redirect::is_redirect(&method, response.status()) {
                response.extensions_mut().insert(Earlier(tried));
                return Ok(Answer { host, url, response, from });
            }
            if let Some(attempt) = attempt_of(&response) {
                match tried.last_mut().filter(|last| last.host == attempt.host && last.operation == attempt.operation) {
                    Some(same) => same.retries += 1 + attempt.retries,
                    None => tried.push(attempt.clone()),
                }
            }
            let target = redirect::target(&url, location(&response))
                .map_err(|refused| not_followed(&host, refused).attempts(tried.iter().cloned()))?;
            let Some(again) = again else { return Err(sent_already(&host)) };
            if !redirect::same_origin(&url, &target) {
                headers.remove(AUTHORIZATION);
                rule = Rule(format!("redirected to by {host}").into());
                (host, from) = (authority(&target), From::Elsewhere);
            }
            (url, body) = (target, again);
        }
        Err(Error::failed_precondition(format!(
            "{} redirects the request for {} more than {MAX_HOPS} times",
            repository.host.name, repository.name
        ))
        .coded("redirect-loop")
        .hint("the registry, or a proxy before it, redirects in a circle; its operator has to look at it")
        .attempts(tried))
    }
}

fn authority(uri: &Uri) -> String {
    uri.authority().map_or_else(String::new, ToString::to_string)
}

fn location(response: &Response) -> &str {
    response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or("")
}

fn sent_already(host: &str) -> Error {
    Error::failed_precondition(format!("{host} redirects an upload after it was sent"))
        .hint("the operator of the registry, or of a proxy before it, has to look at it")
}

fn not_followed(host: &str, refused: Refused) -> Error {
    let nobody_else = "the operator of the registry has to look at it";
    let (code, what, hint) = match refused {
        Refused::Malformed => ("redirect-malformed", "to somewhere that is not a URL", nobody_else),
        Refused::Downgrade => (
            "redirect-downgrade",
            "from HTTPS to plain HTTP",
            "what is asked for over TLS is not fetched without; the operator of the registry has to look at it",
        ),
        Refused::Scheme => ("redirect-malformed", "to something that is not HTTP", nobody_else),
        Refused::Address => ("redirect-address", "to an address that nobody is sent to", nobody_else),
    };
    Error::failed_precondition(format!("{host} redirects {what}")).coded(code).hint(hint)
}
