//! The services of a daemon: the one list of them, for the daemon and for tests.

use std::sync::Arc;

use tonic::transport::Server;
use windlass_core::plugin::Introspection;
use windlass_core::{Host, activation};
use windlass_proto::containerd::services::containers::v1::containers_server::ContainersServer;
use windlass_proto::containerd::services::content::v1::content_server::ContentServer;
use windlass_proto::containerd::services::diff::v1::diff_server::DiffServer;
use windlass_proto::containerd::services::events::v1::events_server::EventsServer;
use windlass_proto::containerd::services::images::v1::images_server::ImagesServer;
use windlass_proto::containerd::services::introspection::v1::introspection_server::IntrospectionServer;
use windlass_proto::containerd::services::leases::v1::leases_server::LeasesServer;
use windlass_proto::containerd::services::mounts::v1::mounts_server::MountsServer;
use windlass_proto::containerd::services::namespaces::v1::namespaces_server::NamespacesServer;
use windlass_proto::containerd::services::snapshots::v1::snapshots_server::SnapshotsServer;
use windlass_proto::containerd::services::tasks::v1::tasks_server::TasksServer;
use windlass_proto::containerd::services::version::v1::version_server::VersionServer;
use windlass_proto::grpc::health::v1::health_server::HealthServer;
use windlass_proto::windlass::services::maintenance::v1::maintenance_server::MaintenanceServer;

use crate::{
    CONNECTION_WINDOW, MAX_FRAME, MAX_MESSAGE, Routes, STREAM_WINDOW, containers, content, diff, events, health,
    images, introspection, leases, maintenance, mounts, namespaces, snapshots, tasks,
};

/// How many calls a connection may have at once. A watch or an open writer is one, and clients have one connection for all.
const MOST_CALLS: u32 = 1 << 16;

/// Makes a service of a noun's server, with the limits of every message.
macro_rules! service {
    ($limits:expr, $service:ident, $server:expr) => {
        $service::new($server).max_decoding_message_size($limits.taken).max_encoding_message_size($limits.sent)
    };
}

/// How large messages may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Those that are taken.
    pub taken: usize,
    /// Those that are sent.
    pub sent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { taken: MAX_MESSAGE, sent: MAX_MESSAGE }
    }
}

/// Returns every service, for a host, what its daemon says about itself, and the activations that it keeps.
pub fn routes(
    host: &Arc<dyn Host>,
    daemon: &Arc<dyn Introspection>,
    activations: &Arc<dyn activation::Manager>,
) -> Routes {
    routes_within(Limits::default(), host, daemon, activations, health::Server::default())
}

/// Returns every service, with limits of its messages, and who says whether they answer.
pub fn routes_within(
    limits: Limits,
    host: &Arc<dyn Host>,
    daemon: &Arc<dyn Introspection>,
    activations: &Arc<dyn activation::Manager>,
    health: health::Server,
) -> Routes {
    let about = introspection::Server::new(daemon.clone());
    Routes::default()
        .add_service(service!(limits, NamespacesServer, namespaces::Server::new(host.clone())))
        .add_service(service!(limits, ContentServer, content::Server::new(host.clone())))
        .add_service(service!(limits, ImagesServer, images::Server::new(host.clone())))
        .add_service(service!(limits, LeasesServer, leases::Server::new(host.clone())))
        .add_service(service!(limits, ContainersServer, containers::Server::new(host.clone())))
        .add_service(service!(limits, SnapshotsServer, snapshots::Server::new(host.clone())))
        .add_service(service!(limits, DiffServer, diff::Server::new(host.clone())))
        .add_service(service!(limits, EventsServer, events::Server::new(host.clone())))
        .add_service(service!(limits, IntrospectionServer, about.clone()))
        .add_service(service!(limits, VersionServer, about))
        .add_service(service!(limits, HealthServer, health))
        .add_service(service!(limits, MountsServer, mounts::Server::new(activations.clone())))
        .add_service(service!(limits, TasksServer, tasks::Server::new(host.clone())))
        .add_service(service!(limits, MaintenanceServer, maintenance::Server::new(host.clone())))
}

/// Makes a server whose windows are as large as bulk data on one machine needs.
pub fn builder() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MOST_CALLS)
        .max_frame_size(MAX_FRAME)
}
