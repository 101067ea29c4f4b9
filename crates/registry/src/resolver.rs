//! From a tag or a digest to a descriptor: OCI distribution-spec, "Pulling manifests".
//!
//! A `HEAD` is enough when it says type, digest and size. Otherwise, and whenever it is refused, a `GET` decides: its body
//! is hashed, and its refusal has words. Of a mirror nothing is believed that cannot be looked at, as long as others can be
//! asked: what it says of digest and size is what everything that follows is compared with.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use windlass_core::digest::Algorithm;
use windlass_core::document::MAX_MANIFEST_SIZE;
use windlass_core::image::Name;
use windlass_core::reference::ObjectDigest;
use windlass_core::remote::Resolved;
use windlass_core::{Attempt, Descriptor, Digest, Error, MediaType, Reference, Result};

use crate::ask::Ask;
use crate::body::{self, content_length};
use crate::client::{Answer, Client};
use crate::error::{Refusal, attempt_of, printable};
use crate::hosts::{Capability, Repositories, Repository};
use crate::manifest;

/// OCI distribution-spec, "Pulling manifests".
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// How many tags a hint names, and how many are asked for.
const NAMED_TAGS: usize = 10;
/// The largest list of tags that is read, in bytes.
const MAX_TAGS: u64 = 1 << 20;

/// What is looked for in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Tag(String),
    Digest(Digest),
}

impl Wanted {
    /// A tag that comes with a digest is a remark: the digest says what is meant, whatever the tag points at by now.
    fn of(reference: &Reference) -> Result<Self> {
        let Some(object) = reference.object() else {
            return Err(Error::invalid_argument(format!("{reference} has no tag or digest"))
                .hint(format!("write {reference}:latest for the usual tag")));
        };
        match (object.tag(), object.object_digest()) {
            (_, Some(ObjectDigest::Full(digest))) => Ok(Self::Digest(digest.clone())),
            (_, Some(ObjectDigest::Partial(partial))) => Err(Error::invalid_argument(format!(
                "{reference} ends in the beginning of a digest, {partial:?}, which no registry can look up"
            ))
            .hint("write the whole digest, or a tag")),
            (Some(tag), None) => Ok(Self::Tag(tag.to_owned())),
            (None, None) => Err(Error::invalid_argument(format!("{reference} has no tag or digest"))),
        }
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Tag(_) => None,
            Self::Digest(digest) => Some(digest),
        }
    }

    fn part(&self) -> String {
        match self {
            Self::Tag(tag) => format!("manifests/{tag}"),
            Self::Digest(digest) => format!("manifests/{digest}"),
        }
    }

    /// Who may be asked: to say what a tag is takes more trust than to give what a digest names.
    fn capability(&self) -> Capability {
        match self {
            Self::Tag(_) => Capability::Resolve,
            Self::Digest(_) => Capability::Pull,
        }
    }

    /// What messages call it.
    fn object(&self) -> String {
        match self {
            Self::Tag(tag) => format!("tag {tag:?}"),
            Self::Digest(digest) => format!("manifest {digest}"),
        }
    }
}

/// Returns the header that says which manifests are accepted, the given type first.
pub(crate) fn accept(first: Option<&MediaType>) -> Result<HeaderMap> {
    let first = first.map(MediaType::as_str).filter(|first| !first.is_empty() && !MediaType::MANIFESTS.contains(first));
    // Artifacts have types of their own, hence the last one.
    let types: Vec<&str> = first.into_iter().chain(MediaType::MANIFESTS).chain(["*/*"]).collect();
    let value = HeaderValue::from_str(&types.join(", ")).map_err(|_| {
        Error::invalid_argument(format!("media type {:?} cannot be asked for", first.unwrap_or_default()))
    })?;
    Ok(HeaderMap::from_iter([(ACCEPT, value)]))
}

/// Resolves references of registries.
pub(crate) struct RegistryResolver {
    pub(crate) client: Arc<Client>,
}

impl RegistryResolver {
    /// Asks where a reference may be served, in order, until one knows.
    pub(crate) async fn resolve(&self, repositories: &Repositories, reference: &Reference) -> Result<Resolved> {
        let wanted = Wanted::of(reference)?;
        let name: Name = reference.to_string().parse()?;
        let repository = reference.repository().unwrap_or_default();
        let mut walk = repositories.walk(wanted.capability(), format!("resolve {} of {repository}", wanted.object()));
        while let Some(repository) = walk.next() {
            match self.lookup(repository, &wanted).await {
                Ok(descriptor) => return Ok(Resolved { name, descriptor }),
                Err(error) => walk.failed(error),
            }
        }
        Err(walk.into_error())
    }

