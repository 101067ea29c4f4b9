//! The services of a daemon: the one list of them, for the daemon and for tests.

use std::sync::Arc;

use tonic::service::Routes;
use tonic::transport::Server;
use windlass_core::Host;
use windlass_proto::containerd::services::containers::v1::containers_server::ContainersServer;
use windlass_proto::containerd::services::content::v1::content_server::ContentServer;
use windlass_proto::containerd::services::images::v1::images_server::ImagesServer;
use windlass_proto::containerd::services::leases::v1::leases_server::LeasesServer;
use windlass_proto::containerd::services::namespaces::v1::namespaces_server::NamespacesServer;

use crate::{
    CONNECTION_WINDOW, MAX_FRAME, MAX_MESSAGE, STREAM_WINDOW, containers, content, images, leases, namespaces,
};

/// How many calls a connection may have at once. A watch or an open writer is one, and clients have one connection for all.
const MOST_CALLS: u32 = 1 << 16;

/// Makes a service of a noun's server, with the limits of every message.
macro_rules! service {
    ($service:ident, $server:expr) => {
        $service::new($server).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    };
}

/// Returns every service, for a host.
pub fn routes(host: &Arc<dyn Host>) -> Routes {
    Routes::new(service!(NamespacesServer, namespaces::Server::new(host.clone())))
        .add_service(service!(ContentServer, content::Server::new(host.clone())))
        .add_service(service!(ImagesServer, images::Server::new(host.clone())))
        .add_service(service!(LeasesServer, leases::Server::new(host.clone())))
        .add_service(service!(ContainersServer, containers::Server::new(host.clone())))
}

/// Makes a server whose windows are as large as bulk data on one machine needs.
pub fn builder() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MOST_CALLS)
        .max_frame_size(MAX_FRAME)
}
