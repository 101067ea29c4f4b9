//! Bodies on their way: watched for stalls, trickling and early ends, cut where they must be, never copied.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream;
use futures::task::AtomicWaker;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tokio::time::Instant;
use windlass_core::{Attempt, ByteStream, Error, Result};

use crate::error::attempt_of;
use crate::failure::{Failure, Peer};
use crate::options::Floor;
use crate::traffic::Transfer;
use crate::transport::{BoxError, Response, ResponseBody};

/// A body that is being received.
pub(crate) struct Incoming {
    body: ResponseBody,
    host: String,
    /// What is received, for messages.
    about: String,
    /// What was tried to get it.
    attempt: Option<Attempt>,
    idle: Duration,
    watch: Option<Watch>,
    transfer: Option<Transfer>,
    received: u64,
    /// How many bytes the sender has announced.
    announced: Option<u64>,
    /// How many bytes are wanted.
    wanted: Option<u64>,
    /// How many bytes are accepted.
    limit: Option<u64>,
}

impl Incoming {
    /// Takes the body out of an answer; `host` and `about` are for messages.
    ///
    /// # Errors
    /// `DataLoss` when the body is encoded: its bytes are not those that were asked for.
    pub(crate) fn new(response: Response, host: &str, about: &str, idle: Duration) -> Result<Self> {
        let attempt = attempt_of(&response).cloned();
        let (head, body) = response.into_parts();
        refuse_encoding(&head.headers, host, about).map_err(|error| attempted(error, attempt.as_ref(), "encoded"))?;
        let announced = content_length(&head.headers);
        let (host, about) = (host.to_owned(), about.to_owned());
        Ok(Self {
            body,
            host,
            about,
            attempt,
            idle,
            watch: None,
            transfer: None,
            received: 0,
            announced,
            wanted: None,
            limit: None,
        })
    }

    /// Gives the body up when it trickles.
    pub(crate) fn no_slower_than(mut self, floor: Floor) -> Self {
        self.watch = Some(Watch { floor, waited: Duration::ZERO, since: 0 });
        self
    }

    /// Counts the body among what comes from its host.
    pub(crate) fn counted(mut self, transfer: Transfer) -> Self {
        self.transfer = Some(transfer);
        self
    }

    /// Ends after so many bytes, even if there are more.
    pub(crate) fn cut(mut self, wanted: Option<u64>) -> Self {
        self.wanted = wanted;
        self
    }

    /// Fails when there are more bytes than so many.
    pub(crate) fn limit(mut self, limit: Option<u64>) -> Result<Self> {
        self.limit = limit;
        self.check_limit(self.announced.unwrap_or(0))?;
        Ok(self)
    }

    /// Returns the bytes as they come.
    pub(crate) fn into_stream(self) -> ByteStream {
        stream::try_unfold(self, |mut body| async move { Ok(body.next().await?.map(|bytes| (bytes, body))) }).boxed()
    }

    /// Returns the next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.wanted.is_none_or(|wanted| self.received < wanted) {
            let frame = match self.frame().await? {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(self.failed(Failure::of(&*error))),
                None => return self.ended(),
            };
            // Trailers are of no use.
            let Ok(mut data) = frame.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            if let Some(wanted) = self.wanted {
                data.truncate(usize::try_from(wanted - self.received).unwrap_or(usize::MAX));
            }
            self.received += data.len() as u64;
            if let Some(transfer) = &self.transfer {
                transfer.add(data.len());
            }
            self.check_limit(self.received)?;
            return Ok(Some(data));
        }
        self.complete();
        Ok(None)
    }

    /// Waits for the next frame, unless it takes too long or too little has come lately.
    async fn frame(&mut self) -> Result<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let left = self.watch.as_ref().map_or(self.idle, |watch| watch.floor.over.saturating_sub(watch.waited));
            let limit = left.min(self.idle);
            let (frame, waited) = wait(tokio::time::timeout(limit, self.body.frame())).await;
            if let Some(watch) = &mut self.watch {
                watch.waited += waited;
                if watch.waited >= watch.floor.over {
                    let came = self.received - watch.since;
                    let wanted = watch.floor.rate.saturating_mul(watch.floor.over.as_secs().max(1));
                    let over = watch.floor.over;
                    (watch.waited, watch.since) = (Duration::ZERO, self.received);
                    if came < wanted {
                        return Err(self.trickled(came, over));
                    }
                }
            }
            match frame {
                Ok(frame) => return Ok(frame),
                Err(_) if limit < self.idle => {}
                Err(_) => return Err(self.failed(Failure::timeout(self.idle))),
            }
        }
    }

    fn ended(&self) -> Result<Option<Bytes>> {
        match self.announced {
            Some(announced) if self.received < announced => {
                self.broke();
                let error = Error::unavailable(format!(
                    "{} ended the transfer of {} after {} of {announced} bytes",
                    self.host, self.about, self.received
                ));
                Err(self.blamed(error.coded("truncated").hint("run the command again: it continues")))
            }
            _ => {
                self.complete();
                Ok(None)
            }
        }
    }

    fn complete(&self) {
        if let Some(transfer) = &self.transfer {
            transfer.completed();
        }
    }

    fn broke(&self) {
        if let Some(transfer) = &self.transfer {
            transfer.broke();
        }
    }

    fn trickled(&self, came: u64, over: Duration) -> Error {
        self.broke();
        let Self { host, about, .. } = self;
        let error = Error::deadline_exceeded(format!(
            "{host} sent no more than {came} bytes of {about} in {} s",
            over.as_secs_f64()
        ));
        self.blamed(
            error
                .coded("too-slow")
                .hint("run the command again: it continues; look at the network in between when that does not help"),
        )
    }

    /// Adds what was tried to get the body.
    fn blamed(&self, error: Error) -> Error {
        attempted(error, self.attempt.as_ref(), &format!("ended after {} bytes", self.received))
    }

    fn check_limit(&self, size: u64) -> Result<()> {
        match self.limit {
            Some(limit) if size > limit => {
                let error = Error::resource_exhausted(format!(
                    "{} from {} is larger than the {limit} bytes that are accepted",
                    self.about, self.host
                ));
                let error = error.coded("too-large").hint("it is damaged, or not meant for a container engine");
                Err(attempted(error, self.attempt.as_ref(), "too large"))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, failure: Failure) -> Error {
        self.broke();
        // Whatever the cause, the transfer had begun: it is worth continuing.
        let transient = if failure.is_transient() { failure } else { failure.interrupted() };
        let error = transient.into_error(Peer { name: &self.host, authority: &self.host, answered: true });
        self.blamed(error.context(format!("receive {} after {} bytes", self.about, self.received)))
    }
}

/// Adds what was tried to get a body, and what is wrong with it.
fn attempted(error: Error, attempt: Option<&Attempt>, wrong: &str) -> Error {
    let attempt =
        attempt.map(|attempt| Attempt { outcome: format!("{}, {wrong}", attempt.outcome), ..attempt.clone() });
    attempt.into_iter().fold(error, Error::attempted)
}

/// What is watched of a body that might trickle.
#[derive(Debug)]
struct Watch {
    floor: Floor,
    /// How long was waited for the network, in the time over which the average is taken.
    waited: Duration,
    /// How much had come before.
    since: u64,
}

/// Waits for something, and says for how long: once it has news, it does not matter how late that is looked at.
async fn wait<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let mut future = pin!(future);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let (mut waited, mut since) = (Duration::ZERO, None);
    let done = poll_fn(|context| {
        let rung = bell.reset();
        if let Some(since) = since.take() {
            waited += rung.unwrap_or_else(Instant::now).saturating_duration_since(since);
        }
        bell.waiter.register(context.waker());
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        since = polled.is_pending().then(Instant::now);
        polled
    });
    (done.await, waited)
}

