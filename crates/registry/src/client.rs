//! Requests to registries: authorised, and followed where they are redirected to.
//!
//! `Authorization` is for one host and leaves it in no case; what a redirect leads to is asked without, and its own
//! challenges are not answered.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use windlass_core::{Error, Result};

use crate::auth::{Authorization, Authorizer};
use crate::challenge;
use crate::exchange::Exchange;
use crate::hosts::Repository;
use crate::redirect::{self, MAX_HOPS, Refused};
use crate::traffic::{Hosts, Traffic};
use crate::transport::Response;

/// Speaks to registries.
pub(crate) struct Client {
    pub(crate) exchange: Exchange,
    pub(crate) authorizer: Authorizer,
    pub(crate) hosts: Hosts,
    pub(crate) transfers_per_host: usize,
}

/// An answer, and who gave it.
pub(crate) struct Answer {
    /// The host, as the user calls it or as a redirect names it.
    pub(crate) host: String,
    /// What it answered.
    pub(crate) response: Response,
    /// Whether it is the host that was asked, or one that a redirect led to.
    pub(crate) from: From,
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The host that was asked.
    Registry,
    /// Another one, to which a redirect led.
    Elsewhere,
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
    pub(crate) async fn send(
        &self,
        method: Method,
        repository: &Repository,
        part: &str,
        headers: HeaderMap,
    ) -> Result<Answer> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = repository.url(part)?;
        *request.headers_mut() = headers;

        let known = self.authorizer.known(&self.exchange, repository).await?;
        let answer = self.follow(repository, &request, known.as_ref()).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED || answer.from == From::Elsewhere {
            return Ok(answer);
        }
        let challenges = challenge::of_headers(answer.response.headers());
        match self.authorizer.answer(&self.exchange, repository, &challenges, known.as_ref()).await? {
            Some(authorization) => self.follow(repository, &request, Some(&authorization)).await,
            None => Ok(answer),
        }
    }

    /// Sends a request on to wherever it is redirected.
    async fn follow(
        &self,
        repository: &Repository,
        request: &Request<Bytes>,
        authorization: Option<&Authorization>,
    ) -> Result<Answer> {
        let mut request = request.clone();
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.header());
        }
        let mut host = repository.host.name.clone();
        let traffic = self.traffic(repository);
        let mut from = From::Registry;
        for _ in 0..=MAX_HOPS {
            let response = self.exchange.send(&host, request.clone(), Some(&traffic)).await?;
            if !redirect::is_redirect(response.status()) {
                return Ok(Answer { host, response, from });
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or("");
            let target = redirect::target(request.uri(), location).map_err(|refused| not_followed(&host, refused))?;
            if !redirect::same_origin(request.uri(), &target) {
                request.headers_mut().remove(AUTHORIZATION);
                host = authority(&target);
                from = From::Elsewhere;
            }
            *request.uri_mut() = target;
        }
        Err(Error::failed_precondition(format!(
            "{} redirects the request for {} more than {MAX_HOPS} times",
            repository.host.name, repository.name
        ))
        .hint("the registry, or a proxy before it, redirects in a circle; its operator has to look at it"))
    }
}

fn authority(uri: &Uri) -> String {
    uri.authority().map_or_else(String::new, ToString::to_string)
}

fn not_followed(host: &str, refused: Refused) -> Error {
    let (what, hint) = match refused {
        Refused::Malformed => ("to somewhere that is not a URL", "the operator of the registry has to look at it"),
        Refused::Downgrade => (
            "from HTTPS to plain HTTP",
            "what is asked for over TLS is not fetched without; the operator of the registry has to look at it",
        ),
        Refused::Scheme => ("to something that is not HTTP", "the operator of the registry has to look at it"),
    };
    Error::failed_precondition(format!("{host} redirects {what}")).hint(hint)
}
