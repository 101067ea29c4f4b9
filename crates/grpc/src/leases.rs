//! Leases over the wire: `containerd.services.leases.v1.Leases`.
//!
//! When a lease ends is a label on the wire, as containerd's clients have it.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use windlass_core::filter::Filter;
use windlass_core::gc::{self, Deletion};
use windlass_core::lease::{Id, Lease, Manager, Options, Resource};
use windlass_core::{Error, Host, Labels, Result, Scope, timestamp};
use windlass_proto::containerd::services::leases::v1 as wire;
use windlass_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use windlass_proto::containerd::services::leases::v1::leases_server::Leases;

use crate::error::{Answer as _, Reply as _};
use crate::wire::{self as messages, OneMessage};
use crate::{MAX_MESSAGE, scope, time};

/// Answers with the leases of a host.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }

    async fn manager<T>(&self, request: &Request<T>) -> Result<Arc<dyn Manager>, Status> {
        scope::services(&*self.host, request).await.map(|services| services.leases)
    }
}

/// Adds the label that says when a lease ends, unless there is one.
fn ending(mut labels: Labels, expires_at: Option<SystemTime>) -> Labels {
    if labels.get(gc::EXPIRE).is_none()
        && let Some(time) = expires_at.and_then(timestamp::format)
    {
        labels.set(gc::EXPIRE, time);
    }
    labels
}

fn message(lease: Lease) -> wire::Lease {
    wire::Lease {
        id: lease.id.to_string(),
        created_at: time::to_wire(lease.created_at),
        labels: messages::label_map(ending(lease.labels, lease.expires_at)),
    }
}

fn record(wire: wire::Lease) -> Result<Lease> {
    let labels = messages::labels(wire.labels);
    // A label that is no time ends nothing, for containerd too.
    let expires_at = labels.get(gc::EXPIRE).and_then(timestamp::parse);
    Ok(Lease { id: wire.id.parse()?, created_at: time::from_wire(wire.created_at)?, expires_at, labels })
}