    async fn lookup(&self, repository: &Repository, wanted: &Wanted) -> Result<Descriptor> {
        let head = if repository.others_follow { None } else { self.head(repository, wanted).await? };
        match head {
            Some(descriptor) => Ok(descriptor),
            None => self.get(repository, wanted).await,
        }
    }

    /// Returns the descriptor that the headers give; `None` when they do not.
    async fn head(&self, repository: &Repository, wanted: &Wanted) -> Result<Option<Descriptor>> {
        let part = wanted.part();
        let ask = Ask::new(Method::HEAD, repository, &part).headers(accept(None)?);
        let answer = self.client.send(ask).await?;
        let status = answer.response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        {
            return Err(self.refusal(repository, &wanted.object(), answer).await);
        }
        if status != StatusCode::OK {
            return Ok(None);
        }
        let headers = answer.response.headers();
        let media_type = media_type(headers);
        let attempt = || attempt_of(&answer.response).cloned();
        manifest::refuse_schema1(&format!("{} of {}", wanted.object(), repository.name), &media_type)
            .map_err(|error| error.attempts(attempt()))?;
        let digest = digest_header(headers);
        if let (Some(wanted), Some(digest)) = (wanted.digest(), &digest)
            && wanted != digest
        {
            return Err(other_digest(&answer.host, repository, wanted, digest).attempts(attempt()));
        }
        let (Some(digest), Some(size)) = (digest, content_length(headers)) else { return Ok(None) };
        if !manifest::is_telling(&media_type) {
            return Ok(None);
        }
        if size > MAX_MANIFEST_SIZE {
            return Err(Error::resource_exhausted(format!(
                "{} of {} at {} has {size} bytes, more than the {MAX_MANIFEST_SIZE} that are accepted",
                wanted.object(),
                repository.name,
                answer.host
            ))
            .coded("too-large")
            .hint("it is damaged, or not meant for a container engine")
            .attempts(attempt()));
        }
        Ok(Some(Descriptor::new(media_type, digest, size)))
    }

    /// Returns the descriptor of a manifest by reading it.
    async fn get(&self, repository: &Repository, wanted: &Wanted) -> Result<Descriptor> {
        let part = wanted.part();
        let ask = Ask::new(Method::GET, repository, &part).headers(accept(None)?);
        let answer = self.client.send(ask).await?;
        match answer.response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(self.missing(repository, wanted, answer).await),
            _ => return Err(self.refusal(repository, &wanted.object(), answer).await),
        }
        let attempt = attempt_of(&answer.response).cloned();
        let host = answer.host;
        let what = format!("{} of {}", wanted.object(), repository.name);
        let declared = media_type(answer.response.headers());
        let header = digest_header(answer.response.headers());
        let idle = self.client.exchange.timeouts.idle;
        let bytes = body::read(answer.response, &host, &what, MAX_MANIFEST_SIZE, idle).await?;

