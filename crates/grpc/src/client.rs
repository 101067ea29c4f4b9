//! A daemon as a host.

use tonic::transport::Channel;

use windlass_core::{Result, Scope};

use crate::namespaces;
use crate::streaming::{self, Stream};

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

    /// Opens a stream to the daemon that a later call refers to by its name, which is free to choose, and new.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; those of the connection.
    pub async fn open_stream(&self, scope: &Scope, name: &str) -> Result<Stream> {
        streaming::open(self.channel.clone(), scope, name).await
    }
}
