//! Lists of content in pages.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use tonic::Status;
use windlass_core::Listing;
use windlass_core::content::Info;
use windlass_proto::containerd::services::content::v1 as wire;

use super::info_message;
use crate::error::to_status;

/// How many records a page has at most, as containerd has it.
const PAGE: usize = 100;
/// From how many bytes on a page is sent that has fewer: labels can be large.
const PAGE_LENGTH: usize = 1 << 20;

/// The pages of a listing. One is gathered when the client has taken the one before.
pub(super) type Pages = stream::BoxStream<'static, Result<wire::ListContentResponse, Status>>;

pub(super) fn pages(listing: Listing<Info>) -> Pages {
    let pages = stream::try_unfold(listing, async |mut listing| {
        let (mut page, mut length) = (Vec::new(), 0);
        while page.len() < PAGE
            && length < PAGE_LENGTH
            && let Some(info) = listing.try_next().await.map_err(|error| to_status(&error))?
        {
            let info = info_message(info);
            length += info.encoded_len();
            page.push(info);
        }
        Ok((!page.is_empty()).then_some((wire::ListContentResponse { info: page }, listing)))
    });
    pages.boxed()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use windlass_core::{Digest, Error, Kind, Labels};

    use super::*;

    fn of(labels: usize) -> Info {
        let labels = (0..labels).map(|n| (format!("{n}"), "x".repeat(4_000))).collect::<Labels>();
        let now = SystemTime::now();
        Info { digest: Digest::sha256(b"x"), size: 1, created_at: now, updated_at: now, labels }
    }

    #[tokio::test]
    async fn a_page_is_neither_long_nor_large_and_nothing_is_lost() {
        let lengths = async |infos: Vec<Info>| {
            let listing = stream::iter(infos.into_iter().map(Ok)).boxed();
            let pages: Vec<_> = pages(listing).map_ok(|page| page.info.len()).try_collect().await.unwrap();
            pages
        };
        assert_eq!(lengths(vec![of(0); 250]).await, [100, 100, 50]);
        assert_eq!(lengths(vec![of(100); 7]).await, [3, 3, 1], "three of 400 kB are more than a megabyte");
        assert!(lengths(Vec::new()).await.is_empty());
    }

    #[tokio::test]
    async fn an_error_ends_the_list() {
        let listing = stream::iter([Ok(of(0)), Err(Error::data_loss("damaged"))]).boxed();
        let status = pages(listing).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(crate::error::from_status(&status).kind(), Kind::DataLoss);
    }
}
