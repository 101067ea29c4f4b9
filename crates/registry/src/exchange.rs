//! One request to one host, tried again when that may help. Knows nothing of registries.
//!
//! A request stands in line at its host ([`line`](crate::line)) each time it is sent. A refusal (429) sends it back to the
//! end of the line, for as long as patience lasts; a server that has a problem, or a connection that breaks, costs it one of
//! a few tries. What was tried travels with the answer, for whoever has to explain it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode, Uri};
use tokio::time::Instant;
use windlass_core::{Attempt, Error, Result};

use crate::balance::Balance;
use crate::connection::Connection;
use crate::error::status_text;
use crate::failure::{Failure, Peer};
use crate::line::{Line, Lines, Turn};
use crate::options::Timeouts;
use crate::payload::Payload;
use crate::retry::{Retry, retry_after};
use crate::scopes::Scopes;
use crate::traffic::Traffic;
use crate::transport::{Response, Transport};

/// From what wait on it is worth telling somebody.
const LONG: Duration = Duration::from_secs(5);

/// What chose the host of a request: an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct Rule(pub(crate) Cow<'static, str>);

/// That somebody else is asked when the host refuses, and it is not waited for: an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OthersFollow;

/// Sends requests.
pub(crate) struct Exchange {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Timeouts,
    pub(crate) user_agent: HeaderValue,
    /// The hosts that have answered.
    pub(crate) answered: Mutex<HashSet<String>>,
    pub(crate) lines: Lines,
}

/// A request on its way, however often it is sent.
struct Errand<'a> {
    name: &'a str,
    head: &'a Parts,
    line: Arc<Line>,
    traffic: Option<&'a Traffic>,
    /// How often it was sent.
    sent: u32,
    /// How often the host refused it.
    refused: u32,
    /// Until when it stands in line.
    until: Instant,
}

impl Exchange {
    /// Makes an exchange over a transport.
    pub(crate) fn new(
        transport: Box<dyn Transport>,
        retry: Retry,
        timeouts: Timeouts,
        user_agent: HeaderValue,
    ) -> Self {
        let lines = Lines::new(retry.first_delay.saturating_mul(2).max(Duration::from_millis(1)));
        Self { transport, retry, timeouts, user_agent, answered: Mutex::default(), lines }
    }

