//! The fake's side of the wire: OCI distribution-spec, "Pulling"; what is pushed is taken in `uploads`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
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
use super::fault::{self, Asked, Fault};
use super::referrers;
use super::uploads::mounts_from;

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
    pub(super) bytes: Bytes,
    pace: Pace,
    announced: bool,
}

impl Reply {
    pub(super) fn new(status: u16, bytes: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), bytes: bytes.into(), pace: Pace::default(), announced: true }
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
        Self::new(status, body).with("content-type", "application/json")
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
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
        let ranged = head.headers.contains_key("range");
        let asked = Asked { method: head.method.as_str(), path: head.uri.path(), ranged };
        let faults = fault::take(&mut self.shared.state().scripted, &asked);
        let cut =
            faults.iter().find_map(|fault| if let Fault::CutUploadAfter(bytes) = fault { Some(*bytes) } else { None });
        let unread = faults.iter().any(|fault| matches!(fault, Fault::Unread(_)));
        let body = if unread { Bytes::new() } else { read(body, cut).await? };
        let recorded = Recorded {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            body,
            connection: self.number,
        };
        let (mut reply, mut whole) = {
            let mut state = self.shared.state();
            state.recorded.push(recorded.clone());
            let whole = recorded.header("range").map(|_| self.right(&mut state, &recorded, true));
            // Whoever is refused has changed nothing.
            let refused = |fault: &Fault| matches!(fault, Fault::Answer { .. } | Fault::Unread(_) | Fault::Hangup);
            if recorded.writes() && faults.iter().any(refused) {
                (Reply::new(500, ""), whole)
            } else if cut.is_some() {
                // Whatever it was to end, it is a part.
                let part = Recorded { method: "PATCH".to_owned(), ..recorded.clone() };
                (self.right(&mut state, &part, false), whole)
            } else {
                (self.right(&mut state, &recorded, false), whole)
            }
        };
        for fault in faults {
            match fault {
                Fault::Silence => std::future::pending().await,
                Fault::Hangup => {
                    self.reset.store(true, Ordering::SeqCst);
                    return Err(io::Error::other("hung up on purpose"));
                }
                // What came of it was kept.
                Fault::CutUploadAfter(_) => {
                    self.reset.store(true, Ordering::SeqCst);
                    return Err(io::Error::other("cut off on purpose"));
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
        if let Some(challenge) = state.access.challenge(request, name, mounts_from(request), &self.shared.url()) {
            let refused = Reply::error(401, "UNAUTHORIZED", "authentication required");
            return refused.with("www-authenticate", &challenge);
        }
        match (shelf, request.method.as_str()) {
            ("/blobs/", _) if object.starts_with("uploads/") => {
                let (name, id) = (name.to_owned(), object.trim_start_matches("uploads/").to_owned());
                return state.upload(request, &name, &id);
            }
            ("/manifests/", "PUT") => return state.put_manifest(request, name, object),
            ("/manifests/", "DELETE") => return state.delete_manifest(name, object),
            _ => {}
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
            "/tags/" => state.tags(request, name),
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

/// Reads a body, or so much of it.
async fn read(mut body: Incoming, most: Option<usize>) -> io::Result<Bytes> {
    let mut all = BytesMut::new();
    while most.is_none_or(|most| all.len() < most) {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            all.extend_from_slice(&data);
        }
    }
    all.truncate(most.unwrap_or(usize::MAX));
    Ok(all.freeze())
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
        Fault::Unread(status) => *reply = Reply::new(status, "<html>no</html>").with("content-type", "text/html"),
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
        Fault::Endless => {
            reply.announced = false;
            reply.pace.end = End::Never;
        }
        Fault::Trickle { piece, pause } => reply.pace.pieces = Some((piece, pause)),
        Fault::NoHead
        | Fault::ShiftRange(_)
        | Fault::IgnoreRange
        | Fault::Silence
        | Fault::Hangup
        | Fault::CutUploadAfter(_) => {}
    }
}
