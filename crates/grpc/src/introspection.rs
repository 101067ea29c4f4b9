//! What a daemon says about itself: `containerd.services.introspection.v1.Introspection`, and its version:
//! `containerd.services.version.v1.Version`.
//!
//! Calls of these services need no namespace header.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use windlass_core::filter::Filter;
use windlass_core::plugin::{Deprecation, Introspection, Outcome, Plugin, SNAPSHOTTER, ServerInfo};
use windlass_core::snapshot::Capabilities;
use windlass_core::{Error, Result};
use windlass_proto::containerd::services::introspection::v1 as wire;
use windlass_proto::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use windlass_proto::containerd::services::introspection::v1::introspection_server::Introspection as Service;
use windlass_proto::containerd::services::version::v1::VersionResponse;
use windlass_proto::containerd::services::version::v1::version_client::VersionClient;
use windlass_proto::containerd::services::version::v1::version_server::Version;
use windlass_proto::google::rpc;

use crate::error::{Answer as _, Reply as _, from_status, to_status};
use crate::{MAX_MESSAGE, time, wire as messages};

/// The capability of a snapshotter whose snapshots can be put onto a parent at their commit.
pub const REBASE: &str = "rebase";
/// By what a client knows a plugin that was left out on purpose.
const SKIPPED: &str = "skip plugin";

/// Answers with what a daemon says about itself.
#[derive(Clone)]
pub struct Server {
    daemon: Arc<dyn Introspection>,
}

impl Server {
    /// Serves what a daemon says.
    pub fn new(daemon: Arc<dyn Introspection>) -> Self {
        Self { daemon }
    }
}

fn message(plugin: Plugin) -> wire::Plugin {
    let init_err = plugin.outcome.error().map(|error| {
        let status = to_status(&error);
        rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details: Vec::new() }
    });
    wire::Plugin {
        r#type: plugin.kind,
        id: plugin.id,
        requires: plugin.requires,
        platforms: plugin.platforms.into_iter().map(messages::platform_message).collect(),
        exports: plugin.exports.into_iter().collect(),
        capabilities: plugin.capabilities,
        init_err,
    }
}

fn plugin(wire: wire::Plugin) -> Plugin {
    let outcome = match wire.init_err {
        None => Outcome::Ready,
        Some(status) => match status.message.split_once(SKIPPED) {
            Some((_, reason)) => Outcome::Skipped { reason: reason.trim_start_matches([':', ' ']).to_owned() },
            None => Outcome::Failed {
                kind: from_status(&Status::new(Code::from_i32(status.code), "")).kind(),
                error: status.message,
            },
        },
    };
    Plugin {
        kind: wire.r#type,
        id: wire.id,
        requires: wire.requires,
        platforms: wire.platforms.into_iter().map(messages::platform).collect(),
        exports: wire.exports.into_iter().collect(),
        capabilities: wire.capabilities,
        outcome,
    }
}

#[tonic::async_trait]
impl Service for Server {
    async fn plugins(&self, request: Request<wire::PluginsRequest>) -> Result<Response<wire::PluginsResponse>, Status> {
        let plugins = async {
            let filters = messages::filters(&request.into_inner().filters)?;
            let plugins = self.daemon.plugins(&filters).await?;
            Ok(wire::PluginsResponse { plugins: plugins.into_iter().map(message).collect() })
        };
        plugins.await.reply()
    }

    async fn server(&self, _: Request<()>) -> Result<Response<wire::ServerResponse>, Status> {
        let server = async {
            let server = self.daemon.server().await?;
            let deprecation = |deprecation: Deprecation| wire::DeprecationWarning {
                id: deprecation.id,
                message: deprecation.message,
                last_occurrence: time::to_wire(deprecation.last_occurrence),
            };
            Ok(wire::ServerResponse {
                uuid: server.uuid,
                pid: server.pid,
                pidns: server.pidns,
                deprecations: server.deprecations.into_iter().map(deprecation).collect(),
            })
        };
        server.await.reply()
    }

    /// Options are for what a plugin could tell beyond its record; none tells more.
    async fn plugin_info(
        &self,
        request: Request<wire::PluginInfoRequest>,
    ) -> Result<Response<wire::PluginInfoResponse>, Status> {
        let info = async {
            let wire::PluginInfoRequest { r#type: kind, id, .. } = request.into_inner();
            let plugins = self.daemon.plugins(&[]).await?;
            let found = plugins.into_iter().find(|plugin| plugin.kind == kind && plugin.id == id);
            let found = found.ok_or_else(|| {
                Error::not_found(format!("plugin {kind}.{id} is not here"))
                    .hint("`dist plugins ls` lists those there are")
            })?;
            Ok(wire::PluginInfoResponse { plugin: Some(message(found)), extra: None })
        };
        info.await.reply()
    }
}

#[tonic::async_trait]
impl Version for Server {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        let server = self.daemon.server().await;
        server.map(|server| VersionResponse { version: server.version, revision: server.revision }).reply()
    }
}

/// What the daemon at the other end of a channel says about itself.
#[derive(Clone)]
pub struct Remote {
    introspection: IntrospectionClient<Channel>,
    version: VersionClient<Channel>,
}

impl Remote {
    /// Asks the daemon at the other end of a channel.
    pub fn new(channel: Channel) -> Self {
        let introspection = IntrospectionClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        Self { introspection, version: VersionClient::new(channel) }
    }

    /// Returns the snapshotters that work, and what they can do.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn snapshotters(&self) -> Result<BTreeMap<String, Capabilities>> {
        let filter: Filter = format!("type=={SNAPSHOTTER}").parse()?;
        let plugins = self.plugins(&[filter]).await?.into_iter().filter(Plugin::is_ready);
        let capabilities = |plugin: &Plugin| Capabilities { rebase: plugin.capabilities.iter().any(|it| it == REBASE) };
        Ok(plugins.map(|plugin| (plugin.id.clone(), capabilities(&plugin))).collect())
    }
}

#[async_trait]
impl Introspection for Remote {
    async fn plugins(&self, filters: &[Filter]) -> Result<Vec<Plugin>> {
        let request = wire::PluginsRequest { filters: messages::filter_texts(filters) };
        let plugins = self.introspection.clone().plugins(request).await.answer()?.plugins;
        Ok(plugins.into_iter().map(plugin).collect())
    }

    async fn server(&self) -> Result<ServerInfo> {
        let server = self.introspection.clone().server(()).await.answer()?;
        let version = self.version.clone().version(()).await.answer()?;
        let deprecation = |wire: wire::DeprecationWarning| {
            let last_occurrence = time::from_wire(wire.last_occurrence)?;
            Ok(Deprecation { id: wire.id, message: wire.message, last_occurrence })
        };
        Ok(ServerInfo {
            uuid: server.uuid,
            pid: server.pid,
            pidns: server.pidns,
            deprecations: server.deprecations.into_iter().map(deprecation).collect::<Result<_>>()?,
            version: version.version,
            revision: version.revision,
        })
    }
}
