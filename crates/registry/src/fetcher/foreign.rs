//! Content that no registry has, from where its descriptor says it may be had: OCI image-spec, `descriptor.md`, "urls".
//!
//! Layers that may not be redistributed are like that. Nobody is told who we are, and plain HTTP is spoken only to whom it
//! may be spoken to anyway. The bytes come unverified like all others: whoever uses them compares the digest.

use futures::StreamExt as _;
use http::header::RANGE;
use http::uri::Scheme;
use http::{HeaderMap, Method, Uri};
use windlass_core::remote::{Body, ByteRange};
use windlass_core::{Descriptor, Error, Result, ResultExt as _};

use super::{Delivery, RegistryFetcher, range_header};
use crate::ask::Ask;
use crate::body::Incoming;
use crate::error::printable;
use crate::hosts::{Capability, is_loopback};
use crate::options::{PlainHttp, Timeouts};

/// How many URLs of one descriptor are tried.
const MAX_URLS: usize = 8;

impl RegistryFetcher {
    /// Fetches content from the URLs of its descriptor, of which there are some, in their order. `missing` is what the
    /// registry says.
    ///
    /// # Errors
    /// What the last one says.
    pub(super) async fn fetch_foreign(
        &self,
        descriptor: &Descriptor,
        range: ByteRange,
        missing: Error,
    ) -> Result<Body> {
        let mut failed = missing;
        for url in descriptor.urls.iter().take(MAX_URLS) {
            let what = || format!("{} is not in the registry, fetch it from {}", descriptor.digest, printable(url));
            match self.fetch_url(url, descriptor, range).await.context(what) {
                Ok(body) => {
                    tracing::debug!(digest = %descriptor.digest, url = printable(url), "fetched from elsewhere");
                    return Ok(body);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn fetch_url(&self, url: &str, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let url = self.foreign_url(url)?;
        let host = url.authority().map_or_else(String::new, ToString::to_string);
        let Some(repository) = self.repositories.that_may(Capability::Pull).first().copied() else {
            return Err(Error::internal(format!("there is no host to ask for {}", descriptor.digest)));
        };
        let mut headers = HeaderMap::new();
        if let Some(value) = range_header(range) {
            headers.insert(RANGE, value);
        }
        let ask = Ask::new(Method::GET, repository, "").headers(headers);
        let answer = self.client.send_to(url, ask).await?;
        let (offset, size, cut) = match Delivery::of(&answer.response, range, descriptor) {
            Delivery::Whole { size } => (0, size, range.end),
            Delivery::Part { start, size } => (start, size, range.end.map(|end| end - start)),
            Delivery::Nothing { at } => {
                return Ok(Body { offset: at, size: Some(at), stream: futures::stream::empty().boxed() });
            }
            Delivery::Misplaced | Delivery::Refused => {
                let status = answer.response.status();
                let error = format!("{host} answers {}", crate::error::status_text(status));
                return Err(match status.as_u16() {
                    404 | 410 => Error::not_found(error),
                    429 => Error::resource_exhausted(error),
                    500..=599 => Error::unavailable(error),
                    _ => Error::failed_precondition(error),
                }
                .hint("who published the image says that the layer is to be had there; ask them"));
            }
        };
        let Timeouts { idle, floor, .. } = self.client.exchange.timeouts;
        let body = Incoming::new(answer.response, &answer.host, &format!("blob {}", descriptor.digest), idle)?.cut(cut);
        Ok(Body { offset, size, stream: body.no_slower_than(floor).into_stream() })
    }

    /// Returns a URL that may be asked.
    fn foreign_url(&self, url: &str) -> Result<Uri> {
        let wrong = |what: &str| Error::failed_precondition(format!("{:?} {what}", printable(url)));
        let refused = |what: &str| {
            wrong(what).hint("the descriptor of the layer says where it is to be had; ask who published the image")
        };
        let parsed: Uri = url.parse().map_err(|_| refused("is not a URL"))?;
        let Some(authority) = parsed.authority().filter(|authority| !authority.as_str().contains('@')) else {
            return Err(refused("is not the URL of a host"));
        };
        let plain = match self.plain_http {
            PlainHttp::Always => true,
            PlainHttp::Never => false,
            // What comes from afar has nothing to ask of this machine.
            PlainHttp::Loopback => is_loopback(authority.as_str()) && self.is_local(),
        };
        match parsed.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Ok(parsed),
            Some(scheme) if *scheme == Scheme::HTTP && plain => Ok(parsed),
            Some(scheme) if *scheme == Scheme::HTTP => Err(wrong("is plain HTTP, which was not asked for")
                .hint("--plain-http allows it: the bytes are compared with their digest, and others can see them")),
            _ => Err(refused("is neither HTTPS nor HTTP")),
        }
    }

    /// Tells whether the registry is this machine.
    fn is_local(&self) -> bool {
        self.repositories.that_may(Capability::Pull).iter().all(|repository| is_loopback(&repository.host.authority))
    }
}
