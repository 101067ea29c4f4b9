//! Content that its descriptor brings along: OCI image-spec, `descriptor.md`, "data".
//!
//! What is inlined needs no request. It is compared with digest and size first; when it is something else, that is said,
//! and the content is fetched as if it were not there.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use windlass_core::remote::{Body, ByteRange, Fetcher, Lane, Trouble};
use windlass_core::{Attempt, Descriptor, Digest, Error, Result};

use crate::fetch::verify;

/// Fetches what is not inlined.
pub(crate) struct Inlined(pub(crate) Arc<dyn Fetcher>);

#[async_trait]
impl Fetcher for Inlined {
    async fn fetch(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        match bytes(descriptor) {
            None => self.0.fetch(descriptor, range).await,
            Some(Ok(bytes)) => Ok(body(&bytes, range)),
            Some(Err(error)) => {
                tracing::warn!(digest = %descriptor.digest, %error, "what is inlined is not used");
                self.0.fetch(descriptor, range).await
            }
        }
    }

    fn lane(&self) -> Option<Lane> {
        self.0.lane()
    }

    fn origin(&self, digest: &Digest) -> Option<Attempt> {
        self.0.origin(digest)
    }

    fn pass_over(&self, digest: &Digest, trouble: Trouble, error: Error) -> Result<()> {
        self.0.pass_over(digest, trouble, error)
    }

    fn start_over(&self, digest: &Digest) {
        self.0.start_over(digest);
    }

    fn distrust_parts(&self) {
        self.0.distrust_parts();
    }
}

/// Returns the bytes that a descriptor brings along, if it does; nothing of an empty blob is inlined as nothing.
fn bytes(descriptor: &Descriptor) -> Option<Result<Bytes>> {
    let data = descriptor.data.as_deref()?;
    let decoded = STANDARD
        .decode(data)
        .map_err(|error| Error::data_loss(format!("the data of {} is not base64: {error}", descriptor.digest)));
    Some(decoded.and_then(|bytes| verify(descriptor, &bytes).map(|()| bytes.into())))
}

fn body(bytes: &Bytes, range: ByteRange) -> Body {
    let size = bytes.len() as u64;
    let place = |at: u64| usize::try_from(at.min(size)).unwrap_or(bytes.len());
    let (start, end) = (place(range.start), place(range.end.unwrap_or(size)));
    let part = bytes.slice(start.min(end)..end);
    Body { offset: start as u64, size: Some(size), stream: futures::stream::iter([Ok(part)]).boxed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inlined(bytes: &[u8], data: &str) -> Descriptor {
        Descriptor { data: Some(data.to_owned()), ..Descriptor::of("text/plain", bytes) }
    }

    #[test]
    fn what_is_inlined_is_compared_with_digest_and_size() {
        assert_eq!(bytes(&inlined(b"hello", "aGVsbG8=")).unwrap().unwrap(), "hello");
        assert_eq!(bytes(&inlined(b"", "")).unwrap().unwrap(), "");
        for (of, data) in [(&b"hello"[..], "aGVsbG9v"), (b"hello", "aGVsbGE="), (b"hello", "!"), (b"hello", "")] {
            assert!(bytes(&inlined(of, data)).unwrap().is_err(), "{data}");
        }
        assert!(bytes(&Descriptor::of("text/plain", b"hello")).is_none());
    }

    #[tokio::test]
    async fn a_part_of_it_is_a_part() {
        let part = |start, end| body(&Bytes::from_static(b"hello"), ByteRange { start, end });
        for (start, end, expected) in
            [(0, None, "hello"), (2, None, "llo"), (1, Some(3), "el"), (5, None, ""), (9, None, "")]
        {
            let mut body = part(start, end);
            assert_eq!(body.stream.next().await.unwrap().unwrap(), expected);
            assert_eq!(body.offset, start.min(5));
        }
    }
}
