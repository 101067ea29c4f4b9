//! The tags of a repository: OCI distribution-spec, "Listing Tags"; pages by `Link`, RFC 8288.
//!
//! A registry may have many tags, and a hostile one an endless list: it is read page by page, and ends soon when a page
//! comes again, when there are too many, or when it goes on at another host.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode, Uri};
use windlass_core::{Error, Listing, Result};

use crate::ask::Ask;
use crate::body;
use crate::client::Client;
use crate::error::Refusal;
use crate::hosts::Repository;
use crate::link;
use crate::redirect;
use crate::resolver::parse_tags;

/// How many tags are asked for at once.
const PAGE: usize = 1000;
/// The largest page that is read, in bytes.
const MAX_PAGE: u64 = 4 << 20;
/// How many pages and tags are read at most.
const MAX_PAGES: usize = 10_000;
const MAX_TAGS: usize = 1_000_000;

/// Where a listing stands.
struct Walk {
    client: Arc<Client>,
    repository: Repository,
    next: Option<Uri>,
    seen: HashSet<Uri>,
    tags: usize,
}

/// Lists the tags of a repository, in the order of the registry.
pub(crate) fn tags(client: Arc<Client>, repository: Repository) -> Listing<String> {
    let first = stream::once(async move {
        let next = Some(repository.url(&format!("tags/list?n={PAGE}"))?);
        Ok(Walk { client, repository, next, seen: HashSet::new(), tags: 0 })
    });
    let pages = first.map_ok(|walk| {
        stream::try_unfold(walk, |mut walk| async move {
            let Some(url) = walk.next.take() else { return Ok::<_, Error>(None) };
            let page = walk.page(url).await?;
            Ok(Some((stream::iter(page).map(Ok), walk)))
        })
        .try_flatten()
    });
    pages.try_flatten().boxed()
}

impl Walk {
    async fn page(&mut self, url: Uri) -> Result<Vec<String>> {
        let Repository { host, name, .. } = &self.repository;
        let object = "the list of tags";
        let endless = |what: &str| {
            Error::resource_exhausted(format!("{object} of {name} at {} {what}", host.name))
                .hint("the registry, or a proxy before it, does not end its lists; its operator has to look at it")
        };
        if !self.seen.insert(url.clone()) {
            return Err(endless("comes back to where it was"));
        }
        if self.seen.len() > MAX_PAGES {
            return Err(endless(&format!("has more than {MAX_PAGES} pages")));
        }
        let answer = self.client.send_to(url, Ask::new(Method::GET, &self.repository, "")).await?;
        match answer.response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let idle = self.client.exchange.timeouts.idle;
                let refusal = Refusal::read(&self.repository, object, answer, idle).await;
                let Refusal { host, complaint, .. } = &refusal;
                let error = Error::not_found(format!("repository {name} is not at {host}{complaint}"))
                    .coded("repository-not-found")
                    .hint("check its spelling; some registries hide a repository from those who may not read it");
                return Err(refusal.tried(error));
            }
            _ => return Err(self.client.refused(&self.repository, object, answer).await),
        }
        self.next = match link::next(answer.response.headers()) {
            Some(link) => Some(self.follow(&answer.url, &link)?),
            None => None,
        };
        let idle = self.client.exchange.timeouts.idle;
        let bytes = body::read(answer.response, &answer.host, object, MAX_PAGE, idle).await?;
        let page = parse_tags(&bytes).map_err(|e| {
            Error::unavailable(format!("{object} of {name} at {} is malformed", answer.host))
                .source(e)
                .hint("look whether a proxy or a login page is in between")
        })?;
        self.tags += page.len();
        if self.tags > MAX_TAGS {
            return Err(endless(&format!("has more than {MAX_TAGS} tags")));
        }
        Ok(page)
    }

    /// Returns where the list goes on, which is where it began.
    fn follow(&self, from: &Uri, link: &str) -> Result<Uri> {
        let target = redirect::target(from, link).ok();
        target.filter(|target| redirect::same_origin(from, target)).ok_or_else(|| {
            let Repository { host, name, .. } = &self.repository;
            Error::failed_precondition(format!("the list of tags of {name} goes on elsewhere than at {}", host.name))
                .hint("the registry, or a proxy before it, gives wrong links; its operator has to look at it")
        })
    }
}
