//! Plugins that are processes of their own, as containerd has them: a socket on which one of its services answers.
//!
//! They need not run when the daemon starts: a call connects when there is no connection. What is asked of them while they do
//! not run fails; who does not answer at the start is named in the log, with the socket.
//!
//! What a snapshotter keeps is marked there, so that a daemon of ours or containerd's behind the socket does not collect it
//! ([`kept`]). So is what a content store keeps, by the engine's own store, which brings bytes there at their commit and has
//! everything else about content itself.

mod differs;
mod kept;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use tonic::transport::{Channel, Endpoint};
use windlass::{Elsewhere, Engine};
use windlass_core::snapshot::{Capabilities, Snapshotter};
use windlass_core::{Error, Host, Namespace, Result, Scope};
use windlass_grpc::snapshots::Remote;
use windlass_grpc::{Client, content};

use crate::assemble::{Assembly, Foreign};
use crate::config::{ProxyKind, ProxyPlugin};
use differs::{Differ, Differing};
use kept::Kept;

pub(crate) use differs::WALKING;

/// The namespace that is told to snapshotters and content stores of others. The engine's own namespaces are apart already in the
/// names of its snapshots and in its records, and who is a daemon itself asks for one.
const NAMESPACE: &str = "windlass";

/// Returns the parts of the engine that are processes of their own and are wanted.
///
/// # Errors
/// Those of making a channel.
pub(crate) fn foreign(assembly: &Assembly) -> Result<Foreign> {
    let mut content = None;
    for (name, proxy) in assembly.proxies(ProxyKind::Content) {
        warn_unless_there(name, &proxy.address);
        content = Some(elsewhere(name, &proxy.address)?);
    }
    Ok(Foreign { snapshotters: snapshotters(assembly)?, content })
}

/// Returns the content store that has the bytes of a root's blobs, when they are not in the root itself: for whoever opens a root
/// that a daemon has had. Needs no configuration, because the root says where they are.
///
/// # Errors
/// Those of [`Elsewhere::of`] and of making a channel; that nobody answers there is said when the store is used.
pub fn content_of(root: &Path) -> Result<Option<Elsewhere>> {
    Elsewhere::of(root)?.map(|(name, address)| elsewhere(&name, &address)).transpose()
}

fn elsewhere(name: &str, address: &Path) -> Result<Elsewhere> {
    let scope = Scope::from(NAMESPACE.parse::<Namespace>()?);
    Ok(Elsewhere::new(name, address, Arc::new(content::Remote::new(channel(address)?, scope))))
}

fn snapshotters(assembly: &Assembly) -> Result<BTreeMap<String, Arc<dyn Snapshotter>>> {
    let namespace: Namespace = NAMESPACE.parse()?;
    let mut snapshotters: BTreeMap<String, Arc<dyn Snapshotter>> = BTreeMap::new();
    for (name, proxy) in assembly.proxies(ProxyKind::Snapshot) {
        warn_unless_there(name, &proxy.address);
        let capabilities = Capabilities { rebase: has(proxy, "rebase") };
        let channel = channel(&proxy.address)?;
        let scope = Scope::from(namespace.clone());
        let behind = Remote::new(channel, scope, name.clone(), capabilities);
        snapshotters.insert(name.clone(), Arc::new(Kept::new(Arc::new(behind))));
    }
    Ok(snapshotters)
}

/// Returns the host whose layers are applied and compared by the differs of that order. A name that is nobody's is logged, and not
/// asked.
///
/// # Errors
/// Those of making a channel.
pub(crate) fn differing(assembly: &Assembly, order: &[String], engine: &Engine) -> Result<Arc<dyn Host>> {
    let mut differs = Vec::new();
    for name in order {
        match assembly.proxies(ProxyKind::Diff).find(|(proxy, _)| *proxy == name) {
            _ if name == WALKING => differs.push(Differ::Own),
            Some((name, proxy)) => {
                warn_unless_there(name, &proxy.address);
                differs.push(Differ::Behind(channel(&proxy.address)?));
            }
            None => tracing::warn!("diff.default names {name:?}, which is no differ here, and is not asked"),
        }
    }
    for (name, _) in assembly.proxies(ProxyKind::Diff).filter(|(name, _)| !order.contains(name)) {
        tracing::warn!("differ {name} is asked for nothing: diff.default does not name it");
    }
    if let [Differ::Own] = differs.as_slice() {
        return Ok(Arc::new(engine.clone()));
    }
    Ok(Arc::new(Differing::new(engine.clone(), differs)))
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
