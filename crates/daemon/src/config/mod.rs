//! What a daemon is told: where it keeps things, where it listens, and how the parts behave.
//!
//! ```text
//! defaults ─► /etc/windlass/config.toml ─► conf.d/*.toml beside it ─► flags
//! ```
//!
//! A later one goes before an earlier one, key by key; lists of plugins add up. A file that has a `version` is one of
//! containerd, which is read as far as it means something here (`containerd`); any other is our own (`own`), in which a key
//! that nobody knows is an error. `render` writes a configuration down.

mod containerd;
mod load;
mod own;
mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use windlass::registry::{ForeignUrls, HOSTS_DIRS};
use windlass::transfer::{Budget, Pull, Verifier};
use windlass::{Policy, Sharing, layer, verify};
use windlass_core::{Platform, Result};

use crate::proxy::WALKING;

pub use load::{Loaded, SYSTEM_FILE, load};
pub use render::render;

/// The plugin of the programs that are asked whether an image may be here.
pub(crate) const VERIFIERS: &str = "io.containerd.image-verifier.v1.bindir";

/// What a daemon is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The directory that holds everything that is kept.
    pub root: PathBuf,
    /// The directory of what does not outlive a restart of the machine.
    pub state: PathBuf,
    /// Plugins that are left out, as `KIND.ID`.
    pub disabled_plugins: BTreeSet<String>,
    /// Plugins without which the daemon does not start, as `KIND.ID`.
    pub required_plugins: BTreeSet<String>,
    /// Where gRPC is served.
    pub grpc: Grpc,
    /// Where ttrpc is served.
    pub ttrpc: Ttrpc,
    /// What is logged.
    pub debug: Debug,
    /// Where numbers are served.
    pub metrics: Metrics,
    /// When garbage is collected.
    pub gc: Policy,
    /// Who gets which content, and what of it is kept.
    pub content: Content,
    /// What may come out of a layer.
    pub layers: layer::Options,
    /// Where images are unpacked.
    pub snapshots: Snapshots,
    /// Who applies and compares layers for clients.
    pub diff: Diff,
    /// Pulls that the daemon carries out itself.
    pub transfer: Transfer,
    /// Who is asked whether an image may be here.
    pub verification: Verification,
    /// Which registries are asked, and how.
    pub registry: Registry,
    /// Plugins that are processes of their own, by name.
    pub proxy_plugins: BTreeMap<String, ProxyPlugin>,
}

/// The gRPC socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// The path of the socket.
    pub address: PathBuf,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The largest message that is taken, in bytes.
    pub max_recv_message_size: usize,
    /// The largest message that is sent, in bytes.
    pub max_send_message_size: usize,
}

/// The ttrpc socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ttrpc {
    /// The path of the socket; that of gRPC with `.ttrpc` behind it when there is none.
    pub address: Option<PathBuf>,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debug {
    /// What is logged: a level, or levels of single modules.
    pub level: String,
}

/// The listener for numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// `IP:PORT` on the loopback; nothing is served without.
    pub address: Option<SocketAddr>,
}

/// Content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Content {
    /// Whether a namespace may take over what another one has.
    pub sharing: Sharing,
    /// What becomes of the compressed bytes of layers in pulls that the daemon carries out.
    pub layers: windlass::transfer::Content,
}

/// Snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// The snapshotter to use when nobody names one; the engine's own choice when there is none.
    pub default: Option<String>,
}

/// Differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Those that are asked, in this order, until one can do what is asked for.
    pub default: Vec<String>,
}

/// Pulls that the daemon carries out itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// How many blobs are fetched at once.
    pub max_concurrent_downloads: usize,
    /// How many layers are unpacked at once; as many as there are processors, and two at least, when nothing is said.
    pub max_concurrent_unpacks: Option<usize>,
    /// How many bytes all pulls together bring in a second; any number when there is none.
    pub limit_rate: Option<NonZeroU64>,
}

/// Who is asked whether an image may be here that the daemon pulls or imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The file of the policy; no policy when there is none.
    pub policy: Option<PathBuf>,
    /// The directory of programs that are asked; none are when there is none.
    pub bin_dir: Option<PathBuf>,
    /// How many of them are asked, by their names; all when there is no limit.
    pub max_verifiers: Option<usize>,
    /// How long each may take.
    pub per_verifier_timeout: Duration,
}

