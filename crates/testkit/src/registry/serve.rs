//! The fake's side of the wire: OCI distribution-spec, "Pulling".

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::abortable::Abortable;
use super::body::{self, Body, End, Pace};
use super::fake::{Recorded, Shared};
use super::fault::{self, Fault};
use super::referrers;

/// Accepts connections until it is dropped, and then drops them all.
pub(super) async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connection = Connection { shared: shared.clone(), reset: Arc::default(), number };
        number += 1;
        let stream = Abortable { stream, reset: connection.reset.clone() };
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            match acceptor {
                None => connection.serve(stream).await,
                // A client that does not trust us, or does not speak TLS, goes away: its test knows.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection.serve(stream).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

#[derive(Clone)]
struct Connection {
    shared: Arc<Shared>,
    reset: Arc<AtomicBool>,
    number: u64,
}

/// An answer in the making.
pub(super) struct Reply {
    status: u16,
    headers: HeaderMap,
    bytes: Bytes,
    pace: Pace,
    announced: bool,
}

impl Reply {
    pub(super) fn new(status: u16, bytes: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), bytes: bytes.into(), pace: Pace::default(), announced: true }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
        Self::new(status, body).with("content-type", "application/json")
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    fn set(&mut self, name: &str, value: &str) {
        let name: HeaderName = name.parse().expect("a header's name");
        self.headers.insert(name, HeaderValue::from_str(value).expect("a header's value"));
    }
}

impl Connection {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let service = service_fn(|request| self.clone().answer(request));
        // An error is what a fault, or a client that goes away, looks like from here.
        let _expected = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let recorded = Recorded {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            body: body.collect().await.map_err(io::Error::other)?.to_bytes(),
            connection: self.number,
        };
        let (faults, mut reply, mut whole) = {
            let mut state = self.shared.state();
            state.recorded.push(recorded.clone());
            let whole = recorded.header("range").map(|_| self.right(&mut state, &recorded, true));
            (
                fault::take(&mut state.scripted, &recorded.path, recorded.header("range").is_some()),
                self.right(&mut state, &recorded, false),
                whole,
            )
        };
        for fault in faults {
            match fault {
                Fault::Silence => std::future::pending().await,
                Fault::Hangup => {
                    self.reset.store(true, Ordering::SeqCst);
                    return Err(io::Error::other("hung up on purpose"));
                }
                Fault::IgnoreRange => reply = whole.take().unwrap_or(reply),
                other => apply(&mut reply, &recorded, other, whole.as_ref()),
            }
        }
        Ok(self.response(reply, &recorded))
    }

    fn response(&self, mut reply: Reply, recorded: &Recorded) -> Response<Body> {
        if reply.announced && !reply.headers.contains_key("content-length") {
            let length = reply.bytes.len().to_string();
            reply.set("content-length", &length);
        }
        let bytes = if recorded.method == "HEAD" { Bytes::new() } else { reply.bytes };
        let mut response = Response::new(body::of(&bytes, reply.pace, self.reset.clone(), self.shared.sent.clone()));
        *response.status_mut() = StatusCode::from_u16(reply.status).expect("a status");
        *response.headers_mut() = reply.headers;
        response
    }

    /// Returns the answer of a registry that is in order; `whole` for one that knows no ranges.
    fn right(&self, state: &mut super::fake::State, request: &Recorded, whole: bool) -> Reply {
        if request.path == "/token" {
            let (status, body) = state.access.token(request);
            return Reply::new(status, body).with("content-type", "application/json");
        }
        let Some(path) = request.path.strip_prefix("/v2/") else {
            return Reply::new(404, "<html>not here</html>").with("content-type", "text/html");
        };
        let split = ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
            .iter()
            .find_map(|shelf| path.rsplit_once(shelf).map(|(repository, object)| (*shelf, repository, object)));
        let Some((shelf, name, object)) = split else { return Reply::new(200, "{}") };
        if let Some(challenge) = state.access.challenge(request, name, &self.shared.url()) {
            let refused = Reply::error(401, "UNAUTHORIZED", "authentication required");
            return refused.with("www-authenticate", &challenge);
        }
        let Some(repository) = state.repositories.get(name) else {
            return match shelf {
                // As distribution does.
                "/manifests/" => Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
                _ => Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry"),
            };
        };
        match shelf {
            "/referrers/" => match state.referrers {
                Some(page) => referrers::list(repository, request, object, page),
                None => Reply::new(404, "404 page not found"),
            },
            "/tags/" => {
                let tags: Vec<&String> = repository.tags.keys().collect();
                Reply::new(200, json!({ "name": name, "tags": tags }).to_string())
            }
            "/manifests/" => {
                let digest = repository.tags.get(object).map_or_else(|| object.to_owned(), ToString::to_string);
                match repository.manifests.get(&digest) {
                    Some((media_type, bytes)) => Reply::new(200, bytes.clone())
                        .with("content-type", media_type)
                        .with("docker-content-digest", &digest),
                    None => Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
                }
            }
            _ => match repository.blobs.get(object) {
                Some(bytes) if whole => blob(bytes.clone(), None, object),
                Some(bytes) => blob(bytes.clone(), range_of(request), object),
                None => Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
            },
        }
    }
}

