//! Namespaces over the wire: `containerd.services.namespaces.v1.Namespaces`.
//!
//! Calls of this service need no namespace header; clients send one, because containerd publishes events where it says.

use std::sync::Arc;

use async_trait::async_trait;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use windlass_core::namespace::Store;
use windlass_core::{Error, Host, Kind, Labels, Namespace, Result, Scope};
use windlass_proto::containerd::services::namespaces::v1 as wire;
use windlass_proto::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use windlass_proto::containerd::services::namespaces::v1::namespaces_server::Namespaces;

use crate::error::{Answer as _, Reply as _, to_status};
use crate::{MAX_MESSAGE, scope};

/// The field of an update that is all labels; one of them is `labels.KEY`.
const LABELS: &str = "labels";

/// Answers with the namespaces of a host.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }

    async fn store(&self) -> Result<Arc<dyn Store>, Status> {
        // Namespaces are seen from any of them.
        let services = self.host.services(&Scope::default()).await;
        services.map(|services| services.namespaces).map_err(|error| to_status(&error))
    }
}

fn message(name: &Namespace, labels: Labels) -> wire::Namespace {
    wire::Namespace { name: name.to_string(), labels: labels.into_iter().collect() }
}

fn given(namespace: Option<wire::Namespace>) -> Result<(Namespace, Labels)> {
    let given = namespace.ok_or_else(|| Error::invalid_argument("no namespace is given"))?;
    Ok((given.name.parse()?, given.labels.into_iter().collect()))
}

/// Sets the labels that an update names: all of them without a mask, and then those that are not given go. As containerd has it, a
/// namespace that is not there is made, unless the client says that it has our contract.
async fn update(
    store: &dyn Store,
    request: wire::UpdateNamespaceRequest,
    contract: bool,
) -> Result<wire::UpdateNamespaceResponse> {
    let (name, labels) = given(request.namespace)?;
    labels.validate()?;
    let paths = request.update_mask.map(|mask| mask.paths).filter(|paths| !paths.is_empty());
    let mut set = Vec::new();
    for path in paths.unwrap_or_else(|| vec![LABELS.to_owned()]) {
        if path == LABELS {
            let there = match store.labels(&name).await {
                Err(error) if error.is(Kind::NotFound) => Labels::new(),
                labels => labels?,
            };
            let gone = there.iter().filter(|(key, _)| labels.get(key).is_none());
            set.extend(gone.map(|(key, _)| (key.to_owned(), String::new())));
            set.extend(labels.clone());
        } else if let Some(key) = path.strip_prefix("labels.").filter(|key| !key.is_empty()) {
            set.push((key.to_owned(), labels.get(key).unwrap_or_default().to_owned()));
        } else {
            return Err(Error::invalid_argument(format!("field {path:?} of a namespace cannot be changed"))
                .hint("labels and labels.KEY can"));
        }
    }
    if !contract {
        match store.create(&name, Labels::new()).await {
            Err(error) if !error.is(Kind::AlreadyExists) => return Err(error),
            _ => {}
        }
    }
    for (key, value) in set {
        store.set_label(&name, &key, &value).await?;
    }
    let labels = store.labels(&name).await?;
    Ok(wire::UpdateNamespaceResponse { namespace: Some(message(&name, labels)) })
}

#[tonic::async_trait]
impl Namespaces for Server {
    async fn get(
        &self,
        request: Request<wire::GetNamespaceRequest>,
    ) -> Result<Response<wire::GetNamespaceResponse>, Status> {
        let store = self.store().await?;
        // With containerd one that is not there has no labels, and its clients look for some before they make anything.
        let contract = scope::has_contract(request.metadata());
        let get = async {
            let name: Namespace = request.into_inner().name.parse()?;
            let labels = match store.labels(&name).await {
                Err(error) if error.is(Kind::NotFound) && !contract => Labels::new(),
                labels => labels?,
            };
            Ok(wire::GetNamespaceResponse { namespace: Some(message(&name, labels)) })
        };
        get.await.reply()
    }

    async fn list(
        &self,
        _: Request<wire::ListNamespacesRequest>,
    ) -> Result<Response<wire::ListNamespacesResponse>, Status> {
        let store = self.store().await?;
        let list = async {
            let mut namespaces = Vec::new();
            for name in store.list().await? {
                match store.labels(&name).await {
                    Ok(labels) => namespaces.push(message(&name, labels)),
                    // Deleted since it was listed.
                    Err(error) if error.is(Kind::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(wire::ListNamespacesResponse { namespaces })
        };
        list.await.reply()
    }

    async fn create(
        &self,
        request: Request<wire::CreateNamespaceRequest>,
    ) -> Result<Response<wire::CreateNamespaceResponse>, Status> {
        let store = self.store().await?;
        let create = async {
            let (name, labels) = given(request.into_inner().namespace)?;
            store.create(&name, labels.clone()).await?;
            Ok(wire::CreateNamespaceResponse { namespace: Some(message(&name, labels)) })
        };
        create.await.reply()
    }

    async fn update(
        &self,
        request: Request<wire::UpdateNamespaceRequest>,
    ) -> Result<Response<wire::UpdateNamespaceResponse>, Status> {
        let contract = scope::has_contract(request.metadata());
        update(&*self.store().await?, request.into_inner(), contract).await.reply()
    }

    async fn delete(&self, request: Request<wire::DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        let store = self.store().await?;
        let delete = async { store.delete(&request.into_inner().name.parse()?).await };
        delete.await.reply()
    }
}

/// The namespaces of a daemon.
pub(crate) struct Remote {
    client: NamespacesClient<Channel>,
    /// Where containerd publishes what was changed; it refuses the change without.
    scope: Scope,
}

impl Remote {
    pub(crate) fn new(channel: Channel, scope: Scope) -> Self {
        let client = NamespacesClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { client, scope }
    }
}

#[async_trait]
impl Store for Remote {
    async fn create(&self, namespace: &Namespace, labels: Labels) -> Result<()> {
        let request = wire::CreateNamespaceRequest { namespace: Some(message(namespace, labels)) };
        self.client.clone().create(scope::request(&self.scope, request)?).await.answer()?;
        Ok(())
    }

    async fn labels(&self, namespace: &Namespace) -> Result<Labels> {
        let request = wire::GetNamespaceRequest { name: namespace.to_string() };
        let mut request = scope::request(&self.scope, request)?;
        scope::say_contract(request.metadata_mut());
        given(self.client.clone().get(request).await.answer()?.namespace).map(|(_, labels)| labels)
    }

    async fn set_label(&self, namespace: &Namespace, key: &str, value: &str) -> Result<()> {
        let labels = Labels::new().with(key, value);
        let update_mask = Some(prost_types::FieldMask { paths: vec![format!("labels.{key}")] });
        let request = wire::UpdateNamespaceRequest { namespace: Some(message(namespace, labels)), update_mask };
        let mut request = scope::request(&self.scope, request)?;
        scope::say_contract(request.metadata_mut());
        self.client.clone().update(request).await.answer()?;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Namespace>> {
        let request = wire::ListNamespacesRequest::default();
        let listed = self.client.clone().list(scope::request(&self.scope, request)?).await.answer()?.namespaces;
        listed.into_iter().map(|namespace| namespace.name.parse()).collect()
    }

    async fn delete(&self, namespace: &Namespace) -> Result<()> {
        let request = wire::DeleteNamespaceRequest { name: namespace.to_string() };
        self.client.clone().delete(scope::request(&self.scope, request)?).await.answer()
    }
}