fn resource_message(resource: &Resource) -> wire::Resource {
    wire::Resource { id: resource.id.clone(), r#type: resource.kind.to_string() }
}

fn resource(wire: Option<wire::Resource>) -> Result<Resource> {
    let wire = wire.ok_or_else(|| Error::invalid_argument("no resource is given"))?;
    let resource: Resource = format!("{}/{}", wire.r#type, wire.id).parse()?;
    // The slash of an id is not one of its type.
    if resource.kind.to_string() != wire.r#type {
        return Err(Error::invalid_argument(format!("{:?} is no type of what a lease can hold", wire.r#type))
            .hint("it is content, ingests, snapshots/SNAPSHOTTER or images"));
    }
    Ok(resource)
}

#[tonic::async_trait]
impl Leases for Server {
    async fn create(&self, request: Request<wire::CreateRequest>) -> Result<Response<wire::CreateResponse>, Status> {
        let leases = self.manager(&request).await?;
        let create = async {
            let wire::CreateRequest { id, labels } = request.into_inner();
            let id = Some(id).filter(|id| !id.is_empty()).map(|id| id.parse()).transpose()?;
            let lease = leases.create(Options { id, expiry: None, labels: messages::labels(labels) }).await?;
            Ok(wire::CreateResponse { lease: Some(message(lease)) })
        };
        create.await.reply()
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Result<Response<()>, Status> {
        let leases = self.manager(&request).await?;
        let delete = async {
            let wire::DeleteRequest { id, sync } = request.into_inner();
            leases.delete(&id.parse()?, if sync { Deletion::Synchronous } else { Deletion::Background }).await
        };
        delete.await.reply()
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<wire::ListResponse>, Status> {
        let manager = self.manager(&request).await?;
        let list = async {
            let mut leases = OneMessage::new();
            for lease in manager.list(&messages::filters(&request.into_inner().filters)?).await? {
                leases.push(message(lease))?;
            }
            Ok(wire::ListResponse { leases: leases.into_records() })
        };
        list.await.reply()
    }

    async fn add_resource(&self, request: Request<wire::AddResourceRequest>) -> Result<Response<()>, Status> {
        let leases = self.manager(&request).await?;
        let add = async {
            let wire::AddResourceRequest { id, resource: wire } = request.into_inner();
            leases.add_resource(&id.parse()?, &resource(wire)?).await
        };
        add.await.reply()
    }

    async fn delete_resource(&self, request: Request<wire::DeleteResourceRequest>) -> Result<Response<()>, Status> {
        let leases = self.manager(&request).await?;
        let delete = async {
            let wire::DeleteResourceRequest { id, resource: wire } = request.into_inner();
            leases.delete_resource(&id.parse()?, &resource(wire)?).await
        };
        delete.await.reply()
    }

    async fn list_resources(
        &self,
        request: Request<wire::ListResourcesRequest>,
    ) -> Result<Response<wire::ListResourcesResponse>, Status> {
        let leases = self.manager(&request).await?;
        let list = async {
            let mut resources = OneMessage::new();
            for resource in leases.resources(&request.into_inner().id.parse()?).await? {
                resources.push(resource_message(&resource))?;
            }
            Ok(wire::ListResourcesResponse { resources: resources.into_records() })
        };
        list.await.reply()
    }
}

/// The leases of a daemon.
pub(crate) struct Remote {
    client: LeasesClient<Channel>,
    scope: Scope,
}

impl Remote {
    pub(crate) fn new(channel: Channel, scope: Scope) -> Self {
        let client = LeasesClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { client, scope }
    }
}

#[async_trait]
impl Manager for Remote {
    async fn create(&self, options: Options) -> Result<Lease> {
        let id = options.id.as_ref().map(ToString::to_string).unwrap_or_default();
        let labels = ending(options.labels.clone(), options.ends(SystemTime::now())?);
        let request = scope::request(&self.scope, wire::CreateRequest { id, labels: messages::label_map(labels) })?;
        let lease = self.client.clone().create(request).await.answer()?.lease;
        record(lease.ok_or_else(|| Error::internal("the daemon created a lease and does not say which"))?)
    }

    async fn delete(&self, id: &Id, deletion: Deletion) -> Result<()> {
        let request = wire::DeleteRequest { id: id.to_string(), sync: deletion == Deletion::Synchronous };
        let request = scope::request(&self.scope, request)?;
        self.client.clone().delete(request).await.answer()
    }

    async fn list(&self, filters: &[Filter]) -> Result<Vec<Lease>> {
        let request = wire::ListRequest { filters: messages::filter_texts(filters) };
        let request = scope::request(&self.scope, request)?;
        self.client.clone().list(request).await.answer()?.leases.into_iter().map(record).collect()
    }

    async fn add_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let request = wire::AddResourceRequest { id: id.to_string(), resource: Some(resource_message(resource)) };
        let request = scope::request(&self.scope, request)?;
        self.client.clone().add_resource(request).await.answer()
    }

    async fn delete_resource(&self, id: &Id, resource: &Resource) -> Result<()> {
        let request = wire::DeleteResourceRequest { id: id.to_string(), resource: Some(resource_message(resource)) };
        let request = scope::request(&self.scope, request)?;
        self.client.clone().delete_resource(request).await.answer()
    }

    async fn resources(&self, id: &Id) -> Result<Vec<Resource>> {
        let request = scope::request(&self.scope, wire::ListResourcesRequest { id: id.to_string() })?;
        let resources = self.client.clone().list_resources(request).await.answer()?.resources;
        resources.into_iter().map(|wire| resource(Some(wire))).collect()
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    #[test]
    fn a_resource_is_of_the_type_that_it_says() {
        let read = |r#type: &str, id: &str| resource(Some(wire::Resource { id: id.into(), r#type: r#type.into() }));
        let held = read("snapshots/overlayfs", "a/b").unwrap();
        assert_eq!(held.to_string(), "snapshots/overlayfs/a/b");
        for (kind, id) in [("snapshots", "overlayfs/a"), ("", "content/x"), ("content", "x"), ("images", "")] {
            assert_eq!(read(kind, id).unwrap_err().kind(), Kind::InvalidArgument, "{kind} {id}");
        }
    }
}
