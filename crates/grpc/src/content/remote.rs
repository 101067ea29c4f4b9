//! The client's half: the content of a daemon as a store.

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use windlass_core::content::{Expected, Info, IngestRef, Ingester, Provider, ReaderAt, Status, Store, Writer};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::{Descriptor, Digest, Listing, Result, Scope};
use windlass_proto::containerd::services::content::v1 as wire;
use windlass_proto::containerd::services::content::v1::content_client::ContentClient;

use super::files::Peer;
use super::reader::Reader;
use super::writer::RemoteWriter;
use super::writers::Writers;
use super::{info, info_message, status};
use crate::error::{Answer as _, from_status};
use crate::{MAX_MESSAGE, scope, wire as messages};

/// The content of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    pub(super) client: ContentClient<Channel>,
    pub(super) scope: Scope,
    /// The writers of this client: what they have sent and the daemon has not done yet.
    pub(super) writers: Writers,
    /// Whose files this client may read.
    pub(super) peer: Peer,
}

impl Remote {
    /// Makes one on a channel, which need not be connected yet.
    pub fn new(channel: Channel, scope: Scope) -> Self {
        Self::of(channel, scope, Writers::default(), Peer::default())
    }

    /// Makes one of a client that knows its writers, and whom it is connected to.
    pub(crate) fn of(channel: Channel, scope: Scope, writers: Writers, peer: Peer) -> Self {
        let client = ContentClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { client, scope, writers, peer }
    }

    /// Asks for the status of an ingest, whatever its writer has sent meanwhile.
    pub(super) async fn told_status(&self, ingest: &IngestRef) -> Result<Status> {
        let request = scope::request(&self.scope, wire::StatusRequest { r#ref: ingest.to_string() })?;
        status(self.client.clone().status(request).await.answer()?.status)
    }

    pub(super) async fn discard(&self, ingest: &IngestRef) -> Result<()> {
        let mut request = scope::request(&self.scope, wire::AbortRequest { r#ref: ingest.to_string() })?;
        scope::say_contract(request.metadata_mut());
        self.client.clone().abort(request).await.answer()
    }

    /// Waits until the daemon has done what a writer of this client sent before.
    async fn settled(&self, ingest: &IngestRef) {
        self.writers.settled(&self.scope.namespace, Some(ingest)).await;
    }
}

#[async_trait]
impl Provider for Remote {
    async fn reader(&self, descriptor: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        let Info { digest, size, .. } = self.info(&descriptor.digest).await?;
        Ok(Box::new(Reader::new(self.clone(), digest, size)))
    }
}

#[async_trait]
impl Ingester for Remote {
    async fn writer(&self, ingest: &IngestRef, expected: Expected) -> Result<Box<dyn Writer>> {
        self.settled(ingest).await;
        Ok(Box::new(RemoteWriter::open(self.clone(), ingest.clone(), expected).await?))
    }
}

#[async_trait]
impl Store for Remote {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let request = scope::request(&self.scope, wire::InfoRequest { digest: digest.to_string() })?;
        info(self.client.clone().info(request).await.answer()?.info)
    }

    fn list(&self, filters: &[Filter]) -> Listing<Info> {
        let (mut client, scope) = (self.client.clone(), self.scope.clone());
        let request = wire::ListContentRequest { filters: messages::filter_texts(filters) };
        let list = async move {
            let pages = client.list(scope::request(&scope, request)?).await.answer()?;
            Ok(pages.map_err(|status| from_status(&status)))
        };
        let pages = stream::once(list).try_flatten();
        let infos = pages.map_ok(|page| stream::iter(page.info.into_iter().map(|one| info(Some(one)))));
        infos.try_flatten().boxed()
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let update_mask = messages::mask_paths(mask);
        let request = wire::UpdateRequest { info: Some(info_message(info.clone())), update_mask };
        let request = scope::request(&self.scope, request)?;
        super::info(self.client.clone().update(request).await.answer()?.info)
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let request = scope::request(&self.scope, wire::DeleteContentRequest { digest: digest.to_string() })?;
        self.client.clone().delete(request).await.answer()
    }

    async fn status(&self, ingest: &IngestRef) -> Result<Status> {
        self.settled(ingest).await;
        self.told_status(ingest).await
    }

    async fn statuses(&self, filters: &[Filter]) -> Result<Vec<Status>> {
        self.writers.settled(&self.scope.namespace, None).await;
        let request = wire::ListStatusesRequest { filters: messages::filter_texts(filters) };
        let request = scope::request(&self.scope, request)?;
        let statuses = self.client.clone().list_statuses(request).await.answer()?.statuses;
        statuses.into_iter().map(|one| status(Some(one))).collect()
    }

    async fn abort(&self, ingest: &IngestRef) -> Result<()> {
        self.settled(ingest).await;
        self.discard(ingest).await
    }
}