    /// Sends a request, whose URL is absolute, until there is an answer that stands; `name` is what the user calls the host.
    /// The traffic, when given, is told when the host has too much to do. A stream is sent once: whatever comes of it stands.
    /// The answer has an [`Attempt`] as an extension.
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
        let line = self.lines.before(&place(&head).unwrap_or_else(|| name.to_owned()));
        let patience = match head.extensions.get::<OthersFollow>() {
            Some(OthersFollow) => Duration::ZERO,
            None => self.retry.patience,
        };
        let until = Instant::now() + patience;
        let mut errand = Errand { name, head: &head, line, traffic, sent: 0, refused: 0, until };
        loop {
            let Ok(turn) = tokio::time::timeout_at(errand.until, errand.line.turn()).await else {
                return Err(self.out_of_patience(&errand));
            };
            errand.sent += 1;
            let again = payload.copy();
            let result = self.once(Request::from_parts(head.clone(), payload)).await?;
            let wait = match &result {
                Ok(response) => self.after_answer(&mut errand, turn, response),
                Err(failure) if failure.is_transient() => self.retry.after_failure(errand.tried()),
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
                    return Ok(errand.told(response));
                }
                (None, Err(failure)) => {
                    let attempt = errand.attempt(failure.in_short());
                    return Err(failure.into_error(self.peer(name, &head.uri)).attempted(attempt));
                }
            }
        }
    }

    /// Returns what a host said last about a quota of requests.
    pub(crate) fn balance(&self, authority: &str) -> Option<Balance> {
        self.lines.before(authority).balance()
    }

    /// Tells the line of an answer; returns how long to wait before sending the request again, none when the answer stands.
    fn after_answer(&self, errand: &mut Errand<'_>, turn: Turn, response: &Response) -> Option<Duration> {
        let (status, headers) = (response.status(), response.headers());
        errand.line.hear(headers);
        if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            errand.line.answered(turn);
            return self.retry.after_status(errand.tried(), status, headers);
        }
        if let Some(traffic) = errand.traffic {
            traffic.refused();
        }
        let asked = retry_after(headers);
        // Who has used up a quota of hours need not slow down: nothing would come of it.
        let quota = errand.line.balance().and_then(|balance| balance.exhausted_for()).unwrap_or_default();
        let hopeless = asked.unwrap_or_default().max(quota) > self.retry.longest_wait;
        if status == StatusCode::TOO_MANY_REQUESTS && hopeless {
            return None;
        }
        let wait = errand.line.refused(turn, asked.filter(|asked| *asked <= self.retry.longest_wait));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // The line waits for what the host asks; this is what everybody who has a problem costs.
            let again = self.retry.after_status(errand.tried(), status, headers);
            return again.filter(|_| Instant::now() + wait < errand.until).map(|_| Duration::ZERO);
        }
        errand.refused += 1;
        if wait >= LONG {
            tracing::warn!(host = errand.name, ?wait, "the host limits the rate of requests: waiting");
        }
        (Instant::now() + wait < errand.until).then_some(Duration::ZERO)
    }

    fn out_of_patience(&self, errand: &Errand<'_>) -> Error {
        let (name, patience) = (errand.name, self.retry.patience);
        let what = match errand.head.extensions.get::<OthersFollow>() {
            Some(OthersFollow) => "and is not waited for, because others are asked".to_owned(),
            None => format!("and the turn of this one did not come in {} s", patience.as_secs_f64()),
        };
        Error::resource_exhausted(format!("{name} limits the rate of requests, {what}"))
            .coded("rate-limited")
            .hint("wait, or use credentials that have a higher limit")
            .attempted(errand.attempt("waited in line"))
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
        Peer { name, authority: authority(uri).unwrap_or(name), answered: self.has_answered(name) }
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

impl Errand<'_> {
    /// Returns how often it was sent without being refused.
    fn tried(&self) -> u32 {
        self.sent.saturating_sub(self.refused)
    }

    /// Has an answer know what was tried.
    fn told(&self, mut response: Response) -> Response {
        let status = response.status();
        let attempt = Attempt { status: Some(status.as_u16()), ..self.attempt(status_text(status)) };
        response.extensions_mut().insert(attempt);
        response
    }

    /// Says what was tried; the query is left out, which may hold the signature of a URL.
    fn attempt(&self, outcome: impl Into<String>) -> Attempt {
        let operation = format!("{} {}", self.head.method, self.head.uri.path());
        let rule = self.head.extensions.get::<Rule>().map(|rule| rule.0.clone().into_owned());
        let scopes = self.head.extensions.get::<Scopes>();
        Attempt {
            rule,
            scope_asked: scopes.map(|scopes| scopes.asked.clone()),
            scope_granted: scopes.and_then(|scopes| scopes.granted.clone()),
            retries: self.sent.saturating_sub(1),
            ..Attempt::new(self.name, operation, outcome)
        }
    }
}

/// Returns where a request goes: whoever goes to the same place stands in the same line.
fn place(head: &Parts) -> Option<String> {
    // What listens on sockets is called by one name, the local host's.
    match head.extensions.get::<Arc<Connection>>().and_then(|connection| connection.socket.as_ref()) {
        Some(socket) => Some(format!("unix://{}", socket.display())),
        None => authority(&head.uri).map(str::to_owned),
    }
}

fn authority(uri: &Uri) -> Option<&str> {
    uri.authority().map(http::uri::Authority::as_str)
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_a_line_of_its_own() {
        let place_of = |url: &str, socket: Option<&str>| {
            let mut request = Request::new(());
            *request.uri_mut() = url.parse().unwrap();
            let connection = Connection { socket: socket.map(Into::into), ..Connection::default() };
            request.extensions_mut().insert(Arc::new(connection));
            place(&request.into_parts().0)
        };
        let url = "http://localhost/v2/";
        assert_eq!(place_of(url, Some("/run/a.sock")).as_deref(), Some("unix:///run/a.sock"));
        assert_eq!(place_of(url, Some("/run/b.sock")).as_deref(), Some("unix:///run/b.sock"));
        assert_eq!(place_of(url, None).as_deref(), Some("localhost"));
    }
}
