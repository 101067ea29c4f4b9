//! A daemon as a host.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tonic::transport::{Channel, Endpoint};
use windlass_core::claim::Claims;
use windlass_core::content::Provider;
use windlass_core::diff::{Applied, Applier, Whiteouts};
use windlass_core::lease::{self, Manager as _};
use windlass_core::progress::Task;
use windlass_core::room::{Free, Keeps, Room};
use windlass_core::snapshot::Mount;
use windlass_core::{Descriptor, Error, Host, Result, Scope, Services};

use crate::content::Writers;
use crate::{CONNECTION_WINDOW, MAX_FRAME, STREAM_WINDOW, containers, content, images, leases, namespaces};

/// The snapshotter where a daemon says nothing else, as containerd has it.
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// A daemon that is reached over a channel: whatever runs on an engine runs on it. Cheap to clone.
///
/// What a daemon does not tell is unknown, such as how much room there is; what is claimed is so among the clones of one client.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    writers: Writers,
    claims: Claims,
}

impl Client {
    /// Makes a client on a channel that somebody connected, best of an endpoint that is [tuned](Client::tuned).
    pub fn new(channel: Channel) -> Self {
        Self { channel, writers: Writers::default(), claims: Claims::default() }
    }

    /// Gives the connections of an endpoint windows as large as bulk data on one machine needs.
    pub fn tuned(endpoint: Endpoint) -> Endpoint {
        endpoint
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
    }

    /// Looks whether a lease is there.
    async fn require(&self, scope: &Scope, id: &lease::Id) -> Result<()> {
        let unleased = Scope::from(scope.namespace.clone());
        let leases = leases::Remote::new(self.channel.clone(), unleased);
        let filter = format!("id=={id}").parse()?;
        if leases.list(&[filter]).await?.is_empty() {
            return Err(Error::not_found(format!("lease {id} is not in namespace {}", scope.namespace)));
        }
        Ok(())
    }
}

#[async_trait]
impl Host for Client {
    /// # Errors
    /// `NotFound` when the scope names a lease that is not there.
    async fn services(&self, scope: &Scope) -> Result<Services> {
        if let Some(lease) = &scope.lease {
            self.require(scope, lease).await?;
        }
        let channel = || self.channel.clone();
        Ok(Services {
            scope: scope.clone(),
            content: Arc::new(content::Remote::new(channel(), scope.clone(), self.writers.clone())),
            images: Arc::new(images::Remote::new(channel(), scope.clone())),
            containers: Arc::new(containers::Remote::new(channel(), scope.clone())),
            leases: Arc::new(leases::Remote::new(channel(), scope.clone())),
            namespaces: Arc::new(namespaces::Remote::new(channel())),
            snapshotters: BTreeMap::new(),
            default_snapshotter: DEFAULT_SNAPSHOTTER.to_owned(),
            applier: Arc::new(Elsewhere),
            room: Arc::new(Elsewhere),
            claims: self.claims.clone(),
        })
    }
}

/// What is the daemon's alone.
struct Elsewhere;

#[async_trait]
impl Room for Elsewhere {
    /// Knows nothing: containerd's API does not tell.
    async fn free(&self, _: Keeps<'_>) -> Result<Option<Free>> {
        Ok(None)
    }
}

#[async_trait]
impl Applier for Elsewhere {
    async fn apply(
        &self,
        _: &dyn Provider,
        layer: &Descriptor,
        _: &[Mount],
        _: Whiteouts,
        _: Option<&Task>,
    ) -> Result<Applied> {
        Err(Error::unimplemented(format!("layer {} cannot be applied by a daemon yet", layer.digest)))
    }
}
