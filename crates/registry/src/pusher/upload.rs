//! The requests of an upload session: OCI distribution-spec, "Pushing blobs".

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use tokio::sync::mpsc;
use windlass_core::{Digest, Error, MediaType, Result};

use super::Shared;
use crate::client::Answer;
use crate::payload::{Outgoing, Payload};

/// The least that a registry wants in a chunk that is not the last, in bytes: OCI distribution-spec, "Pushing a blob in
/// chunks".
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// The most that is believed of that, in bytes.
const MOST_MIN_LENGTH: u64 = 1 << 30;

/// An upload that has begun at a registry.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Where it goes on; another one after each request.
    pub(super) url: Uri,
    /// How many bytes are there.
    pub(super) offset: u64,
    /// Whether that is known.
    pub(super) certain: bool,
    /// Whether it went on after a cut.
    pub(super) continued: bool,
    /// The least that a chunk must have which is not the last.
    pub(super) minimum: u64,
}

impl Session {
    /// Reads the answer that begins an upload.
    pub(super) fn of(answer: &Answer) -> Result<Self> {
        let headers = answer.response.headers();
        let minimum = headers.get(CHUNK_MIN_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Ok(Self {
            url: answer.location()?,
            offset: 0,
            certain: true,
            continued: false,
            minimum: minimum.unwrap_or(0).min(MOST_MIN_LENGTH),
        })
    }

    /// Takes over what an answer says of where it goes on; one without a `Location` goes on where it was.
    pub(super) fn follow(&mut self, answer: &Answer) -> Result<()> {
        if answer.response.headers().contains_key(http::header::LOCATION) {
            self.url = answer.location()?;
        }
        Ok(())
    }

    /// Returns the URL that ends the upload.
    pub(super) fn closing(&self, digest: &Digest) -> Result<Uri> {
        let separator = if self.url.query().is_some() { '&' } else { '?' };
        let url = format!("{}{separator}digest={digest}", self.url);
        url.parse().map_err(|e| Error::failed_precondition(format!("an upload cannot be ended at {url:?}")).source(e))
    }
}

/// Returns how many bytes an answer says are there; `None` when it does not say. Some say `0-0` for none and for one.
pub(super) fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0" && last > 0).then(|| last.checked_add(1))?
}

/// A body that is given piece by piece.
pub(super) fn piecewise(length: u64, ahead: usize) -> (mpsc::Sender<Bytes>, Payload) {
    let (sender, receiver) = mpsc::channel(ahead);
    let pieces = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async move {
        let piece = receiver.recv().await?;
        Some((Ok(piece), receiver))
    });
    (sender, Payload::Stream(Outgoing::new(pieces.boxed(), length)))
}

/// What a request of an upload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    /// The whole blob, and ends the upload.
    Whole,
    /// A chunk that begins there and has so many bytes.
    Chunk { begin: u64, length: u64 },
}

impl Shared {
    /// Sends a body to where an upload goes on.
    pub(super) async fn send_body(
        &self,
        session: &Session,
        digest: &Digest,
        carries: Carries,
        body: Payload,
    ) -> Result<Answer> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MediaType::OCTET_STREAM));
        let (method, url) = match carries {
            Carries::Whole => (Method::PUT, session.closing(digest)?),
            Carries::Chunk { begin, length } => {
                let range = format!("{begin}-{}", (begin + length).saturating_sub(1));
                headers.extend(HeaderValue::from_str(&range).ok().map(|range| (CONTENT_RANGE, range)));
                (Method::PATCH, session.url.clone())
            }
        };
        self.client.send_to(url, self.ask(method, "").headers(headers).body(body)).await
    }

    /// Ends an upload whose bytes are all there.
    pub(super) async fn close(&self, session: &Session, digest: &Digest) -> Result<Answer> {
        self.client.send_to(session.closing(digest)?, self.ask(Method::PUT, "")).await
    }

    /// Has the registry forget an upload. One that does not keeps it until it clears up.
    pub(super) async fn cancel(&self, session: Session, digest: &Digest) {
        let ask = self.ask(Method::DELETE, "");
        match self.client.send_to(session.url, ask).await {
            Ok(answer) => tracing::debug!(status = %answer.response.status(), %digest, "an upload was given up"),
            Err(error) => tracing::debug!(%error, %digest, "an upload that was given up stays at the registry"),
        }
    }

    /// Asks where an upload stands; `None` when it is lost, or cannot be continued for another reason.
    pub(super) async fn stand(&self, session: &Session) -> Result<Option<Session>> {
        let answer = self.client.send_to(session.url.clone(), self.ask(Method::GET, "")).await?;
        let status = answer.response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(self.refused("the state of an upload", answer).await);
        }
        if !status.is_success() {
            return Ok(None);
        }
        let Some(offset) = received(answer.response.headers()) else { return Ok(None) };
        let mut session = Session { offset, certain: true, continued: true, ..session.clone() };
        session.follow(&answer)?;
        Ok(Some(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_is_there_is_read_from_the_range() {
        let of = |text: &str| received(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())]));
        assert_eq!(of("0-9"), Some(10));
        assert_eq!(of("bytes=0-9"), Some(10));
        for nothing in ["0-0", "1-9", "0-", "-", "9", "0-x", "0-18446744073709551615", ""] {
            assert_eq!(of(nothing), None, "{nothing:?}");
        }
        assert_eq!(received(&HeaderMap::new()), None);
    }

    #[test]
    fn an_upload_is_ended_where_it_is_with_the_digest() {
        let digest = Digest::sha256(b"x");
        let closing = |url: &str| {
            let url = url.parse().unwrap();
            let session = Session { url, offset: 0, certain: true, continued: false, minimum: 0 };
            session.closing(&digest).unwrap().to_string()
        };
        assert_eq!(closing("http://a.test/u/1"), format!("http://a.test/u/1?digest={digest}"));
        assert_eq!(closing("http://a.test/u/1?_state=s"), format!("http://a.test/u/1?_state=s&digest={digest}"));
    }
}