fn blob(bytes: Bytes, range: Option<(usize, Option<usize>)>, digest: &str) -> Reply {
    let size = bytes.len();
    let reply = match range {
        None => Reply::new(200, bytes),
        Some((start, _)) if start >= size => {
            return Reply::error(416, "RANGE_INVALID", "range invalid")
                .with("content-range", &format!("bytes */{size}"));
        }
        Some((start, last)) => {
            let last = last.unwrap_or(size - 1).min(size - 1);
            Reply::new(206, bytes.slice(start..=last)).with("content-range", &format!("bytes {start}-{last}/{size}"))
        }
    };
    reply.with("content-type", "application/octet-stream").with("docker-content-digest", digest)
}

/// `bytes=FIRST-` or `bytes=FIRST-LAST`.
fn range_of(request: &Recorded) -> Option<(usize, Option<usize>)> {
    let (first, last) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}

fn apply(reply: &mut Reply, request: &Recorded, fault: Fault, whole: Option<&Reply>) {
    match fault {
        Fault::Answer { status, headers, body } => {
            *reply = Reply::new(status, body);
            for (name, value) in &headers {
                reply.set(name, value);
            }
        }
        Fault::NoHead if request.method == "HEAD" => *reply = Reply::error(405, "UNSUPPORTED", "no HEAD"),
        Fault::Header(name, value) => reply.set(&name, &value),
        Fault::WithoutHeader(name) => {
            reply.headers.remove(&name);
            reply.announced &= !name.eq_ignore_ascii_case("content-length");
        }
        Fault::ShiftRange(by) if reply.status == 206 => {
            let all = whole.expect("a part was asked for").bytes.clone();
            let (start, _) = range_of(request).expect("a part was asked for");
            let shifted = (start + usize::try_from(by).expect("a small shift")).min(all.len() - 1);
            reply.set("content-range", &format!("bytes {shifted}-{}/{}", all.len() - 1, all.len()));
            reply.bytes = all.slice(shifted..);
        }
        Fault::Bytes(bytes) => reply.bytes = bytes,
        Fault::CorruptByte(at) => {
            let mut bytes = reply.bytes.to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = !*byte;
            }
            reply.bytes = bytes.into();
        }
        Fault::Unannounced => reply.announced = false,
        Fault::TruncateAfter(bytes) => reply.pace.end = End::Close(bytes),
        Fault::ResetAfter(bytes) => reply.pace.end = End::Reset(bytes),
        Fault::StallAfter(bytes) => reply.pace.end = End::Stall(bytes),
        Fault::Trickle { piece, pause } => reply.pace.pieces = Some((piece, pause)),
        Fault::NoHead | Fault::ShiftRange(_) | Fault::IgnoreRange | Fault::Silence | Fault::Hangup => {}
    }
}
