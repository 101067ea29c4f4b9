//! Content from a registry by descriptor: OCI distribution-spec, "Pulling blobs"; ranges: RFC 9110 section 14.

mod foreign;

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use http::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use windlass_core::document::MAX_MANIFEST_SIZE;
use windlass_core::media_type::Role;
use windlass_core::remote::{Body, ByteRange, Fetcher, Lane, Trouble};
use windlass_core::{Attempt, Descriptor, Digest, Error, Kind, Result};

use crate::ask::Ask;
use crate::body::{Incoming, content_length, is_encoded};
use crate::client::{Answer, Client};
use crate::hosts::{Capability, RegistryHost, Repositories, Repository};
use crate::options::{PlainHttp, Timeouts};
use crate::resolver::accept;
use crate::senders::{Ruling, Senders};
use crate::validators::Validators;

/// Fetches what belongs to a name.
pub(crate) struct RegistryFetcher {
    pub(crate) client: Arc<Client>,
    /// Where to ask, first choice first.
    pub(crate) repositories: Repositories,
    /// Which hosts elsewhere are spoken to without TLS.
    pub(crate) plain_http: PlainHttp,
    /// What hosts call what they have sent.
    pub(crate) validators: Validators,
    /// Who sent what came.
    pub(crate) senders: Senders,
}

/// Where a registry keeps something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shelf {
    Manifests,
    Blobs,
}

impl Shelf {
    fn part(self, descriptor: &Descriptor) -> String {
        match self {
            Self::Manifests => format!("manifests/{}", descriptor.digest),
            Self::Blobs => format!("blobs/{}", descriptor.digest),
        }
    }

    /// What messages call something there.
    fn object(self, descriptor: &Descriptor) -> String {
        match self {
            Self::Manifests => format!("manifest {}", descriptor.digest),
            Self::Blobs => format!("blob {}", descriptor.digest),
        }
    }
}

#[async_trait]
impl Fetcher for RegistryFetcher {
    async fn fetch(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        check_range(descriptor, range)?;
        let digest = &descriptor.digest;
        let rank = |host: &RegistryHost| self.senders.rank(digest, &host.key());
        let mut walk = self.repositories.walk_by(Capability::Pull, format!("fetch {digest}"), rank);
        while let Some(repository) = walk.next() {
            match self.fetch_from(repository, descriptor, range).await {
                Ok(body) => return Ok(body),
                Err(error) => walk.failed(error),
            }
        }
        self.senders.nobody(digest);
        let failed = walk.into_error().attempts(self.senders.passed_over(digest));
        if failed.is(Kind::NotFound) && !descriptor.urls.is_empty() && !descriptor.media_type.is_manifest_or_index() {
            return self.fetch_foreign(descriptor, range, failed).await;
        }
        Err(failed)
    }

    fn lane(&self) -> Option<Lane> {
        self.client.traffic(self.repositories.that_may(Capability::Pull).first()?).lane()
    }

    fn origin(&self, digest: &Digest) -> Option<Attempt> {
        self.senders.last(digest)
    }

    fn pass_over(&self, digest: &Digest, trouble: Trouble, error: Error) -> Result<()> {
        let hosts: Vec<String> =
            self.repositories.that_may(Capability::Pull).iter().map(|repository| repository.host.key()).collect();
        match self.senders.rule(digest, &hosts, trouble, &error) {
            Ruling::Stands(mut earlier) => {
                earlier.retain(|attempt| !error.trace().contains(attempt));
                Err(error.attempts(earlier))
            }
            Ruling::PassedOver(attempt) => {
                self.repositories.passed_over(&attempt, error.code(), || match trouble {
                    Trouble::Wrong => format!("sends something else for {digest}"),
                    Trouble::Broken => format!("breaks off again and again at {digest}"),
                });
                Ok(())
            }
            Ruling::OneAtATime(senders) => {
                let hosts: Vec<&str> = senders.iter().map(|attempt| attempt.host.as_str()).collect();
                tracing::warn!(
                    "what {} sent of {digest} is not it, and they are asked one at a time: {error}",
                    hosts.join(" and ")
                );
                Ok(())
            }
        }
    }

    fn start_over(&self, digest: &Digest) {
        self.senders.forget(digest);
    }

    fn distrust_parts(&self) {
        for repository in self.repositories.that_may(Capability::Pull) {
            tracing::warn!(host = repository.host.name, "what was sent in parts was not what was asked for");
            self.client.traffic(repository).distrust_parts();
        }
    }
}

