//! Plugins that are processes of their own, as containerd has them: a socket on which one of its services answers.
//!
//! They need not run when the daemon starts: a call connects when there is no connection. What is asked of them while they do
//! not run fails; who does not answer at the start is named in the log, with the socket.
//!
//! A snapshotter that collects garbage by itself, as a daemon of ours or containerd's behind the socket does, must not do so: nothing
//! there refers to what is kept for this one.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use tonic::transport::{Channel, Endpoint};
use windlass_core::snapshot::{Capabilities, Snapshotter};
use windlass_core::{Error, Namespace, Result, Scope};
use windlass_grpc::Client;
use windlass_grpc::snapshots::Remote;

use crate::assemble::Assembly;
use crate::config::{ProxyKind, ProxyPlugin};

/// The namespace that is told to snapshotters of others. The engine's own namespaces are apart already in the names of its
/// snapshots, and a snapshotter that is a daemon itself asks for one.
const NAMESPACE: &str = "windlass";

/// Returns the snapshotters that are processes of their own and are wanted, by name.
///
/// # Errors
/// Those of making a channel.
pub(crate) fn snapshotters(assembly: &Assembly) -> Result<BTreeMap<String, Arc<dyn Snapshotter>>> {
    let namespace: Namespace = NAMESPACE.parse()?;
    let mut snapshotters: BTreeMap<String, Arc<dyn Snapshotter>> = BTreeMap::new();
    for (name, proxy) in assembly.proxies(ProxyKind::Snapshot) {
        warn_unless_there(name, &proxy.address);
        let capabilities = Capabilities { rebase: has(proxy, "rebase") };
        let channel = channel(&proxy.address)?;
        let scope = Scope::from(namespace.clone());
        snapshotters.insert(name.clone(), Arc::new(Remote::new(channel, scope, name.clone(), capabilities)));
    }
    Ok(snapshotters)
}

/// Makes a channel that connects when it is used.
fn channel(address: &Path) -> Result<Channel> {
    let text = address.to_str().map(|path| format!("unix:{path}"));
    let text = text.ok_or_else(|| Error::invalid_argument(format!("{} is no text", address.display())))?;
    let endpoint = Endpoint::from_shared(text).map_err(|error| {
        Error::invalid_argument(format!("{} cannot be connected to", address.display())).source(error)
    })?;
    Ok(Client::tuned(endpoint).connect_lazy())
}

fn has(proxy: &ProxyPlugin, capability: &str) -> bool {
    proxy.capabilities.iter().any(|one| one == capability)
}

fn warn_unless_there(name: &str, address: &Path) {
    if let Err(error) = UnixStream::connect(address) {
        tracing::warn!(%error, "proxy plugin {name} does not answer at {} yet", address.display());
    }
}
