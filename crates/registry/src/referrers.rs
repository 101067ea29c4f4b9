//! What is attached to a manifest: OCI distribution-spec, "Listing Referrers".
//!
//! A registry that has the API is asked page by page; one that has not keeps the list as an index under a tag made of the
//! digest ("Referrers Tag Schema"), which whoever attaches something has written there.

use http::header::ACCEPT;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use windlass_core::document::{Index, MAX_MANIFEST_SIZE};
use windlass_core::media_type::Role;
use windlass_core::{Descriptor, Digest, Error, MediaType, Result};

use crate::ask::Ask;
use crate::body;
use crate::client::Answer;
use crate::hosts::{Capability, Repositories, Repository};
use crate::link;
use crate::redirect;
use crate::resolver::RegistryResolver;

/// What a registry has filtered by. OCI distribution-spec, "Listing Referrers".
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// How many pages of a list are read.
const MAX_PAGES: usize = 64;
/// How many referrers are kept of a list: each takes about a kilobyte.
const MAX_REFERRERS: usize = 10_000;

/// Returns the tag under which a registry without the API keeps the list: at most 32 characters of the algorithm and 64 of
/// the hash.
pub(crate) fn fallback_tag(subject: &Digest) -> String {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    format!("{}-{}", cut(subject.algorithm().as_str(), 32), cut(subject.hex(), 64))
}

/// Tells whether an answer is one of those that come of a registry which does not know the API.
pub(crate) fn has_no_api(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED | StatusCode::BAD_REQUEST
    )
}

impl RegistryResolver {
    /// Asks where a repository may be served, in order, until one knows what is attached to a manifest there.
    pub(crate) async fn referrers(
        &self,
        repositories: &Repositories,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let mut walk = repositories.walk(Capability::Resolve, format!("list the referrers of {subject}"));
        while let Some(repository) = walk.next() {
            match self.referrers_at(repository, subject, artifact_type).await {
                Ok(referrers) => return Ok(referrers),
                Err(error) => walk.failed(error),
            }
        }
        Err(walk.into_error())
    }

    async fn referrers_at(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let query = artifact_type.map(|kind| format!("?artifactType={}", escaped(kind))).unwrap_or_default();
        let answer = self.ask(repository, &format!("referrers/{subject}{query}")).await?;
        let (mut referrers, filtered) = match answer.response.status() {
            StatusCode::OK => {
                let filtered = filters(answer.response.headers());
                (self.pages(repository, subject, answer).await?, filtered)
            }
            status if has_no_api(status) => (self.by_tag(repository, subject).await?, false),
            _ => return Err(self.client.refused(repository, &format!("the referrers of {subject}"), answer).await),
        };
        if let Some(kind) = artifact_type.filter(|_| !filtered) {
            referrers.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(kind));
        }
        Ok(referrers)
    }

    async fn ask(&self, repository: &Repository, part: &str) -> Result<Answer> {
        self.client.send(Ask::new(Method::GET, repository, part).headers(accept())).await
    }

    /// Reads a list to its end.
    async fn pages(&self, repository: &Repository, subject: &Digest, first: Answer) -> Result<Vec<Descriptor>> {
        let mut all: Vec<Descriptor> = Vec::new();
        let mut answer = first;
        for _ in 0..MAX_PAGES {
            let next = link::next(answer.response.headers());
            let url = answer.url.clone();
            all.extend(self.index(repository, subject, answer).await?);
            if all.len() > MAX_REFERRERS {
                break;
            }
            let Some(next) = next else { return Ok(all) };
            let target = redirect::target(&url, &next).ok().filter(|target| redirect::same_origin(&url, target));
            let Some(target) = target else {
                return Err(Error::failed_precondition(format!(
                    "the list of referrers of {subject} at {} goes on at another place",
                    repository.host.name
                ))
                .hint("the registry, or a proxy before it, gives wrong links; its operator has to look at it"));
            };
            answer = self.client.send_to(target, Ask::new(Method::GET, repository, "").headers(accept())).await?;
            if answer.response.status() != StatusCode::OK {
                return Err(self.client.refused(repository, &format!("the referrers of {subject}"), answer).await);
            }
        }
        Err(Error::resource_exhausted(format!(
            "the list of referrers of {subject} at {} has no end: more than {MAX_REFERRERS}, or {MAX_PAGES} pages",
            repository.host.name
        ))
        .hint("ask for one type of artifact only"))
    }

    /// Returns the list that is kept under the tag; there need be none.
    async fn by_tag(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>> {
        let tag = fallback_tag(subject);
        let answer = self.ask(repository, &format!("manifests/{tag}")).await?;
        match answer.response.status() {
            StatusCode::OK => self.index(repository, subject, answer).await,
            StatusCode::NOT_FOUND => Ok(Vec::new()),
            _ => Err(self.client.refused(repository, &format!("tag {tag:?}"), answer).await),
        }
    }

    async fn index(&self, repository: &Repository, subject: &Digest, answer: Answer) -> Result<Vec<Descriptor>> {
        let what = format!("the list of referrers of {subject} in {}", repository.name);
        let idle = self.client.exchange.timeouts.idle;
        let host = answer.host.clone();
        let bytes = body::read(answer.response, &answer.host, &what, MAX_MANIFEST_SIZE, idle).await?;
        parse(&bytes).map_err(|error| error.context(format!("read {what} from {host}")))
    }
}

/// Reads a list of referrers, which is an index.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let malformed = |problem: &str| {
        Error::unavailable(format!("it is {problem}")).hint(
            "what answers there is no registry that keeps referrers; look whether a proxy or a page is in between",
        )
    };
    // To the parser an empty list is as good as a table without keys.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("no index"));
    }
    let index: Index = serde_json::from_slice(bytes).map_err(|error| malformed("malformed").source(error))?;
    match index.media_type.as_ref().map(MediaType::role) {
        None | Some(Role::Index) => Ok(index.manifests),
        Some(_) => Err(malformed("no index")),
    }
}

/// Tells whether a registry says that it has filtered by type.
fn filters(headers: &HeaderMap) -> bool {
    let values = headers.get_all(FILTERS_APPLIED).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|filter| filter.trim() == "artifactType")
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(MediaType::OCI_INDEX))])
}

/// Escapes all but RFC 3986's unreserved characters and those that are usual in media types.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    #[test]
    fn the_tag_of_a_registry_without_the_api_is_made_of_the_digest() {
        let digest = Digest::sha256(b"x");
        assert_eq!(fallback_tag(&digest), format!("sha256-{}", digest.hex()));
        let long: Digest = format!("sha512:{}", "ab".repeat(64)).parse().unwrap();
        assert_eq!(fallback_tag(&long), format!("sha512-{}", "ab".repeat(32)));
    }

    #[test]
    fn a_type_is_escaped_in_a_query() {
        assert_eq!(escaped("application/vnd.x+json; a=b&c"), "application/vnd.x%2Bjson%3B%20a%3Db%26c");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert!(parse(br#"{"manifests":[]}"#).unwrap().is_empty());
        for bytes in [&b"<html>"[..], b"[]", br#"{"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#] {
            assert_eq!(parse(bytes).unwrap_err().kind(), Kind::Unavailable);
        }
    }
}