impl RegistryFetcher {
    async fn fetch_from(&self, repository: &Repository, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        match descriptor.media_type.role() {
            Role::Index | Role::Manifest | Role::Schema1 => {
                self.fetch_at(Shelf::Manifests, repository, descriptor, range).await
            }
            Role::Config | Role::Layer(_) => self.fetch_at(Shelf::Blobs, repository, descriptor, range).await,
            // An artifact's manifest has a type of its own, and so has its blob.
            Role::Opaque => match self.fetch_at(Shelf::Blobs, repository, descriptor, range).await {
                Err(error) if error.is(Kind::NotFound) => {
                    match self.fetch_at(Shelf::Manifests, repository, descriptor, range).await {
                        Err(other) if other.is(Kind::NotFound) => Err(error),
                        fetched => fetched,
                    }
                }
                fetched => fetched,
            },
        }
    }

    async fn fetch_at(
        &self,
        shelf: Shelf,
        repository: &Repository,
        descriptor: &Descriptor,
        range: ByteRange,
    ) -> Result<Body> {
        let traffic = self.client.traffic(repository);
        let answer = self.ask(shelf, repository, descriptor, range).await?;
        let delivery = Delivery::of(&answer.response, range, descriptor);
        let (answer, delivery) = match delivery {
            Delivery::Misplaced => {
                tracing::warn!(
                    host = answer.host,
                    digest = %descriptor.digest,
                    status = answer.response.status().as_u16(),
                    "a part was not the one asked for; taking all"
                );
                traffic.distrust_parts();
                let answer = self.ask(shelf, repository, descriptor, ByteRange::default()).await?;
                let delivery = Delivery::of(&answer.response, ByteRange::default(), descriptor);
                (answer, delivery)
            }
            delivery => (answer, delivery),
        };
        let came = matches!(delivery, Delivery::Whole { .. } | Delivery::Part { .. });
        let is_other =
            came && self.validators.learn(&repository.host.name, &descriptor.digest, answer.response.headers());
        if came {
            self.senders.learn(&descriptor.digest, &repository.host.key(), &answer.response);
        }
        // What is another version was to be sent as a whole.
        if range_header(range).is_some() && matches!(delivery, Delivery::Whole { .. }) && !is_other {
            traffic.distrust_parts();
        }
        let object = shelf.object(descriptor);
        let (offset, size, cut) = match delivery {
            Delivery::Whole { size } => (0, size, range.end),
            Delivery::Part { start, size } => (start, size, range.end.map(|end| end - start)),
            Delivery::Nothing { at } => {
                return Ok(Body { offset: at, size: Some(at), stream: futures::stream::empty().boxed() });
            }
            Delivery::Misplaced | Delivery::Refused => {
                return Err(self.client.refused(repository, &object, answer).await);
            }
        };
        let limit = (shelf == Shelf::Manifests).then_some(MAX_MANIFEST_SIZE);
        let Timeouts { idle, floor, .. } = self.client.exchange.timeouts;
        let mut body = Incoming::new(answer.response, &answer.host, &object, idle)?.cut(cut).limit(limit)?;
        if shelf == Shelf::Blobs {
            body = body.no_slower_than(floor).counted(traffic.transfer());
        }
        Ok(Body { offset, size, stream: body.into_stream() })
    }

    async fn ask(
        &self,
        shelf: Shelf,
        repository: &Repository,
        descriptor: &Descriptor,
        range: ByteRange,
    ) -> Result<Answer> {
        let mut headers = match shelf {
            Shelf::Manifests => accept(Some(&descriptor.media_type))?,
            Shelf::Blobs => HeaderMap::new(),
        };
        if let Some(value) = range_header(range) {
            headers.insert(RANGE, value);
            if let Some(validator) = self.validators.of(&repository.host.name, &descriptor.digest) {
                headers.insert(IF_RANGE, validator);
            }
        }
        self.client.send(Ask::new(Method::GET, repository, &shelf.part(descriptor)).headers(headers)).await
    }
}

/// Refuses a range without bytes.
pub(crate) fn check_range(descriptor: &Descriptor, range: ByteRange) -> Result<()> {
    match range.end {
        Some(end) if end <= range.start => Err(Error::invalid_argument(format!(
            "the range from {} to {end} of {} has no bytes",
            range.start, descriptor.digest
        ))),
        _ => Ok(()),
    }
}

/// RFC 9110 section 14.1.2: the last position is inclusive.
fn range_header(range: ByteRange) -> Option<HeaderValue> {
    let text = match (range.start, range.end) {
        (0, None) => return None,
        (start, None) => format!("bytes={start}-"),
        (start, Some(end)) => format!("bytes={start}-{}", end.saturating_sub(1)),
    };
    HeaderValue::from_str(&text).ok()
}