impl Default for Verification {
    fn default() -> Self {
        Self {
            policy: None,
            bin_dir: None,
            max_verifiers: Some(verify::MAX_PROGRAMS),
            per_verifier_timeout: verify::TIMEOUT,
        }
    }
}

/// Registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Directories with a directory for each registry, first choice first: containerd's `hosts.toml` in it, or Docker's certificates.
    pub hosts_dirs: Vec<PathBuf>,
    /// Whether content is fetched from where its descriptor says.
    pub foreign_urls: ForeignUrls,
}

/// A plugin that is a process of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyPlugin {
    /// What it is.
    pub kind: ProxyKind,
    /// The socket that it answers on.
    pub address: PathBuf,
    /// The platforms that it is for.
    pub platforms: Vec<Platform>,
    /// What others may want to know of it.
    pub exports: BTreeMap<String, String>,
    /// What it can do beyond the minimum.
    pub capabilities: Vec<String>,
}

/// What a plugin that is a process of its own can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// A snapshotter.
    Snapshot,
    /// A content store.
    Content,
    /// What applies and compares layers.
    Diff,
}

impl ProxyKind {
    /// The words for it, as containerd has them.
    const WORDS: [(&'static str, Self); 3] =
        [("snapshot", Self::Snapshot), ("content", Self::Content), ("diff", Self::Diff)];
}

impl Default for Config {
    fn default() -> Self {
        let pull = Pull::default();
        Self {
            root: "/var/lib/windlass".into(),
            state: "/run/windlass".into(),
            disabled_plugins: BTreeSet::new(),
            required_plugins: BTreeSet::new(),
            grpc: Grpc {
                address: "/run/windlass/windlass.sock".into(),
                uid: 0,
                gid: 0,
                max_recv_message_size: windlass_grpc::MAX_MESSAGE,
                max_send_message_size: windlass_grpc::MAX_MESSAGE,
            },
            ttrpc: Ttrpc::default(),
            debug: Debug { level: "info".into() },
            metrics: Metrics::default(),
            gc: Policy::default(),
            content: Content::default(),
            layers: layer::Options::default(),
            snapshots: Snapshots::default(),
            diff: Diff { default: vec![WALKING.to_owned()] },
            transfer: Transfer {
                max_concurrent_downloads: pull.concurrent_downloads,
                max_concurrent_unpacks: None,
                limit_rate: None,
            },
            verification: Verification::default(),
            registry: Registry {
                hosts_dirs: HOSTS_DIRS.map(PathBuf::from).to_vec(),
                foreign_urls: ForeignUrls::default(),
            },
            proxy_plugins: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Returns what a pull is that the daemon carries out, as far as its client says nothing else. Clones of it share one
    /// budget.
    pub fn pull(&self) -> Pull {
        let usual = Pull::default();
        Pull {
            concurrent_downloads: self.transfer.max_concurrent_downloads,
            concurrent_unpacks: self.transfer.max_concurrent_unpacks.unwrap_or(usual.concurrent_unpacks),
            content: self.content.layers,
            budget: Budget::new(self.transfer.limit_rate),
            ..usual
        }
    }

    /// Returns who is asked whether an image may be here; nobody when there is none.
    ///
    /// # Errors
    /// Those of [`verify::PolicyFile::open`].
    pub fn verifier(&self) -> Result<Option<Arc<dyn Verifier>>> {
        let Verification { policy, bin_dir, max_verifiers, per_verifier_timeout } = &self.verification;
        let directory = bin_dir.as_ref().filter(|_| !self.disabled_plugins.contains(VERIFIERS));
        let programs = directory.map(|directory| verify::Programs {
            directory: directory.clone(),
            limit: *max_verifiers,
            timeout: *per_verifier_timeout,
        });
        verify::Verification { policy: policy.clone(), programs }.verifier()
    }

    /// Returns where ttrpc is served.
    pub fn ttrpc_address(&self) -> PathBuf {
        self.ttrpc.address.clone().unwrap_or_else(|| beside(&self.grpc.address))
    }
}

/// Returns the usual place of a ttrpc socket.
fn beside(address: &Path) -> PathBuf {
    let mut name = address.as_os_str().to_owned();
    name.push(".ttrpc");
    name.into()
}