        let algorithm = wanted.digest().or(header.as_ref()).map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = algorithm.digest(&bytes);
        for expected in wanted.digest().into_iter().chain(&header) {
            let found =
                if expected.algorithm() == algorithm { digest.clone() } else { expected.algorithm().digest(&bytes) };
            if *expected != found {
                let error = other_digest(&host, repository, expected, &found);
                let sent = |attempt: Attempt| {
                    let outcome = format!("{}, but with the digest {found}, {expected} was expected", attempt.outcome);
                    Attempt { outcome, ..attempt }
                };
                return Err(error.attempts(attempt.map(sent)));
            }
        }
        let media_type = manifest::media_type(&what, &declared, &bytes).map_err(|error| error.attempts(attempt))?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }

    async fn refusal(&self, repository: &Repository, object: &str, answer: Answer) -> Error {
        self.client.refused(repository, object, answer).await
    }

    /// Says which is missing, the repository or what was looked for in it. The code alone does not tell: distribution
    /// answers `MANIFEST_UNKNOWN` for a repository that does not exist.
    async fn missing(&self, repository: &Repository, wanted: &Wanted, answer: Answer) -> Error {
        let idle = self.client.exchange.timeouts.idle;
        let object = wanted.object();
        let refusal = Refusal::read(repository, &object, answer, idle).await;
        let (name, host, attempt) = (&repository.name, &refusal.host, || refusal.attempt.clone());
        let without_repository = || {
            Error::not_found(format!("repository {name} is not at {host}"))
                .coded("repository-not-found")
                .attempts(attempt())
                .hint("check its spelling; some registries hide a repository from those who may not read it")
        };
        if refusal.complaint.has("NAME_UNKNOWN") {
            return without_repository();
        }
        match self.tags(repository).await {
            Ok(Some(tags)) => {
                let code = if matches!(wanted, Wanted::Tag(_)) { "tag-not-found" } else { "object-not-found" };
                let error = Error::not_found(format!("{object} is not in repository {name} of {host}"));
                let error = error.coded(code).attempts(attempt());
                let named: Vec<String> = tags.iter().take(NAMED_TAGS).map(|tag| printable(tag)).collect();
                let more = if tags.len() > NAMED_TAGS { ", …" } else { "" };
                error.hint(match (wanted, named.is_empty()) {
                    (_, true) => "the repository has no tags".to_owned(),
                    (Wanted::Tag(_), false) => format!("there are the tags {}{more}", named.join(", ")),
                    (Wanted::Digest(_), false) => {
                        "what it named may have been deleted; resolve the tag again".to_owned()
                    }
                })
            }
            Ok(None) => without_repository(),
            Err(error) => {
                tracing::debug!(%error, "the tags of a repository cannot be listed");
                Error::not_found(format!("{object} or repository {name} itself is not at {host}"))
                    .coded("object-not-found")
                    .attempts(attempt())
                    .hint("the registry does not say which; check both")
            }
        }
    }

    /// Lists the first tags of a repository; `None` when there is no such repository.
    async fn tags(&self, repository: &Repository) -> Result<Option<Vec<String>>> {
        let part = format!("tags/list?n={}", NAMED_TAGS + 1);
        let answer = self.client.send(Ask::new(Method::GET, repository, &part)).await?;
        match answer.response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refusal(repository, "the list of tags", answer).await),
        }
        let idle = self.client.exchange.timeouts.idle;
        let bytes = body::read(answer.response, &answer.host, "the list of tags", MAX_TAGS, idle).await?;
        let tags = parse_tags(&bytes).map_err(|e| {
            Error::unavailable(format!("the list of tags of {} is malformed", repository.name)).source(e)
        })?;
        Ok(Some(tags))
    }
}

/// Reads a list of tags. OCI distribution-spec, "Listing Tags"; some write `null` for none.
pub(crate) fn parse_tags(bytes: &[u8]) -> serde_json::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    serde_json::from_slice::<List>(bytes).map(|list| list.tags.unwrap_or_default())
}

impl Client {
    /// Turns an answer that is not success into an error.
    pub(crate) async fn refused(&self, repository: &Repository, object: &str, answer: Answer) -> Error {
        let refusal = Refusal::read(repository, object, answer, self.exchange.timeouts.idle).await;
        refusal.into_error(self.authorizer.standing(repository).await)
    }
}

fn media_type(headers: &HeaderMap) -> MediaType {
    MediaType::new(headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default())
}

/// A digest that cannot be read is as good as none: the body is hashed.
pub(crate) fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

fn other_digest(host: &str, repository: &Repository, expected: &Digest, found: &Digest) -> Error {
    Error::data_loss(format!("{host} gives {found} for manifest {expected} of {}", repository.name))
        .hint("the registry, or something between it and this machine, changes content; nothing was kept")
        .coded("digest-mismatch")
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    #[test]
    fn a_digest_says_more_than_a_tag() {
        let digest = Digest::sha256(b"x");
        let wanted = |text: &str| Wanted::of(&text.parse().unwrap());
        assert_eq!(wanted("a.test/b:7").unwrap(), Wanted::Tag("7".to_owned()));
        assert_eq!(wanted(&format!("a.test/b:7@{digest}")).unwrap(), Wanted::Digest(digest.clone()));
        assert_eq!(wanted(&format!("a.test/b@{digest}")).unwrap(), Wanted::Digest(digest));
        for reference in ["a.test/b", "a.test/b@sha256:abc", "a.test/b:7@sha256:abc"] {
            let error = wanted(reference).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{reference}");
            assert!(error.hint_text().is_some(), "{reference}");
        }
    }

    #[test]
    fn every_kind_of_manifest_is_accepted() {
        let header = accept(Some(&"application/vnd.example+json".into())).unwrap()[ACCEPT].clone();
        let types: Vec<&str> = header.to_str().unwrap().split(", ").collect();
        assert_eq!(types[0], "application/vnd.example+json");
        assert_eq!(types[1..5], MediaType::MANIFESTS);
    }
}
