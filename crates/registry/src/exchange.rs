//! One request to one host, tried again when that may help. Knows nothing of registries.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use http::header::{ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use windlass_core::Result;

use crate::failure::{Failure, Peer};
use crate::options::Timeouts;
use crate::payload::Payload;
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
    /// The traffic, when given, is told when the host has too much to do. A stream is sent once: whatever comes of it stands.
    ///
    /// # Errors
    /// Why there is no answer. An answer of any status is no error.
    pub(crate) async fn send(
        &self,
        name: &str,
        mut request: Request<Payload>,
        traffic: Option<&Traffic>,
    ) -> Result<Response> {
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        // Digests are of what is stored, so nothing may be encoded on the way.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (head, mut payload) = request.into_parts();
        let mut tried = 0;
        loop {
            tried += 1;
            let again = payload.copy();
            let result = self.once(Request::from_parts(head.clone(), payload)).await?;
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
            match (wait.zip(again), result) {
                (Some((wait, again)), result) => {
                    let status = result.map(|response| response.status());
                    tracing::debug!(host = name, ?status, ?wait, "trying again");
                    payload = again;
                    tokio::time::sleep(wait).await;
                }
                (None, Ok(response)) => {
                    self.answered_by(name);
                    return Ok(response);
                }
                (None, Err(failure)) => return Err(failure.into_error(self.peer(name, &head.uri))),
            }
        }
    }

    async fn once(&self, request: Request<Payload>) -> Result<Result<Response, Failure>> {
        // The query is left out: it may hold the signature of a URL.
        let (method, host, path) =
            (request.method().clone(), request.uri().host().map(str::to_owned), request.uri().path().to_owned());
        let result = self.in_time(request).await?;
        match &result {
            Ok(response) => tracing::debug!(%method, host, path, status = response.status().as_u16(), "answer"),
            Err(failure) => tracing::debug!(%method, host, path, ?failure, "no answer"),
        }
        Ok(result)
    }

    /// Waits for the answer. While a stream is sent, what is limited is the time in which nothing of it is taken.
    async fn in_time(&self, request: Request<Payload>) -> Result<Result<Response, Failure>> {
        let limit = self.timeouts.response;
        let pace = request.body().pace();
        let taken = || pace.as_ref().map_or(0, |pace| pace.taken());
        let mut sent = pin!(self.transport.send(request));
        loop {
            let before = taken();
            match tokio::time::timeout(limit, &mut sent).await {
                Ok(result) => return result,
                Err(_) if taken() > before || pace.as_ref().is_some_and(|pace| pace.is_starved()) => {}
                Err(_) => return Ok(Err(Failure::timeout(limit))),
            }
        }
    }

    fn peer<'a>(&self, name: &'a str, uri: &'a Uri) -> Peer<'a> {
        let authority = uri.authority().map_or(name, |authority| authority.as_str());
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
