//! A daemon as a host.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};
use windlass_core::activation::Manager;
use windlass_core::claim::Claims;
use windlass_core::gc::Collector;
use windlass_core::inspect::Summaries;
use windlass_core::lease::{self, Manager as _};
use windlass_core::namespace::{DEFAULT_SNAPSHOTTER_LABEL, Store as _};
use windlass_core::room::{Free, Keeps, Room};
use windlass_core::snapshot::{Capabilities, Snapshotter};
use windlass_core::{Error, Host, Kind, Namespace, Result, Scope, Services};

use crate::content::{Peer, Writers};
use crate::streaming::{self, Stream};
use crate::{
    CONNECTION_WINDOW, MAX_FRAME, STREAM_WINDOW, containers, content, diff, events, images, introspection, leases,
    maintenance, mounts, namespaces, snapshots,
};

/// The snapshotter of a namespace that says nothing else, where the daemon has it, as containerd has it; otherwise the first
/// one it has.
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// A daemon that is reached over a channel: whatever runs on an engine runs on it. Cheap to clone.
///
/// What a daemon does not tell is unknown, such as how much room there is; what is claimed is so among the clones of one client.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    writers: Writers,
    peer: Peer,
    claims: Claims,
    /// What the daemon has, once it was asked.
    snapshotters: Arc<OnceCell<BTreeMap<String, Capabilities>>>,
    /// Whether the daemon collects when it is asked to, once it was asked whether it does.
    maintained: Arc<OnceCell<bool>>,
}

impl Client {
    /// Makes a client on a channel that somebody connected, best of an endpoint that is [tuned](Client::tuned).
    pub fn new(channel: Channel) -> Self {
        Self::of(channel, Peer::default())
    }

    /// Makes one that knows whom it is connected to.
    pub(crate) fn of(channel: Channel, peer: Peer) -> Self {
        Self {
            channel,
            writers: Writers::default(),
            peer,
            claims: Claims::default(),
            snapshotters: Arc::default(),
            maintained: Arc::default(),
        }
    }

    /// Returns the channel.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Gives the connections of an endpoint windows as large as bulk data on one machine needs.
    pub fn tuned(endpoint: Endpoint) -> Endpoint {
        endpoint
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
    }

    /// Opens a stream to the daemon that a later call refers to by its name, which is free to choose, and new.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; those of the connection.
    pub async fn open_stream(&self, scope: &Scope, name: &str) -> Result<Stream> {
        streaming::open(self.channel.clone(), scope, name).await
    }

    /// Returns what the daemon says about itself.
    pub fn introspection(&self) -> introspection::Remote {
        introspection::Remote::new(self.channel.clone())
    }

    /// Returns the activations that the daemon keeps.
    pub fn activations(&self) -> Arc<dyn Manager> {
        Arc::new(mounts::Remote::new(self.channel.clone()))
    }

    /// Returns what the snapshotters of the daemon can do, by their names; it is asked once.
    async fn snapshotters(&self) -> Result<&BTreeMap<String, Capabilities>> {
        let ask = async || match self.introspection().snapshotters().await {
            // A part of a daemon, such as a store alone.
            Err(error) if error.is(Kind::Unimplemented) => Ok(BTreeMap::new()),
            answered => answered,
        };
        self.snapshotters.get_or_try_init(ask).await
    }

    /// Returns the snapshotter to use in a namespace when none is named.
    async fn default_snapshotter(&self, namespace: &Namespace) -> Result<String> {
        let labels =
            match namespaces::Remote::new(self.channel.clone(), namespace.clone().into()).labels(namespace).await {
                Err(error) if [Kind::NotFound, Kind::Unimplemented].contains(&error.kind()) => None,
                labels => Some(labels?),
            };
        if let Some(name) = labels.as_ref().and_then(|labels| labels.get(DEFAULT_SNAPSHOTTER_LABEL)) {
            return Ok(name.to_owned());
        }
        let there = self.snapshotters().await?;
        let first = there.keys().next().filter(|_| !there.contains_key(DEFAULT_SNAPSHOTTER));
        Ok(first.map_or(DEFAULT_SNAPSHOTTER, String::as_str).to_owned())
    }

    /// Tells whether the daemon has the service of ours for garbage; it is asked once.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) async fn has_maintenance(&self) -> Result<bool> {
        self.maintained.get_or_try_init(|| maintenance::is_served(self.channel.clone())).await.copied()
    }

    /// Looks whether a lease is there.
    async fn require(&self, scope: &Scope, id: &lease::Id) -> Result<()> {
        let unleased = Scope::from(scope.namespace.clone());
        let leases = leases::Remote::new(self.channel.clone(), unleased);
        let quoted = id.as_str().replace('\\', r"\\").replace('"', r#"\""#);
        let filter = format!("id==\"{quoted}\"").parse()?;
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
        let (there, default_snapshotter) =
            futures::try_join!(self.snapshotters(), self.default_snapshotter(&scope.namespace))?;
        let snapshotter = |(name, capabilities): (&String, &Capabilities)| {
            let remote = snapshots::Remote::new(channel(), scope.clone(), name.clone(), *capabilities);
            (name.clone(), Arc::new(remote) as Arc<dyn Snapshotter>)
        };
        let maintained = self.has_maintenance().await?;
        let summaries = || Arc::new(maintenance::Remote::new(channel(), scope.clone())) as Arc<dyn Summaries>;
        let collector = || Arc::new(maintenance::Remote::new(channel(), scope.clone())) as Arc<dyn Collector>;
        Ok(Services {
            scope: scope.clone(),
            content: Arc::new(content::Remote::of(channel(), scope.clone(), self.writers.clone(), self.peer.clone())),
            images: Arc::new(images::Remote::new(channel(), scope.clone())),
            containers: Arc::new(containers::Remote::new(channel(), scope.clone())),
            leases: Arc::new(leases::Remote::new(channel(), scope.clone())),
            namespaces: Arc::new(namespaces::Remote::new(channel(), scope.clone())),
            snapshotters: Arc::new(there.iter().map(snapshotter).collect()),
            default_snapshotter,
            applier: Arc::new(diff::Remote::new(channel(), scope.clone())),
            comparer: Arc::new(diff::Remote::new(channel(), scope.clone())),
            events: Arc::new(events::Remote::new(channel(), scope.clone())),
            collector: maintained.then(collector),
            summaries: maintained.then(summaries),
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
