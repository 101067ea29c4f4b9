//! Listings: a stream over records, page by page, so that no transaction is held while the reader thinks.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_core::Listing;
use windlass_core::filter::{Fields, Filter, any_matches};

use super::Records;
use crate::store::Shared;

/// How many records are read in one transaction.
const PAGE: usize = 256;

/// Lists the records with a prefix that match any of the filters, or all of them without a filter.
pub(crate) fn listing<R, T>(
    shared: Arc<Shared>,
    records: &'static Records<R>,
    prefix: String,
    filters: &[Filter],
    convert: fn(R) -> T,
) -> Listing<T>
where
    R: Serialize + DeserializeOwned + Send + 'static,
    T: Fields + Send + 'static,
{
    let filters = filters.to_vec();
    let pages = stream::try_unfold(Some(String::new()), move |after| {
        let page = page(&shared, records, &prefix, after);
        std::future::ready(page)
    });
    pages
        .map_ok(move |page| {
            let matching: Vec<_> = page.into_iter().map(convert).filter(|item| any_matches(&filters, item)).collect();
            stream::iter(matching.into_iter().map(Ok))
        })
        .try_flatten()
        .boxed()
}

/// A page, and the key after which the next one begins; no key behind the last page.
type Page<R> = (Vec<R>, Option<String>);

fn page<R: Serialize + DeserializeOwned>(
    shared: &Shared,
    records: &Records<R>,
    prefix: &str,
    after: Option<String>,
) -> windlass_core::Result<Option<Page<R>>> {
    let Some(after) = after else { return Ok(None) };
    let after = Some(after.as_str()).filter(|after| !after.is_empty());
    let page = shared.db.read(|view| records.page(view, prefix, after, PAGE))?;
    let last = page.last().map(|(key, _)| key.clone()).filter(|_| page.len() == PAGE);
    Ok(Some((page.into_iter().map(|(_, record)| record).collect(), last)))
}
