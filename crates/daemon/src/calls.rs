//! What every call goes through: while the daemon stops, no new one begins, those that run are answered, and streams end
//! with a status that says why. Whether it stops is answered all the time.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};
use tower::Layer;

use crate::metrics::{Counted, Numbers};

/// The service that is not refused, and says itself that the daemon stops.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// How often it is looked whether calls still run.
const LOOK: Duration = Duration::from_millis(10);
/// The header and trailer that says how a call ended.
const STATUS: &str = "grpc-status";

/// What all calls have in common. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Calls {
    stopping: Arc<watch::Sender<bool>>,
    numbers: Arc<Numbers>,
    /// The services that are left out, with their packages, and why.
    left_out: Arc<BTreeMap<&'static str, String>>,
}

impl Calls {
    pub(crate) fn new(left_out: BTreeMap<&'static str, String>) -> Self {
        Self { stopping: Arc::new(watch::Sender::new(false)), numbers: Arc::default(), left_out: Arc::new(left_out) }
    }

    /// Returns what is counted.
    pub(crate) fn numbers(&self) -> &Arc<Numbers> {
        &self.numbers
    }

    /// Says why a call cannot begin, if it cannot.
    fn refusal(&self, path: &str) -> Option<Status> {
        if *self.stopping.borrow() && !path.starts_with(HEALTH) {
            return Some(stopping());
        }
        let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        self.left_out.get(service).map(|why| Status::unimplemented(format!("service {service} is not here: {why}")))
    }

    /// Lets no new call begin, and ends streams.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits until no call runs.
    pub(crate) async fn ended(&self) {
        while self.numbers.open() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns what says whether the daemon stops.
    pub(crate) fn stopping(&self) -> &Arc<watch::Sender<bool>> {
        &self.stopping
    }

    /// Waits until the daemon stops.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            // The other end is gone only when nobody serves any more.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the daemon is stopping")
}

impl<S> Layer<S> for Calls {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, calls: self.clone() }
    }
}

/// The services, watched.
#[derive(Clone)]
pub(crate) struct Watched<S> {
    inner: S,
    calls: Calls,
}

impl<S, B> Service<http::Request<B>> for Watched<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        let mut counted = self.calls.numbers.begin(path);
        if let Some(refusal) = self.calls.refusal(path) {
            counted.code = Some(refusal.code());
            return future::ready(Ok(refusal.into_http())).boxed();
        }
        // What is asked for health ends by itself.
        let stopped = if path.starts_with(HEALTH) { future::pending().boxed() } else { self.calls.stopped().boxed() };
        let answered = self.inner.call(request);
        async move {
            let answered = answered.await?;
            // A call that failed at once has only headers.
            counted.code = code(answered.headers());
            Ok(answered.map(|inner| Body::new(Answer { inner, stopped, state: State::Begun, counted })))
        }
        .boxed()
    }
}

/// Reads how a call ended.
fn code(headers: &http::HeaderMap) -> Option<Code> {
    headers.get(STATUS).map(|status| Code::from_bytes(status.as_bytes()))
}

/// The body of an answer. That of a call with one answer is a message and trailers, which follow each other at once.
struct Answer {
    inner: Body,
    stopped: BoxFuture<'static, ()>,
    state: State,
    counted: Counted,
}

/// How far an answer is.
#[derive(PartialEq)]
enum State {
    Begun,
    /// A message was sent.
    Sent,
    Ended,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.state == State::Ended {
            return Poll::Ready(None);
        }
        let next = Pin::new(&mut self.inner).poll_frame(context);
        let another = match &next {
            // The answer of a call that ran when the daemon was told to stop.
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                std::mem::replace(&mut self.state, State::Sent) == State::Sent
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.counted.code = frame.trailers_ref().and_then(code);
                return next;
            }
            Poll::Ready(_) => return next,
            Poll::Pending => true,
        };
        if !another {
            return next;
        }
        if self.stopped.poll_unpin(context).is_pending() {
            return next;
        }
        self.state = State::Ended;
        self.counted.code = Some(Code::Unavailable);
        let trailers = stopping().into_http::<()>().into_parts().0.headers;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
