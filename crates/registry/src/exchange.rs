//! One request to one host, tried again when that may help. Knows nothing of registries.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use windlass_core::Result;

use crate::failure::{Failure, Peer};
use crate::options::Timeouts;
use crate::retry::Retry;
use crate::traffic::Traffic;
use crate::transport::{Response, Transport};

/// Sends requests.
pub(crate) struct Exchange {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Timeouts,
    pub(crate) user_agent: HeaderValue,
    /// The hosts that have answered.
    pub(crate) answered: Mutex<HashSet<String>>,
}

impl Exchange {
    /// Sends a request, whose URL is absolute, until there is an answer that stands; `name` is what the user calls the host.
    /// The traffic, when given, is told when the host has too much to do.
    ///
    /// # Errors
    /// Why there is no answer. An answer of any status is no error.
    pub(crate) async fn send(
        &self,
        name: &str,
        mut request: Request<Bytes>,
        traffic: Option<&Traffic>,
    ) -> Result<Response> {
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        // Digests are of what is stored, so nothing may be encoded on the way.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut tried = 0;
        loop {
            tried += 1;
            let result = self.once(request.clone()).await?;
            if let (Ok(response), Some(traffic)) = (&result, traffic)
                && matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            {
                traffic.refused();
            }
            let wait = match &result {
                Ok(response) => self.retry.after_status(tried, response.status(), response.headers()),
                Err(failure) if failure.is_transient() => self.retry.after_failure(tried),
                Err(_) => None,
            };
            match (wait, result) {
                (Some(wait), result) => {
                    let status = result.map(|response| response.status());
                    tracing::debug!(host = name, ?status, ?wait, "trying again");
                    tokio::time::sleep(wait).await;
                }
                (None, Ok(response)) => {
                    self.answered_by(name);
                    return Ok(response);
                }
                (None, Err(failure)) => return Err(failure.into_error(self.peer(name, &request))),
            }
        }
    }

    async fn once(&self, request: Request<Bytes>) -> Result<Result<Response, Failure>> {
        // The query is left out: it may hold the signature of a URL.
        let (method, host, path) =
            (request.method().clone(), request.uri().host().map(str::to_owned), request.uri().path().to_owned());
        let limit = self.timeouts.response;
        let result = match tokio::time::timeout(limit, self.transport.send(request)).await {
            Ok(result) => result?,
            Err(_) => Err(Failure::timeout(limit)),
        };
        match &result {
            Ok(response) => tracing::debug!(%method, host, path, status = response.status().as_u16(), "answer"),
            Err(failure) => tracing::debug!(%method, host, path, ?failure, "no answer"),
        }
        Ok(result)
    }

    fn peer<'a>(&self, name: &'a str, request: &'a Request<Bytes>) -> Peer<'a> {
        let authority = request.uri().authority().map_or(name, |authority| authority.as_str());
        Peer { name, authority, answered: self.has_answered(name) }
    }

    fn has_answered(&self, name: &str) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn answered_by(&self, name: &str) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if !answered.contains(name) {
            answered.insert(name.to_owned());
        }
    }
}