/// Notes when somebody was woken first.
#[derive(Default)]
struct Bell {
    rung: Mutex<Option<Instant>>,
    waiter: AtomicWaker,
}

impl Bell {
    fn rung(&self) -> MutexGuard<'_, Option<Instant>> {
        // Every change is one assignment.
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self) -> Option<Instant> {
        self.rung().take()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung().get_or_insert_with(Instant::now);
        self.waiter.wake();
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn read(response: Response, host: &str, about: &str, limit: u64, idle: Duration) -> Result<Bytes> {
    let mut body = Incoming::new(response, host, about, idle)?.limit(Some(limit))?;
    let mut all = BytesMut::new();
    while let Some(bytes) = body.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

/// Returns the announced size of a body.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Tells whether a body is encoded, so that its bytes are not those that were asked for.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    encoding(headers).is_some()
}

fn encoding(headers: &HeaderMap) -> Option<&str> {
    let encoding = headers.get(CONTENT_ENCODING).map(|encoding| encoding.to_str().unwrap_or("unknown"));
    encoding.filter(|encoding| !matches!(*encoding, "" | "identity"))
}

fn refuse_encoding(headers: &HeaderMap, host: &str, about: &str) -> Result<()> {
    match encoding(headers) {
        None => Ok(()),
        Some(encoding) => Err(Error::data_loss(format!("{host} sends {about} encoded as {encoding:?}"))
            .coded("encoded")
            .hint("it was asked not to; look for a proxy or a cache in between that compresses")),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;

    use super::*;

    /// A body to which is sent what it has, and which is given up below 1000 bytes in a second.
    fn watched() -> (mpsc::UnboundedSender<Bytes>, ByteStream) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let bytes: Bytes = receiver.recv().await?;
            Some((Ok(Frame::data(bytes)), receiver))
        });
        let response = Response::new(ResponseBody::new(StreamBody::new(frames)));
        let floor = Floor { rate: 1000, over: Duration::from_secs(1) };
        let body = Incoming::new(response, "host", "blob", Duration::from_mins(1)).unwrap();
        (sender, body.no_slower_than(floor).into_stream())
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_and_is_not_taken_is_not_waited_for() {
        let (sender, mut stream) = watched();
        for _ in 0..10 {
            // It is asked for, does not come yet, and then is not asked for again for long.
            assert!(stream.next().now_or_never().is_none());
            tokio::time::sleep(Duration::from_millis(10)).await;
            sender.send(Bytes::from_static(b"bytes")).unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(stream.next().await.unwrap().unwrap(), "bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_waited_for_however_often_it_is_asked_for() {
        let (sender, mut stream) = watched();
        sender.send(Bytes::from_static(b"bytes")).unwrap();
        stream.next().await.unwrap().unwrap();
        for _ in 0..5 {
            assert!(stream.next().now_or_never().is_none());
            tokio::time::sleep(Duration::from_millis(190)).await;
        }
        let sent = Instant::now();
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(error.is(windlass_core::Kind::DeadlineExceeded), "{error}");
        assert!(sent.elapsed() < Duration::from_millis(100));
    }
}
