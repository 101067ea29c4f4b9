//! Activations over the wire: `containerd.services.mounts.v1.Mounts`.
//!
//! `Update` changes labels, which containerd does not offer.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use windlass_core::activation::{Activation, Active, Manager, Name, Options};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::snapshot::Mount;
use windlass_core::{Error, Labels, Namespace, Result, Scope};
use windlass_proto::containerd::services::mounts::v1 as wire;
use windlass_proto::containerd::services::mounts::v1::mounts_client::MountsClient;
use windlass_proto::containerd::services::mounts::v1::mounts_server::Mounts;
use windlass_proto::containerd::types;

use crate::error::{Answer as _, Reply as _, from_status};
use crate::{MAX_MESSAGE, mount, scope, time, wire as messages};

/// Answers with activations.
pub struct Server {
    activations: Arc<dyn Manager>,
}

impl Server {
    /// Serves activations.
    pub fn new(activations: Arc<dyn Manager>) -> Self {
        Self { activations }
    }
}

fn message(activation: Activation) -> types::ActivationInfo {
    let active = |active: Active| types::ActiveMount {
        mount: mount::messages(vec![active.mount]).pop(),
        mounted_at: time::to_wire(active.mounted_at),
        mount_point: active.mount_point,
        data: active.data.into_iter().collect(),
    };
    types::ActivationInfo {
        name: activation.name.to_string(),
        active: activation.active.into_iter().map(active).collect(),
        system: mount::messages(activation.system),
        labels: messages::label_map(activation.labels),
    }
}

fn activation(info: Option<types::ActivationInfo>) -> Result<Activation> {
    let info = info.ok_or_else(|| Error::invalid_argument("no activation is given"))?;
    let active = |wire: types::ActiveMount| {
        let mounted = mount::mounts(wire.mount.into_iter().collect()).pop();
        Ok(Active {
            mount: mounted.ok_or_else(|| Error::invalid_argument("an active mount has no mount"))?,
            mounted_at: time::from_wire(wire.mounted_at)?,
            mount_point: wire.mount_point,
            data: wire.data.into_iter().collect(),
        })
    };
    Ok(Activation {
        name: info.name.parse()?,
        active: info.active.into_iter().map(active).collect::<Result<_>>()?,
        system: mount::mounts(info.system),
        labels: messages::labels(info.labels),
    })
}

#[tonic::async_trait]
impl Mounts for Server {
    async fn activate(
        &self,
        request: Request<wire::ActivateRequest>,
    ) -> Result<Response<wire::ActivateResponse>, Status> {
        let activate = async {
            let namespace = scope::of_headers(request.metadata())?.namespace;
            let request = request.into_inner();
            let options = Options { labels: messages::labels(request.labels), temporary: request.temporary };
            let (name, mounts): (Name, _) = (request.name.parse()?, mount::mounts(request.mounts));
            let activation = self.activations.activate(&namespace, &name, mounts, options).await?;
            Ok(wire::ActivateResponse { info: Some(message(activation)) })
        };
        activate.await.reply()
    }

    async fn deactivate(&self, request: Request<wire::DeactivateRequest>) -> Result<Response<()>, Status> {
        let deactivate = async {
            let namespace = scope::of_headers(request.metadata())?.namespace;
            self.activations.deactivate(&namespace, &request.into_inner().name.parse()?).await
        };
        deactivate.await.reply()
    }

    async fn info(&self, request: Request<wire::InfoRequest>) -> Result<Response<wire::InfoResponse>, Status> {
        let info = async {
            let namespace = scope::of_headers(request.metadata())?.namespace;
            let activation = self.activations.info(&namespace, &request.into_inner().name.parse()?).await?;
            Ok(wire::InfoResponse { info: Some(message(activation)) })
        };
        info.await.reply()
    }

    async fn update(&self, request: Request<wire::UpdateRequest>) -> Result<Response<wire::UpdateResponse>, Status> {
        let update = async {
            let namespace = scope::of_headers(request.metadata())?.namespace;
            let request = request.into_inner();
            let (given, mask) = (activation(request.info)?, messages::mask(request.update_mask)?);
            let activation = self.activations.update(&namespace, &given.name, &given.labels, &mask).await?;
            Ok(wire::UpdateResponse { info: Some(message(activation)) })
        };
        update.await.reply()
    }

    type ListStream = BoxStream<'static, Result<wire::ListMessage, Status>>;

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let list = async {
            let namespace = scope::of_headers(request.metadata())?.namespace;
            let filters = messages::filters(&request.into_inner().filters)?;
            let activations = self.activations.list(&namespace, &filters).await?;
            let message = |activation| Ok(wire::ListMessage { info: Some(message(activation)) });
            Ok(stream::iter(activations).map(message).boxed())
        };
        list.await.reply()
    }
}

/// The activations of a daemon.
pub struct Remote {
    client: MountsClient<Channel>,
}

impl Remote {
    /// Returns those at the other end of a channel.
    pub fn new(channel: Channel) -> Self {
        let client = MountsClient::new(channel);
        Self { client: client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE) }
    }
}

fn request<T>(namespace: &Namespace, message: T) -> Result<Request<T>> {
    scope::request(&Scope::from(namespace.clone()), message)
}

#[async_trait]
impl Manager for Remote {
    async fn activate(
        &self,
        namespace: &Namespace,
        name: &Name,
        mounts: Vec<Mount>,
        options: Options,
    ) -> Result<Activation> {
        let message = wire::ActivateRequest {
            name: name.to_string(),
            mounts: mount::messages(mounts),
            labels: messages::label_map(options.labels),
            temporary: options.temporary,
        };
        activation(self.client.clone().activate(request(namespace, message)?).await.answer()?.info)
    }

    async fn deactivate(&self, namespace: &Namespace, name: &Name) -> Result<()> {
        let message = wire::DeactivateRequest { name: name.to_string() };
        self.client.clone().deactivate(request(namespace, message)?).await.answer()
    }

    async fn info(&self, namespace: &Namespace, name: &Name) -> Result<Activation> {
        let message = wire::InfoRequest { name: name.to_string() };
        activation(self.client.clone().info(request(namespace, message)?).await.answer()?.info)
    }

    async fn update(
        &self,
        namespace: &Namespace,
        name: &Name,
        labels: &Labels,
        mask: &FieldMask,
    ) -> Result<Activation> {
        let info = types::ActivationInfo {
            name: name.to_string(),
            labels: messages::label_map(labels.clone()),
            ..types::ActivationInfo::default()
        };
        let message = wire::UpdateRequest { info: Some(info), update_mask: messages::mask_paths(mask) };
        activation(self.client.clone().update(request(namespace, message)?).await.answer()?.info)
    }

    async fn list(&self, namespace: &Namespace, filters: &[Filter]) -> Result<Vec<Activation>> {
        let message = wire::ListRequest { filters: messages::filter_texts(filters) };
        let listed = self.client.clone().list(request(namespace, message)?).await.answer()?;
        let listed = listed.map_err(|status| from_status(&status));
        listed.and_then(|message| async { activation(message.info) }).try_collect().await
    }
}
