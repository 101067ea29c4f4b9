//! A daemon as a host.

use tonic::transport::Channel;

use crate::namespaces;

/// A daemon that is reached over a channel: whatever runs on an engine runs on it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Makes a client on a channel that somebody connected.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Returns the namespaces of the daemon.
    pub fn namespaces(&self) -> std::sync::Arc<dyn windlass_core::namespace::Store> {
        std::sync::Arc::new(namespaces::Remote::new(self.channel.clone()))
    }
}