/// What an answer to a request for a range brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// Everything from the first byte on, whatever was asked for.
    Whole { size: Option<u64> },
    /// What was asked for.
    Part { start: u64, size: Option<u64> },
    /// Nothing, because the content ends where the range begins.
    Nothing { at: u64 },
    /// Not what was asked for, because it was a part: another one, one that does not say where it belongs or is of something
    /// else, an encoded one, or a refusal. All of it may be had.
    Misplaced,
    /// No content.
    Refused,
}

impl Delivery {
    fn of<B>(response: &http::Response<B>, range: ByteRange, wanted: &Descriptor) -> Self {
        let (status, headers) = (response.status(), response.headers());
        let asked = range_header(range).is_some();
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT if asked && is_encoded(headers) => Self::Misplaced,
            StatusCode::OK => Self::Whole { size: content_length(headers) },
            StatusCode::PARTIAL_CONTENT => Self::part(headers, range, wanted),
            StatusCode::RANGE_NOT_SATISFIABLE => match ContentRange::of(headers) {
                Some(ContentRange { part: None, size: Some(size) }) if size == range.start => {
                    Self::Nothing { at: size }
                }
                Some(ContentRange { part: None, size: Some(size) }) if size < range.start => Self::Refused,
                // It is within the range that is not satisfiable.
                _ if range.start < wanted.size => Self::Misplaced,
                _ => Self::Refused,
            },
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED if asked => Self::Misplaced,
            _ => Self::Refused,
        }
    }

    fn part(headers: &HeaderMap, range: ByteRange, wanted: &Descriptor) -> Self {
        match ContentRange::of(headers) {
            // A blob of another size is looked at as a whole: then it is known who is wrong.
            Some(ContentRange { part: Some((start, last)), size })
                if start == range.start
                    && range.end.is_none_or(|end| last < end)
                    && size.is_none_or(|size| size == wanted.size || wanted.size == 0) =>
            {
                Self::Part { start, size }
            }
            _ => Self::Misplaced,
        }
    }
}

/// RFC 9110 section 14.4: `bytes FIRST-LAST/SIZE`, where either side of the slash may be `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    part: Option<(u64, u64)>,
    size: Option<u64>,
}

impl ContentRange {
    fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(CONTENT_RANGE)?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (part, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let size = if size == "*" { None } else { Some(size.parse().ok()?) };
        if part == "*" {
            return Some(Self { part: None, size });
        }
        let (first, last) = part.split_once('-')?;
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let fits = first <= last && size.is_none_or(|size| last < size);
        fits.then_some(Self { part: Some((first, last)), size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(status: u16, content_range: &str, range: ByteRange) -> Delivery {
        let mut headers = HeaderMap::new();
        if !content_range.is_empty() {
            headers.insert(CONTENT_RANGE, content_range.parse().unwrap());
        }
        let mut response = http::Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers;
        Delivery::of(&response, range, &Descriptor::of("application/octet-stream", b"0123456789"))
    }

    #[test]
    fn answers_to_ranges_are_told_apart() {
        let range = ByteRange::from(5);
        assert_eq!(delivery(206, "bytes 5-9/10", range), Delivery::Part { start: 5, size: Some(10) });
        assert_eq!(delivery(206, "bytes 5-9/*", range), Delivery::Part { start: 5, size: None });
        for misplaced in ["", "bytes 4-9/10", "bytes 9-5/10", "bytes 5-10/10", "bytes x", "bytes */10", "pages 5-9/10"]
        {
            assert_eq!(delivery(206, misplaced, range), Delivery::Misplaced, "{misplaced:?}");
        }
        assert_eq!(delivery(416, "bytes */5", range), Delivery::Nothing { at: 5 });
        assert_eq!(delivery(416, "bytes */4", range), Delivery::Refused);
        assert_eq!(delivery(416, "", range), Delivery::Misplaced);
        assert_eq!(delivery(416, "bytes */10", range), Delivery::Misplaced);
        assert_eq!(delivery(416, "", ByteRange::from(10)), Delivery::Refused);
        assert_eq!(delivery(400, "", range), Delivery::Misplaced);
        assert_eq!(delivery(400, "", ByteRange::default()), Delivery::Refused);
        assert_eq!(delivery(206, "bytes 5-9/11", range), Delivery::Misplaced, "of another size");
        assert_eq!(
            delivery(206, "bytes 5-9/10", ByteRange { start: 5, end: Some(9) }),
            Delivery::Misplaced,
            "too much"
        );
        assert_eq!(delivery(200, "", range), Delivery::Whole { size: None });
    }

    #[test]
    fn a_range_is_written_with_its_last_byte() {
        let header = |start, end| range_header(ByteRange { start, end }).map(|h| h.to_str().unwrap().to_owned());
        assert_eq!(header(0, None), None);
        assert_eq!(header(7, None).as_deref(), Some("bytes=7-"));
        assert_eq!(header(0, Some(10)).as_deref(), Some("bytes=0-9"));
    }
}
