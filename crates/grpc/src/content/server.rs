//! The server's half: every call but what `Write` has to say.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use windlass_core::content::{IngestRef, Store};
use windlass_core::{Host, Kind, Result};
use windlass_proto::containerd::services::content::v1 as wire;
use windlass_proto::containerd::services::content::v1::content_server::Content;

use super::aborts::Aborts;
use super::files::{self, Files};
use super::list::{Pages, pages};
use super::read::{Asked, Parts};
use super::write::{Answers, Manners, Place, write};
use super::{info, info_message, status_message};
use crate::error::{Reply as _, to_status};
use crate::scope;
use crate::wire::{self as messages, OneMessage};

/// Answers with the content of a host.
pub struct Server {
    host: Arc<dyn Host>,
    aborts: Aborts,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host, aborts: Aborts::default() }
    }

    async fn store<T>(&self, request: &Request<T>) -> Result<Arc<dyn Store>, Status> {
        scope::services(&*self.host, request).await.map(|services| services.content)
    }
}

#[tonic::async_trait]
impl Content for Server {
    type ListStream = Pages;
    type ReadStream = Parts;
    type WriteStream = Answers;

    async fn info(&self, request: Request<wire::InfoRequest>) -> Result<Response<wire::InfoResponse>, Status> {
        let store = self.store(&request).await?;
        let info = async { store.info(&request.into_inner().digest.parse()?).await };
        info.await.map(|info| wire::InfoResponse { info: Some(info_message(info)) }).reply()
    }

    async fn update(&self, request: Request<wire::UpdateRequest>) -> Result<Response<wire::UpdateResponse>, Status> {
        let store = self.store(&request).await?;
        let update = async {
            let wire::UpdateRequest { info: wire, update_mask } = request.into_inner();
            let info = store.update(&info(wire)?, &messages::mask(update_mask)?).await?;
            Ok(wire::UpdateResponse { info: Some(info_message(info)) })
        };
        update.await.reply()
    }

    async fn list(&self, request: Request<wire::ListContentRequest>) -> Result<Response<Pages>, Status> {
        let store = self.store(&request).await?;
        messages::filters(&request.into_inner().filters).map(|filters| pages(store.list(&filters))).reply()
    }

    async fn delete(&self, request: Request<wire::DeleteContentRequest>) -> Result<Response<()>, Status> {
        let store = self.store(&request).await?;
        let delete = async { store.delete(&request.into_inner().digest.parse()?).await };
        delete.await.reply()
    }

    async fn read(&self, request: Request<wire::ReadContentRequest>) -> Result<Response<Parts>, Status> {
        let store = self.store(&request).await?;
        let is_file_asked = files::is_asked(request.metadata());
        let asked = Asked::open(&*store, request.into_inner()).await.map_err(|error| to_status(&error))?;
        let offer = is_file_asked.then(|| asked.offer()).flatten();
        Ok(offer.unwrap_or_else(|| Response::new(asked.messages())))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<wire::StatusResponse>, Status> {
        let store = self.store(&request).await?;
        let status = async { store.status(&request.into_inner().r#ref.try_into()?).await };
        status.await.map(|status| wire::StatusResponse { status: Some(status_message(status)) }).reply()
    }

    async fn list_statuses(
        &self,
        request: Request<wire::ListStatusesRequest>,
    ) -> Result<Response<wire::ListStatusesResponse>, Status> {
        let store = self.store(&request).await?;
        let list = async {
            let mut statuses = OneMessage::new();
            for status in store.statuses(&messages::filters(&request.into_inner().filters)?).await? {
                statuses.push(status_message(status))?;
            }
            Ok(wire::ListStatusesResponse { statuses: statuses.into_records() })
        };
        list.await.reply()
    }

    async fn write(&self, request: Request<Streaming<wire::WriteContentRequest>>) -> Result<Response<Answers>, Status> {
        let store = self.store(&request).await?;
        let namespace = scope::of_headers(request.metadata()).map_err(|error| to_status(&error))?.namespace;
        let contract = scope::has_contract(request.metadata());
        let manners = if contract { Manners::Contract } else { Manners::Containerd };
        let place = Place { store, namespace, aborts: self.aborts.clone(), files: Files::of(&request) };
        let mut response = Response::new(write(place, request.into_inner(), manners));
        if contract {
            scope::say_contract(response.metadata_mut());
        }
        Ok(response)
    }

    async fn abort(&self, request: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        let store = self.store(&request).await?;
        let namespace = scope::of_headers(request.metadata()).map_err(|error| to_status(&error))?.namespace;
        let contract = scope::has_contract(request.metadata());
        let abort = async {
            let ingest: IngestRef = request.into_inner().r#ref.try_into()?;
            match store.abort(&ingest).await {
                Err(error) if error.is(Kind::Unavailable) && !contract => {
                    self.aborts.end(namespace, ingest.clone()).await;
                    store.abort(&ingest).await
                }
                aborted => aborted,
            }
        };
        abort.await.map_err(|error| to_status(&error)).map(Response::new)
    }
}
