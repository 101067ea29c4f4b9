//! Containers, as metadata, over the wire: `containerd.services.containers.v1.Containers`.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use windlass_core::container::{Container, Runtime, Store};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::{Error, Host, Listing, Result, Scope};
use windlass_proto::containerd::services::containers::v1 as wire;
use windlass_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use windlass_proto::containerd::services::containers::v1::containers_server::Containers;

use crate::error::{Answer as _, Reply as _, from_status, to_status};
use crate::wire::{self as messages, OneMessage};
use crate::{MAX_MESSAGE, scope, time};

/// Answers with the containers of a host.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }

    async fn store<T>(&self, request: &Request<T>) -> Result<Arc<dyn Store>, Status> {
        scope::services(&*self.host, request).await.map(|services| services.containers)
    }
}

fn message(container: &Container) -> wire::Container {
    let text = |text: Option<String>| text.unwrap_or_default();
    let extensions = container.extensions.iter();
    wire::Container {
        id: container.id.clone(),
        labels: messages::label_map(container.labels.clone()),
        image: text(container.image.as_ref().map(ToString::to_string)),
        runtime: Some(wire::container::Runtime {
            name: container.runtime.name.clone(),
            options: container.runtime.options.as_ref().map(messages::any_message),
        }),
        spec: container.spec.as_ref().map(messages::any_message),
        snapshotter: text(container.snapshotter.clone()),
        snapshot_key: text(container.snapshot_key.as_ref().map(ToString::to_string)),
        created_at: time::to_wire(container.created_at),
        updated_at: time::to_wire(container.updated_at),
        extensions: extensions.map(|(name, any)| (name.clone(), messages::any_message(any))).collect(),
        sandbox: text(container.sandbox_id.clone()),
    }
}

fn record(wire: Option<wire::Container>) -> Result<Container> {
    let wire = wire.ok_or_else(|| Error::invalid_argument("no container is given"))?;
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let runtime = wire.runtime.unwrap_or_default();
    let extensions = wire.extensions.into_iter();
    Ok(Container {
        id: wire.id,
        labels: messages::labels(wire.labels),
        image: text(wire.image).map(TryInto::try_into).transpose()?,
        runtime: Runtime { name: runtime.name, options: runtime.options.map(messages::any) },
        spec: wire.spec.map(messages::any),
        snapshotter: text(wire.snapshotter),
        snapshot_key: text(wire.snapshot_key).map(TryInto::try_into).transpose()?,
        sandbox_id: text(wire.sandbox),
        extensions: extensions.map(|(name, any)| (name, messages::any(any))).collect(),
        created_at: time::from_wire(wire.created_at)?,
        updated_at: time::from_wire(wire.updated_at)?,
    })
}

#[tonic::async_trait]
impl Containers for Server {
    type ListStreamStream = BoxStream<'static, Result<wire::ListContainerMessage, Status>>;

    async fn get(
        &self,
        request: Request<wire::GetContainerRequest>,
    ) -> Result<Response<wire::GetContainerResponse>, Status> {
        let store = self.store(&request).await?;
        let got = store.get(&request.into_inner().id).await;
        got.map(|container| wire::GetContainerResponse { container: Some(message(&container)) }).reply()
    }

    async fn list(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        let store = self.store(&request).await?;
        let list = async {
            let mut listing = store.list(&messages::filters(&request.into_inner().filters)?);
            let mut containers = OneMessage::new();
            while let Some(container) = listing.try_next().await? {
                containers.push(message(&container))?;
            }
            Ok(wire::ListContainersResponse { containers: containers.into_records() })
        };
        list.await.reply()
    }

    async fn list_stream(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let store = self.store(&request).await?;
        let filters = messages::filters(&request.into_inner().filters).map_err(|error| to_status(&error))?;
        let listing = store.list(&filters);
        let stream = listing.map_ok(|container| wire::ListContainerMessage { container: Some(message(&container)) });
        Ok(Response::new(stream.map_err(|error| to_status(&error)).boxed()))
    }

    async fn create(
        &self,
        request: Request<wire::CreateContainerRequest>,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        let store = self.store(&request).await?;
        let create = async {
            let container = store.create(&record(request.into_inner().container)?).await?;
            Ok(wire::CreateContainerResponse { container: Some(message(&container)) })
        };
        create.await.reply()
    }

    async fn update(
        &self,
        request: Request<wire::UpdateContainerRequest>,
    ) -> Result<Response<wire::UpdateContainerResponse>, Status> {
        let store = self.store(&request).await?;
        let update = async {
            let wire::UpdateContainerRequest { container, update_mask } = request.into_inner();
            let container = store.update(&record(container)?, &messages::mask(update_mask)?).await?;
            Ok(wire::UpdateContainerResponse { container: Some(message(&container)) })
        };
        update.await.reply()
    }

    async fn delete(&self, request: Request<wire::DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let store = self.store(&request).await?;
        store.delete(&request.into_inner().id).await.reply()
    }
}

/// The containers of a daemon.
pub(crate) struct Remote {
    client: ContainersClient<Channel>,
    scope: Scope,
}

impl Remote {
    pub(crate) fn new(channel: Channel, scope: Scope) -> Self {
        let client = ContainersClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { client, scope }
    }
}

#[async_trait]
impl Store for Remote {
    async fn get(&self, id: &str) -> Result<Container> {
        let request = scope::request(&self.scope, wire::GetContainerRequest { id: id.to_owned() })?;
        record(self.client.clone().get(request).await.answer()?.container)
    }

    fn list(&self, filters: &[Filter]) -> Listing<Container> {
        let (mut client, scope) = (self.client.clone(), self.scope.clone());
        let request = wire::ListContainersRequest { filters: messages::filter_texts(filters) };
        let list = async move {
            let listed = client.list_stream(scope::request(&scope, request)?).await.answer()?;
            Ok(listed.map_err(|status| from_status(&status)))
        };
        let listed = stream::once(list).try_flatten();
        listed.and_then(async |message| record(message.container)).boxed()
    }

    async fn create(&self, container: &Container) -> Result<Container> {
        let request = wire::CreateContainerRequest { container: Some(message(container)) };
        let request = scope::request(&self.scope, request)?;
        record(self.client.clone().create(request).await.answer()?.container)
    }

    async fn update(&self, container: &Container, mask: &FieldMask) -> Result<Container> {
        let update_mask = messages::mask_paths(mask);
        let request = wire::UpdateContainerRequest { container: Some(message(container)), update_mask };
        let request = scope::request(&self.scope, request)?;
        record(self.client.clone().update(request).await.answer()?.container)
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let request = scope::request(&self.scope, wire::DeleteContainerRequest { id: id.to_owned() })?;
        self.client.clone().delete(request).await.answer()
    }
}
